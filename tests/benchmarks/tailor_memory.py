"""How much memory `tailor` takes. Not part of the suite.

    OMP_NUM_THREADS=2 python tests/benchmarks/tailor_memory.py blocks|llava|short [FOLDER]

`blocks`: text models of 4, 8 and 16 equal blocks, every Linear layer of a block tuned. A row: peak
of anonymous memory, what it is over that of 4 blocks, CPU seconds, and those a block over those a
block of 4. `llava`: a random LLaVA of about 3 GB in bfloat16 with 32 sequences of which 256 tokens
are a picture; the projector and the last blocks are tuned. `short`: the same but for the number of
blocks, three and two of the tower, of which one is tuned: the same peak in a fraction of the time.
Anonymous memory leaves out the page cache; a checkpoint is made in FOLDER and removed.
"""

import os
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(Path(__file__).parents[1]))
import factories
from costs import measure

BLOCKS = (4, 8, 16)
WIDTH, INNER, SEQUENCES = 768, 2048, 64
LLAVA = {"hidden_size": 2048, "intermediate_size": 5504, "num_attention_heads": 16}
SIZES = {"llava": (21, 2, 24), "short": (3, 1, 2)}  # blocks, tuned ones, blocks of the tower
LLAVA_SEQUENCES = 32


def main() -> None:
    """Build, run, print."""
    kind, folder = sys.argv[1], Path(sys.argv[2] if len(sys.argv) > 2 else ".")
    with tempfile.TemporaryDirectory(dir=folder) as made:
        sys.stdout.write(f"load {os.getloadavg()[0]:.1f}, {torch.get_num_threads()} threads\n\n")
        if kind == "blocks":
            blocks(Path(made))
        else:
            llava(Path(made), *SIZES[kind])


def blocks(root: Path) -> None:
    """Models of more and more blocks."""
    samples = factories.write_rows(root / "samples.jsonl", [text(n) for n in range(SEQUENCES)])
    sys.stdout.write(
        f"{'blocks':>6} {'MB':>6} {'MB anon':>8} {'/4':>6} {'CPU s':>6} {'a block':>8}\n"
    )
    first: tuple[float, float] | None = None
    for number in BLOCKS:
        base, sft = root / f"base-{number}", root / f"ft-{number}"
        size = text_model(base, number)
        tuned(base, sft, "layers.")
        peak, seconds = run(base, sft, samples, root / "out")
        first = first or (peak, seconds / number)
        sys.stdout.write(
            f"{number:6} {size:6.0f} {peak:8.0f} {peak / first[0]:6.2f} {seconds:6.1f}"
            f" {seconds / number / first[1]:8.2f}\n"
        )
        sys.stdout.flush()
        for path in (base, sft):
            shutil.rmtree(path)


def llava(root: Path, number: int, last: int, tower: int) -> None:
    """One large multimodal model of so many blocks, of which the last are tuned."""
    rows = [picture(root, number) for number in range(LLAVA_SEQUENCES)]
    samples = factories.write_rows(root / "samples.jsonl", rows)
    size = llava_model(root / "base", number, tower)
    ends = "|".join(str(number - 1 - n) for n in range(last))
    pattern = rf"projector|language_model\.model\.(norm|layers\.({ends})\.)"
    tuned(root / "base", root / "ft", pattern)
    peak, seconds = run(root / "base", root / "ft", samples, root / "out")
    sys.stdout.write(f"{size:.0f} MB a checkpoint, {peak:.0f} MB anonymous, {seconds:.0f} CPU s\n")


def text(number: int) -> dict[str, Any]:
    """A sample of some hundred tokens."""
    rng = np.random.default_rng(number)
    words = rng.choice(["zero", "one", "two", "three", "four", "five", "six"], 100)
    return {"id": str(number), "messages": factories.turns("Count.", " ".join(words))}


def picture(root: Path, number: int) -> dict[str, Any]:
    """A sample with a picture of noise."""
    pixels = np.random.default_rng(number).integers(0, 256, (224, 224, 3), np.uint8)
    Image.fromarray(pixels).save(root / f"{number}.png")
    turns = factories.turns("<image>What colour is the picture?", "It has all of them.")
    return {"id": str(number), "images": [f"{number}.png"], "messages": turns}


def text_model(path: Path, number: int) -> float:
    """A Llama; megabytes."""
    tokenizer = factories.new_tokenizer(end="<|im_end|>")
    tokenizer.chat_template = factories.LLAVA_TEMPLATE
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=INNER,
        num_hidden_layers=number,
        num_attention_heads=WIDTH // 64,
    )
    return save(transformers.LlamaForCausalLM, config, tokenizer, path)


def llava_model(path: Path, number: int, tower: int) -> float:
    """CLIP-L at 224 pixels, a projector, a Llama 2048 wide; megabytes."""
    tokenizer = factories.new_tokenizer(end="</s>")
    size = {"height": 224, "width": 224}
    processor = transformers.LlavaProcessor(
        image_processor=transformers.CLIPImageProcessor(size=size, crop_size=size),
        tokenizer=tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=factories.LLAVA_TEMPLATE,
    )
    vision = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": tower}
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(
            **vision, num_attention_heads=16, image_size=224, patch_size=14, projection_dim=768
        ),
        text_config=transformers.LlamaConfig(
            **LLAVA, vocab_size=32064, num_hidden_layers=number, tie_word_embeddings=False
        ),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=256,
        tie_word_embeddings=False,
    )
    return save(transformers.LlavaForConditionalGeneration, config, processor, path)


def save(model_class: Any, config: Any, processor: Any, path: Path) -> float:
    """Random weights in bfloat16."""
    torch.manual_seed(0)
    config.dtype = torch.bfloat16
    with torch.no_grad():
        model = model_class._from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(path)
    processor.save_pretrained(path)
    return float(sum(file.stat().st_size for file in path.glob("*.safetensors")) / 1e6)


def tuned(base: Path, into: Path, pattern: str) -> None:
    """A copy with noise on the tensors whose name matches the pattern."""
    shutil.copytree(base, into)
    rng = torch.Generator().manual_seed(1)
    for file in into.glob("*.safetensors"):
        tensors = load_file(file)
        for name in filter(re.compile(pattern).search, sorted(tensors)):
            noise = 0.002 * torch.randn(tensors[name].shape, generator=rng)
            tensors[name] = (tensors[name] + noise).to(tensors[name].dtype)
        save_file(tensors, file, metadata={"format": "pt"})


def run(base: Path, sft: Path, samples: Path, out: Path) -> tuple[float, float]:
    """Peak megabytes of anonymous memory, and CPU seconds."""
    argv = [sys.executable, "-m", "mllmtool", "tailor", "--pre", str(base), "--sft", str(sft)]
    argv += ["--calibration", str(samples), "--out", str(out), "--overwrite", "--quiet"]
    argv += ["--device", "cpu", *sys.argv[3:]]
    cost = measure(argv)
    return cost.anonymous, cost.cpu


if __name__ == "__main__":
    main()
