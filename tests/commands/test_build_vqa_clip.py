"""`build-vqa --distractors clip`: hard distractors, and clean failures."""

import json
import shutil
from pathlib import Path
from typing import Any

import clip_factory
import numpy as np
import pytest
import torch
import transformers
from commandline import mllmtool
from PIL import Image
from safetensors.torch import load_file, save_file

NAMES = ("cat", "dog", "eel", "fly", "gnu", "owl")


@pytest.fixture
def animals(tmp_path: Path) -> Path:
    """Three pictures of noise a class, one of the last."""
    rng = np.random.default_rng(0)
    for name in NAMES:
        (tmp_path / "animals" / name).mkdir(parents=True)
        for number in range(1 if name == "owl" else 3):
            pixels = rng.integers(0, 256, (32, 32, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "animals" / name / f"{number}.png")
    return tmp_path / "animals"


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A tiny CLIP of the test's own."""
    return clip_factory.tiny_clip(tmp_path / "clip")


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def build(out: Path, *argv: object) -> dict[str, Any]:
    done = mllmtool("build-vqa", *argv, "--distractors", "clip", "--out", out, "--quiet")
    assert (done.status, done.out, done.err) == (0, f"{out}\n", "")
    report: dict[str, Any] = json.loads((out / "report.json").read_text())
    return report


def test_wrong_options_are_drawn_from_the_nearest_classes(
    tmp_path: Path, animals: Path, clip: Path
) -> None:
    argv = ("--images", animals, "--clip", clip, "--cache", tmp_path / "cache", "--topk", 3)
    report = build(tmp_path / "out", *argv, "--options", 3, "--per-epoch", 6)
    processor = transformers.AutoProcessor.from_pretrained(clip)
    model = transformers.AutoModel.from_pretrained(clip).eval()
    drawn: dict[str, set[str]] = {}
    for item in lines(tmp_path / "out/items.jsonl"):
        wrong = set(item["options"]) - {item["class_name"]}
        assert len(wrong) == 2
        drawn.setdefault(item["images"][0], set()).update(wrong)
    for name, found in drawn.items():
        own = name.split("/")[0]
        texts = [f"a photo of {other}" for other in NAMES if other != own]
        with Image.open(animals / name) as image, torch.no_grad():
            given = processor(text=texts, images=[image], padding=True, return_tensors="pt")
            order = model(**given).logits_per_image[0].argsort(descending=True)[:3]
        assert found <= {texts[int(index)].removeprefix("a photo of ") for index in order}
    assert max(map(len, drawn.values())) == 3
    assert [read["role"] for read in report["inputs"]] == ["images", "clip"]
    assert report["run"]["embedded"] == 16 + 6
    assert report["run"]["cache"].startswith(str(tmp_path / "cache"))


def test_a_second_run_embeds_nothing_and_gives_the_same_bytes(
    tmp_path: Path, animals: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    one = build(tmp_path / "one", "--images", animals, "--clip", clip)
    assert one["run"]["cache"].startswith(str(tmp_path / "home/.cache/mllmtool/embeddings"))
    two = build(tmp_path / "two", "--images", animals, "--clip", clip)
    assert (one["run"].pop("embedded"), two["run"].pop("embedded")) == (22, 0)
    three = build(
        tmp_path / "three", "--images", animals, "--clip", clip, "--cache", tmp_path / "c"
    )
    assert one["outputs"] == two["outputs"] == three["outputs"]
    del one["run"], two["run"]
    assert one == two


def test_other_images_do_not_change_a_question(tmp_path: Path, animals: Path, clip: Path) -> None:
    build(tmp_path / "one", "--images", animals, "--clip", clip, "--cache", tmp_path / "a")
    (animals / "cat/0.png").unlink()
    build(tmp_path / "two", "--images", animals, "--clip", clip, "--cache", tmp_path / "b")
    assert lines(tmp_path / "one/items.jsonl")[1:] == lines(tmp_path / "two/items.jsonl")


def test_a_dry_run_embeds_nothing(tmp_path: Path, animals: Path, clip: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    argv = ("--images", animals, "--distractors", "clip", "--clip", clip, "--dry-run", "--quiet")
    done = mllmtool("build-vqa", *argv, "--cache", tmp_path / "cache")
    assert json.loads(done.out)["images"] == 16
    assert sorted(tmp_path.rglob("*")) == before


def fails(tmp_path: Path, *argv: object) -> tuple[int, str]:
    """Exit status and message of a run that leaves nothing behind but what it embedded."""
    before, cache = sorted(tmp_path.rglob("*")), tmp_path / "cache"
    given = ("--distractors", "clip", "--cache", cache, "--out", tmp_path / "out", "--quiet")
    done = mllmtool("build-vqa", *argv, *given)
    assert done.out == ""
    left = {path for path in tmp_path.rglob("*") if not path.is_relative_to(cache)}
    assert sorted(left) == before
    assert all(path.suffix == ".safetensors" for path in cache.glob("*/*"))
    return done.status, done.err.replace(str(tmp_path), "DIR")


def test_a_checkpoint_that_is_no_clip(tmp_path: Path, animals: Path, llama: Path) -> None:
    assert fails(tmp_path, "--images", animals, "--clip", llama) == (
        3,
        f"mllmtool: {llama}/config.json: model_type llama is not a CLIP or SigLIP\n",
    )


def test_a_clip_without_its_processor(tmp_path: Path, animals: Path, clip: Path) -> None:
    (clip / "processor_config.json").unlink()
    message = "mllmtool: DIR/clip: has no image processor; add preprocessor_config.json\n"
    assert fails(tmp_path, "--images", animals, "--clip", clip) == (3, message)
    assert fails(tmp_path, "--images", animals, "--clip", clip, "--dry-run") == (3, message)


def test_a_clip_without_its_tokenizer(tmp_path: Path, animals: Path, clip: Path) -> None:
    (clip / "tokenizer.json").unlink()
    message = "mllmtool: DIR/clip: has no tokenizer.json\n"
    assert fails(tmp_path, "--images", animals, "--clip", clip) == (3, message)


def test_a_clip_that_is_pickled(tmp_path: Path, animals: Path, clip: Path) -> None:
    (clip / "model.safetensors").rename(clip / "pytorch_model.bin")
    assert fails(tmp_path, "--images", animals, "--clip", clip) == (
        3,
        "mllmtool: DIR/clip: holds pickled weights only (pytorch_model.bin), which can run code"
        " when read; convert them to safetensors\n",
    )


def test_a_clip_that_lacks_a_tensor(tmp_path: Path, animals: Path, clip: Path) -> None:
    weights = load_file(clip / "model.safetensors")
    del weights["visual_projection.weight"]
    save_file(weights, clip / "model.safetensors", metadata={"format": "pt"})
    assert fails(tmp_path, "--images", animals, "--clip", clip) == (
        3,
        "mllmtool: DIR/clip: lacks visual_projection.weight, against its config.json\n",
    )


def test_an_image_that_cannot_be_read(tmp_path: Path, animals: Path, clip: Path) -> None:
    data = (animals / "dog/1.png").read_bytes()
    (animals / "dog/1.png").write_bytes(data[:200])
    status, message = fails(tmp_path, "--images", animals, "--clip", clip)
    assert status == 3
    assert message.startswith("mllmtool: DIR/animals/dog/1.png: is not a readable image: ")
    assert message.count("\n") == 1
    rows = "".join(f"animals/{name}/1.png,{name}\n" for name in NAMES[:5])
    (tmp_path / "t.csv").write_text("image,class_name\n" + rows)
    shutil.rmtree(tmp_path / "cache")
    status, message = fails(tmp_path, "--images", tmp_path / "t.csv", "--clip", clip)
    assert status == 3
    where = "mllmtool: DIR/t.csv:3: DIR/animals/dog/1.png: is not a readable image: "
    assert message.startswith(where)


def test_a_class_name_that_the_clip_cannot_read_whole(
    tmp_path: Path, animals: Path, clip: Path
) -> None:
    name = "an owl of very many words " * 6
    (animals / "owl").rename(animals / name.strip())
    status, message = fails(tmp_path, "--images", animals, "--clip", clip)
    assert status == 3
    assert message.startswith(f"mllmtool: 'a photo of {name.strip()}': has ")
    assert message.endswith(" tokens, and --clip reads 32\n")


def test_no_clip_is_given(tmp_path: Path, animals: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    argv = ("--images", animals, "--distractors", "clip", "--out", tmp_path / "out")
    done = mllmtool("build-vqa", *argv)
    assert (done.status, done.err) == (2, "mllmtool: --clip: is required by --distractors\n")
    assert sorted(tmp_path.rglob("*")) == before
