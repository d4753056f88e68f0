"""Nearest classes by CLIP and SigLIP: against a slow loop, and what is kept of them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import clip_factory
import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from mllmtool.context import Context
from mllmtool.errors import DataError
from mllmtool.models.similarity import Embedder, Picture, Similarity

CLASSES = ("blue sky", "cat", "dog", "eel", "fly", "gnu", "red")
KINDS: dict[str, Callable[[Path], Path]] = {
    "clip": clip_factory.tiny_clip,
    "siglip": clip_factory.tiny_siglip,
}


@pytest.fixture(scope="module", params=KINDS)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny CLIP, then a tiny SigLIP."""
    return KINDS[request.param](tmp_path_factory.mktemp("similarity") / request.param)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Picture]:
    """Noise of several sizes, more than one batch of it."""
    folder, rng, found = tmp_path_factory.mktemp("noise"), np.random.default_rng(0), []
    for number in range(37):
        size = (*rng.integers(20, 60, 2), 3)
        path = folder / f"{number}.png"
        Image.fromarray(rng.integers(0, 256, size).astype(np.uint8)).save(path)
        found.append(Picture(path, str(path)))
    return found


def nearest(path: Path, pictures: list[Picture], cache: Path, number: int = 3) -> Any:
    similarity = Similarity.open(path, cache)
    found = similarity.nearest(pictures, CLASSES, number, Context(quiet=True))
    return found.tolist(), similarity.cache.added


def test_nearest_classes_are_those_of_a_slow_loop(
    checkpoint: Path, pictures: list[Picture], tmp_path: Path
) -> None:
    """One picture and one class at a time, by the model's own logit."""
    processor = transformers.AutoProcessor.from_pretrained(checkpoint)
    model = transformers.AutoModel.from_pretrained(checkpoint).eval()
    expected = []
    for picture in pictures:
        logits = {}
        for index, name in enumerate(CLASSES):
            with Image.open(picture.path) as image, torch.no_grad():
                given = processor(
                    text=[f"a photo of {name}"],
                    images=[image],
                    padding="max_length",
                    max_length=clip_factory.LENGTH,
                    return_tensors="pt",
                )
                if model.config.model_type == "siglip":
                    given.pop("attention_mask", None)
                logits[index] = float(model(**given).logits_per_image)
        expected.append(sorted(logits, key=lambda index: -logits[index])[:3])
    found, _ = nearest(checkpoint, pictures, tmp_path / "cache")
    assert found == expected
    assert len({tuple(row) for row in expected}) > 1  # the pictures do differ


def test_an_embedding_does_not_depend_on_what_is_embedded_with_it(
    checkpoint: Path, pictures: list[Picture]
) -> None:
    embedder = Embedder.load(checkpoint)
    batch = embedder.embed_images(pictures[:32])
    for number in (0, 7, 31):
        assert (embedder.embed_images(pictures[number : number + 1])[0] == batch[number]).all()
    texts = embedder.embed_texts(CLASSES)
    assert (embedder.embed_texts(CLASSES[4:])[0] == texts[4]).all()
    assert np.allclose(np.linalg.norm(batch, axis=1), 1)


def test_what_was_embedded_once_is_not_embedded_again(
    checkpoint: Path, pictures: list[Picture], tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    first, added = nearest(checkpoint, pictures[:20], cache)
    assert added == 20 + len(CLASSES)
    shards = sorted(cache.rglob("*.safetensors"))
    assert nearest(checkpoint, pictures[:20], cache) == (first, 0)
    assert sorted(cache.rglob("*.safetensors")) == shards
    copies = []
    for number, picture in enumerate(pictures[:20]):  # the same content under another name
        copy = tmp_path / f"copy-{number}.png"
        shutil.copy(picture.path, copy)
        copies.append(Picture(copy, str(copy)))
    assert nearest(checkpoint, copies, cache) == (first, 0)
    everything, added = nearest(checkpoint, pictures, cache)
    assert added == 17
    assert everything[:20] == first
    assert nearest(checkpoint, pictures, tmp_path / "other")[0] == everything


def test_another_checkpoint_has_its_own_embeddings(pictures: list[Picture], tmp_path: Path) -> None:
    one = clip_factory.tiny_clip(tmp_path / "one", seed=1)
    two = clip_factory.tiny_clip(tmp_path / "two", seed=2)
    three = shutil.copytree(one, tmp_path / "three")
    settings = json.loads((three / "processor_config.json").read_text())
    settings["image_processor"]["image_mean"] = [0.1, 0.2, 0.3]
    (three / "processor_config.json").write_text(json.dumps(settings))
    cache = tmp_path / "cache"
    for path in (one, two, three):
        assert nearest(path, pictures[:4], cache)[1] == 4 + len(CLASSES)
    assert len(list(cache.iterdir())) == 3


def test_a_tokenizer_that_names_sentencepiece_is_read_from_its_json(
    pictures: list[Picture], tmp_path: Path
) -> None:
    """As published SigLIPs do; sentencepiece is not installed."""
    path = clip_factory.tiny_siglip(tmp_path / "siglip")
    expected, _ = nearest(path, pictures[:4], tmp_path / "one")
    settings = json.loads((path / "tokenizer_config.json").read_text())
    settings["tokenizer_class"] = "SiglipTokenizer"
    (path / "tokenizer_config.json").write_text(json.dumps(settings))
    assert nearest(path, pictures[:4], tmp_path / "two")[0] == expected


def test_a_processor_of_the_older_layout(pictures: list[Picture], tmp_path: Path) -> None:
    path = clip_factory.tiny_clip(tmp_path / "clip")
    expected, _ = nearest(path, pictures[:4], tmp_path / "one")
    settings = json.loads((path / "processor_config.json").read_text())["image_processor"]
    del settings["image_processor_type"]
    settings["feature_extractor_type"] = "CLIPFeatureExtractor"
    (path / "preprocessor_config.json").write_text(json.dumps(settings))
    (path / "processor_config.json").unlink()
    assert nearest(path, pictures[:4], tmp_path / "two")[0] == expected


def test_a_broken_shard_is_named(pictures: list[Picture], tmp_path: Path) -> None:
    path, cache = clip_factory.tiny_clip(tmp_path / "clip"), tmp_path / "cache"
    nearest(path, pictures[:2], cache)
    shard = sorted(cache.rglob("*.safetensors"))[0]
    shard.write_bytes(shard.read_bytes()[:-4])
    with pytest.raises(DataError, match=r"safetensors: is not a shard of embeddings \("):
        nearest(path, pictures[:2], cache)
