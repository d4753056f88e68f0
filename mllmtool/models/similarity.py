"""Which classes an image looks like, by the embeddings of a CLIP or a SigLIP.

The similarity of an image and a class is the cosine of the image's embedding and that of the text
`a photo of {class}`: so the hard distractors of ImageNet-VQA were found (arXiv 2603.14493, as its
authors' converters do it). SigLIP's logit is an increasing function of the same cosine.

Images and texts are embedded in batches that are always full, so that an embedding does not depend
on what else was embedded with it, and kept in an `EmbeddingCache`.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoImageProcessor, CLIPModel, PreTrainedTokenizerFast, SiglipModel
from transformers.utils import logging as transformers_logging

from mllmtool.checkpoints import Checkpoint
from mllmtool.context import Context
from mllmtool.errors import CheckpointError, DataError, NumericError, some
from mllmtool.models.embeddings import EmbeddingCache, Vectors
from mllmtool.models.pictures import open_image

PROMPT = "a photo of {}"
MODELS = {"clip": CLIPModel, "siglip": SiglipModel}
PROCESSORS = ("preprocessor_config.json", "processor_config.json")
SIDECARS = ("config.json", *PROCESSORS, "tokenizer.json", "tokenizer_config.json")
BATCH, SHARD = 32, 1024  # embeddings computed, and written, at once


class Picture(NamedTuple):
    """An image file, and the row that names it, or the file again."""

    path: Path
    where: str


class Embedder:
    """A CLIP or SigLIP that maps images and texts to unit vectors."""

    def __init__(self, model: Any, image_processor: Any, tokenizer: Any) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._model = model.to(self.device).eval()
        self._image_processor = image_processor
        self._tokenizer = tokenizer
        self._length = int(model.config.text_config.max_position_embeddings)
        self._masked = model.config.model_type == "clip"  # SigLIP reads its padding too

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read model, tokenizer and image processor; safetensors only, no remote code.

        Raises:
            CheckpointError: one is missing or unreadable, or weights do not fit the config.
            NumericError: a weight is NaN or Inf.
        """
        checkpoint = open_similarity(path)
        try:
            images = AutoImageProcessor.from_pretrained(
                str(path), local_files_only=True, trust_remote_code=False
            )
            tokenizer = PreTrainedTokenizerFast.from_pretrained(str(path), local_files_only=True)
        except Exception as error:  # hostile files make transformers raise anything
            reason = " ".join(str(error).split())
            raise CheckpointError(f"{path}: its processor cannot be read: {reason}") from error
        if tokenizer.pad_token is None:
            raise CheckpointError(f"{path}: its tokenizer has no padding token")
        return cls(_load_model(checkpoint), images, tokenizer)

    @torch.inference_mode()
    def embed_images(self, pictures: Sequence[Picture]) -> Vectors:
        """Unit vectors of shape (pictures, width).

        Raises:
            DataError: an image cannot be read.
        """
        images = [_open(picture) for picture in pictures]
        pixels = self._image_processor(images=images, return_tensors="pt")["pixel_values"]
        found = self._model.get_image_features(pixel_values=_full(pixels).to(self.device))
        return _units(found.pooler_output, len(pictures))

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors of shape (texts, width), padded as the model was trained.

        Raises:
            DataError: a text is longer than the model reads.
        """
        encoded = self._tokenizer(
            list(texts), padding="max_length", max_length=self._length, return_attention_mask=True
        )
        for text, ids in zip(texts, encoded["input_ids"], strict=True):
            if len(ids) > self._length:
                raise DataError(f"{text!r}: has {len(ids)} tokens, and --clip reads {self._length}")
        given = {"input_ids": _full(torch.tensor(encoded["input_ids"])).to(self.device)}
        if self._masked:
            mask = _full(torch.tensor(encoded["attention_mask"])).to(self.device)
            given["attention_mask"] = mask
        return _units(self._model.get_text_features(**given).pooler_output, len(texts))


@dataclass(frozen=True)
class Similarity:
    """A CLIP or SigLIP and the embeddings that are kept of it."""

    path: Path
    fingerprint: str  # of its weights
    cache: EmbeddingCache

    @classmethod
    def open(cls, path: str | Path, folder: Path) -> Self:
        """Open a checkpoint, and what `folder` keeps under a hash of its weights and settings.

        Raises:
            CheckpointError: it is no CLIP or SigLIP, or lacks its tokenizer or image processor.
        """
        checkpoint = open_similarity(path)
        fingerprint = checkpoint.fingerprint()
        digest = hashlib.sha256(fingerprint.encode())
        for name in SIDECARS:
            if (checkpoint.path / name).is_file():
                digest.update(name.encode() + (checkpoint.path / name).read_bytes())
        cache = EmbeddingCache(folder / digest.hexdigest()[:32])
        return cls(checkpoint.path, fingerprint, cache)

    def nearest(
        self, pictures: Sequence[Picture], classes: Sequence[str], number: int, context: Context
    ) -> NDArray[np.int32]:
        """The `number` nearest classes of each picture by cosine, shape (pictures, number).

        The nearest is first, ties go to the earlier. What is not kept yet is embedded.
        """
        prompts = [PROMPT.format(name) for name in classes]
        text_keys = [hashlib.sha256(b"text/" + prompt.encode()).digest() for prompt in prompts]
        self._embed(dict(zip(text_keys, prompts, strict=True)), "embed_texts", context)
        keys = [_content_key(picture) for picture in context.track(pictures, "images hashed")]
        self._embed(dict(zip(keys, pictures, strict=True)), "embed_images", context)
        texts = self.cache.stack(text_keys).astype(np.float64)  # (classes, width)
        found = np.empty((len(pictures), min(number, len(classes))), np.int32)
        for numbers, vectors in self.cache.walk(keys):
            cosines = vectors.astype(np.float64) @ texts.T  # (pictures, classes)
            found[numbers] = np.argsort(-cosines, axis=1, kind="stable")[:, : found.shape[1]]
        return found

    @cached_property
    def _embedder(self) -> Embedder:
        return Embedder.load(self.path)

    def _embed(self, wanted: Mapping[bytes, Any], method: str, context: Context) -> None:
        """Keep the embeddings of what is not kept yet, by shards."""
        missing = self.cache.missing(wanted)
        batches = [missing[at : at + BATCH] for at in range(0, len(missing), BATCH)]
        done: list[Vectors] = []
        for number, keys in enumerate(context.track(batches, method.replace("_", " ")), start=1):
            done.append(getattr(self._embedder, method)([wanted[key] for key in keys]))
            if number % (SHARD // BATCH) == 0 or number == len(batches):
                end = min(number * BATCH, len(missing))
                vectors = np.concatenate(done)
                self.cache.add(missing[end - len(vectors) : end], vectors)
                done = []


def open_similarity(path: str | Path) -> Checkpoint:
    """Open a CLIP or SigLIP checkpoint that has all files; only headers are read.

    Raises:
        CheckpointError: it is none, or lacks its tokenizer or image processor.
    """
    checkpoint = Checkpoint.open(path)
    seen = checkpoint.config.get("model_type")
    if seen not in MODELS:
        raise CheckpointError(f"{path}/config.json: model_type {seen} is not a CLIP or SigLIP")
    if not (checkpoint.path / "tokenizer.json").is_file():
        raise CheckpointError(f"{path}: has no tokenizer.json")
    if not any((checkpoint.path / name).is_file() for name in PROCESSORS):
        raise CheckpointError(f"{path}: has no image processor; add {PROCESSORS[0]}")
    return checkpoint


def _load_model(checkpoint: Checkpoint) -> Any:
    path = checkpoint.path
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()  # SigLIP's own config makes it warn
    try:
        model, seen = MODELS[checkpoint.config["model_type"]].from_pretrained(
            str(path),
            dtype=torch.float32,
            local_files_only=True,
            use_safetensors=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    except Exception as error:  # a hostile config makes transformers raise anything
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{path}: transformers cannot load it: {reason}") from error
    for key, what in (("missing", "lacks"), ("mismatched", "has other shapes of")):
        if names := sorted(str(name) for name in seen[f"{key}_keys"]):
            raise CheckpointError(f"{path}: {what} {some(names)}, against its config.json")
    for name, tensor in model.named_parameters():
        if not torch.isfinite(tensor).all():
            raise NumericError(f"{name}: holds NaN or Inf in {path}")
    return model


def _content_key(picture: Picture) -> bytes:
    try:
        return hashlib.sha256(picture.path.read_bytes()).digest()
    except OSError as error:
        raise DataError(f"{picture.where}: {picture.path}: cannot be read: {error}") from error


def _open(picture: Picture) -> Any:
    try:
        return open_image(picture.path)
    except DataError as error:
        if str(picture.path) == picture.where:
            raise
        raise DataError(f"{picture.where}: {error}") from error


def _full(rows: Tensor) -> Tensor:
    """A batch of `BATCH` rows, the last one repeated."""
    return torch.cat([rows, rows[-1:].expand(BATCH - len(rows), *rows.shape[1:])])


def _units(rows: Tensor, number: int) -> Vectors:
    """The first rows, of length 1."""
    units: Vectors = torch.nn.functional.normalize(rows[:number].float()).cpu().numpy()
    if not np.isfinite(units).all():
        raise NumericError("--clip: an embedding is NaN or infinite")
    return units
