"""Sparse patch files: which entries of a base's tensors are replaced, and by what.

A patch is one safetensors file. For a tensor of the base it holds `<tensor>.bitmap` (uint8, one bit
an entry, row-major, lowest bit of a byte first, spare bits 0) and `<tensor>.values` (the base's
dtype, the replaced entries in that order). Values are final, no differences: applying is exact.
`__metadata__` has the one key `mllmtool.patch`, JSON of `PatchHeader`; one key, because the order
of several would differ from write to write. A patch file is untrusted: sizes, counts and names are
checked before they are used.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError
from safetensors import SafetensorError, safe_open

from mllmtool.checkpoints.reader import Checkpoint, TensorInfo, tensor_sha256
from mllmtool.checkpoints.saving import save_tensors
from mllmtool.configs.patch import Overlap
from mllmtool.errors import CheckpointError, MismatchError, NumericError, some

PATCH_NAME = "patch.safetensors"
METADATA_KEY = "mllmtool.patch"
Dtype = Literal["F64", "F32", "F16", "BF16"]


class PatchedTensor(BaseModel):
    """A tensor of the base: what it must be for the patch to fit. `sha256` is of its bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dtype: Dtype
    shape: tuple[NonNegativeInt, ...]
    sha256: str


class PatchHeader(BaseModel):
    """What a patch says of itself. `base` is the base's `Checkpoint.fingerprint()`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_: Literal["mllmtool.patch/1"] = Field(alias="schema")
    base: str
    tensors: dict[str, PatchedTensor]
    origin: dict[str, Any]


class Patch:
    """A lazily read patch file. `names` are the base's names of its tensors, sorted."""

    def __init__(self, path: Path, header: PatchHeader, opened: Any) -> None:
        self.path = path
        self.header = header
        self.names = tuple(sorted(header.tensors))
        self._opened = opened

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Open a patch file, read and check its header.

        Raises:
            CheckpointError: it is missing, truncated, no patch, or its parts do not fit together.
        """
        path = Path(path)
        if path.is_dir():
            raise CheckpointError(f"{path}: is a directory; name the patch file in it")
        try:
            opened: Any = safe_open(path, framework="pt")
            text = (opened.metadata() or {}).get(METADATA_KEY)
        except FileNotFoundError as error:
            raise CheckpointError(f"{path}: no such patch file") from error
        except (SafetensorError, OSError) as error:
            raise CheckpointError(
                f"{path}: is not a whole safetensors file ({error}); copy or download it again"
            ) from error
        if text is None:
            raise CheckpointError(f"{path}: is a safetensors file, but not a patch of mllmtool")
        patch = cls(path, _header(path, text), opened)
        patch._check_parts()
        return patch

    def __contains__(self, name: str) -> bool:
        return name in self.header.tensors

    def num_kept(self, name: str) -> int:
        """How many entries of the tensor the patch replaces."""
        return int(self._opened.get_slice(f"{name}.values").get_shape()[0])

    def mask(self, name: str) -> torch.Tensor:
        """Which entries are replaced: bool, in the tensor's shape.

        Raises:
            CheckpointError: the bitmap and the number of values disagree.
        """
        shape = self.header.tensors[name].shape
        packed = self._opened.get_tensor(f"{name}.bitmap").numpy()
        bits = np.unpackbits(packed, bitorder="little")
        if (found := int(bits.sum())) != self.num_kept(name):
            raise CheckpointError(
                f"{self.path}: {name}: {found} bits are set for {self.num_kept(name)} values"
            )
        entries = math.prod(shape)
        if bits[entries:].any():
            raise CheckpointError(f"{self.path}: {name}: bits are set past its last entry")
        return torch.from_numpy(bits[:entries].astype(bool)).reshape(shape)

    def values(self, name: str) -> torch.Tensor:
        """The final values of the replaced entries, row-major.

        Raises:
            NumericError: one is NaN or Inf.
        """
        values: torch.Tensor = self._opened.get_tensor(f"{name}.values")
        if not torch.isfinite(values).all():
            raise NumericError(f"{name}: holds NaN or Inf in {self.path}")
        return values

    def apply(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor with the patch's entries in it; every other entry is bit for bit its own."""
        patched = tensor.clone()
        patched[self.mask(name)] = self.values(name)
        return patched

    def check_base(self, base: Checkpoint) -> None:
        """Refuse every base but the one that the patch was made for; reads all of its tensors.

        Raises:
            MismatchError: a tensor is missing or differs, with both shapes or both hashes.
        """
        for name in self.names:
            self._check_tensor(name, base)
        fingerprint = base.fingerprint()
        if fingerprint != self.header.base:
            raise MismatchError(
                f"{self.path}: was made for the base {self.header.base[:12]}, but {base.path} is"
                f" {fingerprint[:12]}; they differ in tensors that the patch does not touch"
            )

    def _check_tensor(self, name: str, base: Checkpoint) -> None:
        expected = self.header.tensors[name]
        if name not in base:
            raise MismatchError(
                f"{name}: is in {self.path} but not in {base.path}; give the base that it was made"
                " for"
            )
        info = base.info(name)
        if info != TensorInfo(expected.dtype, expected.shape):
            raise MismatchError(
                f"{name}: {expected.dtype} {expected.shape} in {self.path},"
                f" {info.dtype} {info.shape} in {base.path}"
            )
        tensor = base[name]
        if (found := tensor_sha256(tensor)) == expected.sha256:
            return
        applied = torch.equal(self.apply(name, tensor), tensor)
        hint = "the patch is on it already" if applied else "give the base that it was made for"
        raise MismatchError(
            f"{name}: sha256 {found[:12]} in {base.path}, {expected.sha256[:12]} in the base of"
            f" {self.path}; {hint}"
        )

    def _check_parts(self) -> None:
        keys = set(self._opened.keys())
        expected = {f"{name}.{part}" for name in self.names for part in ("bitmap", "values")}
        if keys != expected:
            odd = some(sorted(keys ^ expected))
            raise CheckpointError(
                f"{self.path}: its header and its tensors disagree on {odd}; make or copy it again"
            )
        for name in self.names:
            tensor = self.header.tensors[name]
            bitmap, values = self._part(name, "bitmap"), self._part(name, "values")
            num_bytes = -(-math.prod(tensor.shape) // 8)
            if bitmap != TensorInfo("U8", (num_bytes,)):
                raise CheckpointError(
                    f"{self.path}: {name}: bitmap is {bitmap.dtype} {bitmap.shape},"
                    f" expected U8 {(num_bytes,)} for shape {tensor.shape}"
                )
            if values.dtype != tensor.dtype or len(values.shape) != 1:
                raise CheckpointError(
                    f"{self.path}: {name}: values are {values.dtype} {values.shape},"
                    f" expected one axis of {tensor.dtype}"
                )

    def _part(self, name: str, part: str) -> TensorInfo:
        view = self._opened.get_slice(f"{name}.{part}")
        return TensorInfo(view.get_dtype(), tuple(view.get_shape()))


class PatchBuilder:
    """Gathers a patch of `base` tensor by tensor; memory holds the patch, no whole tensor."""

    def __init__(self, base: Checkpoint) -> None:
        self.base = base
        self._tensors: dict[str, PatchedTensor] = {}
        self._parts: dict[str, torch.Tensor] = {}

    def add(self, name: str, mask: torch.Tensor, patched: torch.Tensor) -> None:
        """Keep the entries of `patched` where `mask` is true, in the base's dtype.

        Raises:
            MismatchError: the base's tensor has another shape or is no floating-point tensor.
            NumericError: a value is NaN or Inf after the cast.
        """
        info, tensor = self.base.info(name), self.base[name]
        if tuple(mask.shape) != info.shape or tuple(patched.shape) != info.shape:
            raise MismatchError(f"{name}: shape {tuple(patched.shape)}, expected {info.shape}")
        if info.dtype not in ("F64", "F32", "F16", "BF16"):
            raise MismatchError(f"{name}: dtype {info.dtype} cannot be patched")
        values = patched.to(tensor.dtype)[mask]
        if not torch.isfinite(values).all():
            raise NumericError(f"{name}: became NaN or Inf as {info.dtype}")
        bits = np.packbits(mask.reshape(-1).numpy(), bitorder="little")
        self._parts[f"{name}.bitmap"] = torch.from_numpy(bits)
        self._parts[f"{name}.values"] = values
        self._tensors[name] = PatchedTensor.model_validate(
            {"dtype": info.dtype, "shape": info.shape, "sha256": tensor_sha256(tensor)}
        )

    def write(self, path: Path, fingerprint: str, origin: Mapping[str, Any]) -> None:
        """Write the file; `fingerprint` is the base's, `origin` says how the patch was made."""
        header = PatchHeader(
            schema="mllmtool.patch/1",
            base=fingerprint,
            tensors=dict(sorted(self._tensors.items())),
            origin=dict(origin),
        )
        text = json.dumps(header.model_dump(mode="json", by_alias=True), allow_nan=False)
        save_tensors(self._parts, path, {METADATA_KEY: text})


def fuse_masked(
    base: torch.Tensor,
    masks: Sequence[torch.Tensor],
    tensors: Sequence[torch.Tensor],
    rule: Overlap = "mean",
    number: int = 0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Fuse masked tensors of one base: the union of the masks, and final values.

    Where several overlap: their `mean`; the base with the `sum` of their changes; by `ties`, the
    mean of those whose change has the sign of the sum (Yadav et al. 2023). `average` divides every
    sum by `number`, that of all models, of which those without an entry have the base's.
    """
    if len(masks) == 1 and rule != "average":
        return masks[0], tensors[0]
    if rule == "mean":
        return overlap_mean(masks, tensors)
    start = base.double()
    changes = torch.stack(
        [torch.where(m, t.double() - start, 0.0) for m, t in zip(masks, tensors, strict=True)]
    )
    total = changes.sum(dim=0)
    if rule == "ties":
        agreeing = changes * total > 0
        total = torch.where(agreeing, changes, 0.0).sum(dim=0) / agreeing.sum(dim=0).clamp(min=1)
    elif rule == "average":
        total /= number
    return torch.stack(list(masks)).any(dim=0), start + total


def overlap_mean(
    masks: Sequence[torch.Tensor], tensors: Sequence[torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Fuse masked tensors of one shape: the union of the masks, the mean where several overlap."""
    counts = torch.stack(list(masks)).sum(dim=0)
    total = torch.zeros_like(tensors[0], dtype=torch.float64)
    for mask, tensor in zip(masks, tensors, strict=True):
        total += torch.where(mask, tensor.double(), 0.0)
    return counts > 0, total / counts.clamp(min=1)


def _header(path: Path, text: str) -> PatchHeader:
    try:
        return PatchHeader.model_validate_json(text)
    except ValidationError as error:
        issue = error.errors(include_url=False)[0]
        place = ".".join(str(step) for step in issue["loc"])
        raise CheckpointError(f"{path}: patch header: {place}: {issue['msg']}") from error
