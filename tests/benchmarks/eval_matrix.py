"""What `eval-matrix` saves, beside doing the same the plain way. Not part of the suite.

    OMP_NUM_THREADS=1 python tests/benchmarks/eval_matrix.py [options|checkpoints|kills ...]

`options`: a random LLaVA (vision of 25 million parameters on 576 patches, language of 25 million)
scores text options of some tokens behind a picture and a question, as `eval-matrix` does and by one
whole forward pass an option, of which 16 a question are measured and scaled to all. A row: options,
seconds of both, their ratio, the largest difference.

`checkpoints`: one checkpoint and five that differ in the language part alone, each a run of the
command. Vision has 25 million parameters, language 14; what is saved is all of vision's share, the
self-check and all that is prepared once, so that other proportions give other figures.

`kills`: the command on a small model, killed at 20 random moments with 1, 2 and 3 processes, then
let through. Its report must be that of a run which nobody killed, with every item once.
"""

import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import factories
import suite_factory
import torch
import transformers
from safetensors.torch import load_file, save_file

from mllmtool.data.samples import Message, Sample
from mllmtool.evaluation.inference import Reader
from mllmtool.evaluation.questions import Question, groups
from mllmtool.models.encoding import IGNORED, Encoder
from mllmtool.models.loading import load_model

IMAGE, PATCH = 336, 14
ITEMS = {4: 4, 16: 1, 100: 1}  # by the number of options
WHOLE = 16  # options of a question that are read whole, at most; their seconds are scaled


def main() -> None:
    """Run what is named, or all."""
    parts = {"options": options, "checkpoints": checkpoints, "kills": kills}
    with tempfile.TemporaryDirectory() as folder:
        for name in sys.argv[1:] or parts:
            told(f"{name}, load {os.getloadavg()[0]:.1f}, {torch.get_num_threads()} threads\n")
            parts[name](Path(folder) / name)


def options(folder: Path) -> None:
    """Option scoring against a whole forward pass an option."""
    base = llava(folder / "base", (512, 8), (512, 8))
    factories.colour_samples(folder, max(ITEMS.values()))
    model, encoder = load_model(base), Encoder.load(base)
    reader = Reader(model, encoder)
    told(f"{'options':>8} {'tokens':>7} {'ours s':>7} {'whole s':>8} {'ratio':>6} {'differ':>8}")
    for number, items in ITEMS.items():
        questions = [question(encoder, folder, item, number) for item in range(items)]
        for one in questions:
            encoder.preload(one.prompt)
        started = time.monotonic()
        found = {
            asked.item: made.logprobs
            for group in groups(questions, items)
            for asked, made in reader.answer(group)
        }
        ours, started = time.monotonic() - started, time.monotonic()
        whole = {
            one.item: reader.score(replace(one, continuations=one.continuations[:WHOLE]))
            for one in questions
        }
        theirs = (time.monotonic() - started) * max(1, number / WHOLE)
        lengths = [len(ids) for one in questions for ids in one.continuations]
        differ = max(abs(a - b) for i in found for a, b in zip(found[i], whole[i], strict=False))
        told(
            f"{number:8} {min(lengths):3}-{max(lengths):3} {ours:7.2f} {theirs:8.2f}"
            f" {theirs / ours:6.1f} {differ:8.1e}"
        )
    told("")


def question(encoder: Encoder, folder: Path, item: int, number: int) -> Question:
    """About a picture, with options of a few words."""
    rng = random.Random(f"{item}/{number}")
    words = [*suite_factory.COLOURS, *suite_factory.WORDS]
    texts = {" ".join(rng.sample(words, rng.randint(2, 4))): None for _ in range(3 * number)}
    turn = Message(role="user", content="<image>\nWhich words do you see in the picture?")
    sample = Sample(id=str(item), images=(f"images/{item}.png",), messages=(turn,))
    prompt = encoder.prompt_row(sample, folder)
    rows = encoder.option_rows(sample, list(texts)[:number], folder)
    shared = int((rows[0].labels == IGNORED).sum())
    return Question(
        task="words",
        item=str(item),
        prompt=prompt,
        head=max(n for n, i in enumerate(prompt.ids.tolist()) if i == encoder.image_token_id) + 1,
        merged=len(prompt.ids) - shared,
        continuations=tuple(row.ids[shared:] for row in rows),
        max_new_tokens=0,
    )


def checkpoints(folder: Path) -> None:
    """Five checkpoints against one."""
    base = llava(folder / "base", (512, 8), (384, 6))
    suite = suite_factory.colour_suite(folder / "suite", number=8)
    names = ("colour-letter", "other-letter", "colour-open")
    suite_factory.change(suite, tasks=[f"tasks/{name}.yaml" for name in names])
    tuned = []
    for seed in range(1, 5):
        path = folder / f"tuned-{seed}"
        path.mkdir()
        for file in base.iterdir():
            (path / file.name).write_bytes(file.read_bytes())
        tensors = load_file(base / "model.safetensors")
        generator = torch.Generator().manual_seed(seed)
        for name in sorted(name for name in tensors if "language_model" in name):
            noise = torch.randn(tensors[name].shape, generator=generator)
            tensors[name] = tensors[name] + 1e-3 * noise
        save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
        tuned.append(path)
    seconds = {}
    for number in (1, 5):
        argv = command(suite, base, tuned[: number - 1], folder / f"out-{number}")
        before, started = cpu(), time.monotonic()
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
        seconds[number] = time.monotonic() - started, cpu() - before
        told(f"{number} checkpoints: {seconds[number][0]:6.1f} s, CPU {seconds[number][1]:6.1f} s")
    ratios = [five / one for five, one in zip(seconds[5], seconds[1], strict=True)]
    told(f"ratio: {ratios[0]:.2f}, of CPU seconds {ratios[1]:.2f}\n")


def kills(folder: Path, number: int = 20) -> None:
    """Kill and go on."""
    base, rng = factories.tiny_llava(folder / "base"), random.Random(0)
    other = factories.tiny_llava(folder / "other", seed=1)
    suite = suite_factory.colour_suite(folder / "suite", number=48)
    whole, out = folder / "whole", folder / "out"
    subprocess.run(command(suite, base, [other], whole, batch=2), check=True, stdout=-3)
    kept, sizes = folder / ".out.work/predictions", []
    for turn in range(number):
        argv = command(suite, base, [other], out, batch=2, workers=1 + turn % 3)
        process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, start_new_session=True)
        goal = len(lines(kept)) + rng.randint(1, 18)
        while len(lines(kept)) < goal and process.poll() is None:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.05))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        sizes.append(len(lines(kept)))
    told(f"predictions kept after each kill: {' '.join(map(str, sizes))}")
    argv = command(suite, base, [other], out, batch=2, workers=2)
    final = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
    last: list[str] = []
    while final.poll() is None:
        last = max(last, lines(kept), key=len)
        time.sleep(0.002)
    first, second = (json.loads((path / "report.json").read_text()) for path in (whole, out))
    same = all(first[key] == second[key] for key in first if key != "run")
    told(f"the same report outside run: {same}; lines {len(last)}, of them {len(set(last))} unlike")
    told("")


def lines(folder: Path) -> list[str]:
    """Keys of the whole lines."""
    try:
        texts = [path.read_text() for path in folder.glob("*.jsonl")]
    except OSError:  # removed just now
        return []
    return [
        line.split('"')[3] for text in texts for line in text.splitlines(True) if line[-1] == "\n"
    ]


def command(suite: Path, base: Path, others: Sequence[Path], out: Path, **flags: Any) -> list[str]:
    """The command line."""
    argv = [sys.executable, "-m", "mllmtool", "eval-matrix", "--suite", str(suite)]
    argv += ["--base", str(base), "--bootstrap", "500", "--quiet", "--out", str(out)]
    argv += [word for other in others for word in ("--checkpoint", str(other))]
    return [*argv, *(word for name, value in flags.items() for word in (f"--{name}", str(value)))]


def llava(path: Path, vision: tuple[int, int], language: tuple[int, int]) -> Path:
    """A random LLaVA-1.5 of these widths and layers, with pictures of 576 patches."""
    tokenizer = factories.new_tokenizer(end="</s>")
    processor = transformers.LlavaProcessor(
        image_processor=transformers.CLIPImageProcessor(
            size={"shortest_edge": IMAGE}, crop_size={"height": IMAGE, "width": IMAGE}
        ),
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=factories.LLAVA_TEMPLATE,
    )
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(
            image_size=IMAGE, patch_size=PATCH, **widths(*vision)
        ),
        text_config=transformers.LlamaConfig(
            vocab_size=len(tokenizer),
            max_position_embeddings=2048,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            **widths(*language),
        ),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=(IMAGE // PATCH) ** 2,
        vision_feature_layer=-1,
        tie_word_embeddings=False,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    return factories.save(
        transformers.LlavaForConditionalGeneration, config, processor, path, seed=0
    )


def widths(width: int, layers: int) -> dict[str, int]:
    """A transformer's sizes; of language too, whose third matrix makes 4 of 8/3 widths."""
    return {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": width // 64,
    }


def cpu() -> float:
    """CPU seconds of the processes that ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def told(text: str) -> None:
    """Print at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
