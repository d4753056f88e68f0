"""The papers' recipes against the real models: every tensor's name and shape, and no weights.

A checkpoint here is its header, as on the hub, before a file of zeros that takes no disk.
"""

import json
import re
import struct
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import pytest
import transformers
import yaml
from accelerate import init_empty_weights
from commandline import mllmtool
from scripts import RECIPES

from mllmtool.checkpoints import Checkpoint
from mllmtool.configs.finetune import FinetuneConfig
from mllmtool.models.parts import partition
from mllmtool.models.skeleton import Skeleton
from mllmtool.training.selection import select, trainable

VICUNA = {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32}
VICUNA |= {"num_attention_heads": 32, "max_position_embeddings": 4096}


def llava() -> Any:
    """llava-hf/llava-1.5-7b-hf."""
    vision = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24}
    vision |= {"num_attention_heads": 16, "image_size": 336, "patch_size": 14}
    vision |= {"projection_dim": 768, "vocab_size": 32000}
    return transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(**vision),
        text_config=transformers.LlamaConfig(**VICUNA, vocab_size=32064),
        tie_word_embeddings=False,
    )


def qwen() -> Any:
    """Qwen/Qwen2.5-VL-3B-Instruct."""
    vision = {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16}
    vision |= {"out_hidden_size": 2048, "patch_size": 14, "spatial_merge_size": 2}
    text = {"hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36}
    text |= {"num_attention_heads": 16, "num_key_value_heads": 2, "vocab_size": 151936}
    return transformers.Qwen2_5_VLConfig(
        vision_config=vision, text_config=text, tie_word_embeddings=True
    )


def instructblip() -> Any:
    """Salesforce/instructblip-vicuna-7b."""
    vision = {"hidden_size": 1408, "intermediate_size": 6144, "num_hidden_layers": 39}
    vision |= {"num_attention_heads": 16, "image_size": 224, "patch_size": 14}
    former = {"vocab_size": 30523, "encoder_hidden_size": 1408, "cross_attention_frequency": 2}
    return transformers.InstructBlipConfig(
        vision_config=transformers.InstructBlipVisionConfig(**vision, qkv_bias=True),
        qformer_config=transformers.InstructBlipQFormerConfig(**former),
        text_config=transformers.LlamaConfig(**VICUNA, vocab_size=32001),
        num_query_tokens=32,
        tie_word_embeddings=False,
    )


# The names of tensors on the hub, where they are not those in memory.
RENAMED = {
    "llava": (
        (r"^model\.language_model\.", "language_model.model."),
        (r"^lm_head\.", "language_model.lm_head."),
        (r"^model\.(vision_tower|multi_modal_projector)\.", r"\1."),
    ),
    "qwen": ((r"^model\.language_model\.", "model."), (r"^model\.visual\.", "visual.")),
    "instructblip": (),
}
REAL: dict[str, tuple[Callable[[], Any], str, str]] = {
    "llava": (llava, "LlavaForConditionalGeneration", "F16"),
    "qwen": (qwen, "Qwen2_5_VLForConditionalGeneration", "BF16"),
    "instructblip": (instructblip, "InstructBlipForConditionalGeneration", "F32"),
}
BYTES = {"F16": 2, "BF16": 2, "F32": 4}


def write_header(folder: Path, name: str) -> Path:
    """A checkpoint of real size that is a header and a hole."""
    new, class_name, dtype = REAL[name]
    config = new()
    with init_empty_weights():
        model = getattr(transformers, class_name)._from_config(config)
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for memory, tensor in model.state_dict().items():
        if memory in model.all_tied_weights_keys:
            continue
        begin, end = end, end + prod(tensor.shape) * BYTES[dtype]
        entry = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [begin, end]}
        header[on_disk(memory, name)] = entry
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    folder.mkdir()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(head)) + head)
        file.truncate(8 + len(head) + end)
    config.architectures = [class_name]
    config.save_pretrained(folder)
    return folder


def on_disk(memory: str, name: str) -> str:
    for pattern, text in RENAMED[name]:
        memory = re.sub(pattern, text, memory)
    return memory


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("real")
    return {name: write_header(root / name, name) for name in REAL}


@pytest.mark.parametrize(
    ("name", "gigabytes"), [("llava", 14.13), ("qwen", 7.51), ("instructblip", 31.66)]
)
def test_size_on_disk_is_that_of_the_hubs_lists(
    real: dict[str, Path], name: str, gigabytes: float
) -> None:
    checkpoint = Checkpoint.open(real[name])
    assert sum(checkpoint.info(n).num_bytes for n in checkpoint.names) / 1e9 == pytest.approx(
        gigabytes, abs=0.01
    )
    assert (real[name] / "model.safetensors").stat().st_blocks * 512 < 1e6


LANGUAGE = {"llava": 6_738_939_904, "qwen": 3_085_938_688}
LEARNING = [
    ("llava", "finetune/safe-full", {"language": LANGUAGE["llava"]}),
    ("llava", "finetune/seq-full", {"language": LANGUAGE["llava"], "projector": 20_979_712}),
    ("llava", "finetune/safe-lora", {"language": 19_988_480}),
    (
        "llava",
        "paper/finetune/llava-last-12",
        {"language": 12 * 202_383_360, "projector": 20_979_712},
    ),
    ("qwen", "finetune/unsafe-full", {"language": LANGUAGE["qwen"]}),
    ("qwen", "finetune/vision", {"vision": 631_975_680}),
    ("instructblip", "paper/finetune/instructblip-qformer", {"projector": 188_834_560}),
]


@pytest.mark.parametrize(("name", "recipe", "expected"), LEARNING)
def test_recipe_trains_so_many_weights_of_the_real_model(
    real: dict[str, Path], name: str, recipe: str, expected: dict[str, int]
) -> None:
    values = yaml.safe_load((RECIPES / f"{recipe}.yaml").read_text())
    config = FinetuneConfig.parse({"model": "m", "samples": "s", **values})
    model = Skeleton(Checkpoint.open(real[name])).model
    parts = partition(model)
    select(model, parts, config, seed=0)
    found: dict[str, int] = {}
    for memory, parameter in trainable(model).items():
        if memory in model.all_tied_weights_keys:  # the skeleton's stubs are not tied
            continue
        part = parts.get(memory, "language")  # adapters are in no part, and all in the language
        found[part] = found.get(part, 0) + parameter.numel()
    assert found == expected


def test_evaluation_plans_on_the_real_size(
    real: dict[str, Path], tmp_path: Path, colours: Path
) -> None:
    item = {"id": "1", "images": ["images/0.png"], "question": "?", "references": ["A dog."]}
    (tmp_path / "items.jsonl").write_text(json.dumps(item))
    task = yaml.safe_load((RECIPES / "paper/suite/flickr30k.yaml").read_text())
    task |= {"items": "items.jsonl", "image_root": str(colours.parent)}
    (tmp_path / "task.yaml").write_text(yaml.safe_dump(task))
    suite = {"schema": "mllmtool.suite/1", "tasks": ["task.yaml"]}
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump(suite))
    flags = ("--suite", tmp_path / "suite.yaml", "--base", real["llava"], "--dry-run")
    done = mllmtool("eval-matrix", *flags, "--checkpoint", f"ft={real['llava']}")
    assert done.status == 0, done.err
    assert [row["label"] for row in json.loads(done.out)["checkpoints"]] == ["base", "ft"]


def test_fusing_plans_on_the_real_size(real: dict[str, Path]) -> None:
    flags = ("--base", real["qwen"], "--model", real["qwen"], "--method", "wise-ft")
    done = mllmtool("fuse", *flags, "--scale", "0.5", "--dry-run")
    assert done.status == 0, done.err
