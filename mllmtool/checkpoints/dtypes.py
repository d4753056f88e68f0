"""The dtypes of safetensors as numpy sees them, and how they widen and narrow.

bfloat16, which numpy lacks, is held as its bits in uint16. Values are computed with in a type
wider than the one stored: float32 for 16 bits, float64 for 32. Nothing here needs torch.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Dtype:
    """A dtype on disk: how numpy holds it, how torch calls it, whether it is of numbers."""

    stored: np.dtype[Any]
    torch_name: str
    floating: bool = False

    @property
    def torch(self) -> "torch.dtype":
        """The same for torch."""
        import torch

        dtype: torch.dtype = getattr(torch, self.torch_name)
        return dtype


def _row(stored: str, torch_name: str | None = None, floating: bool = False) -> Dtype:
    return Dtype(np.dtype(stored).newbyteorder("<"), torch_name or stored, floating)


# In the order in which safetensors lays tensors out: the widest first, so that all are aligned.
DTYPES: dict[str, Dtype] = {
    "U64": _row("uint64"),
    "I64": _row("int64"),
    "F64": _row("float64", floating=True),
    "F32": _row("float32", floating=True),
    "U32": _row("uint32"),
    "I32": _row("int32"),
    "BF16": _row("uint16", "bfloat16", floating=True),
    "F16": _row("float16", floating=True),
    "U16": _row("uint16"),
    "I16": _row("int16"),
    "I8": _row("int8"),
    "U8": _row("uint8"),
    "BOOL": _row("bool"),
}
LAYOUT = {name: place for place, name in enumerate(DTYPES)}


def working_dtype(names: Iterable[str]) -> type[np.floating[Any]]:
    """The type that tensors stored in these dtypes are computed with."""
    return np.float32 if set(names) <= {"BF16", "F16"} else np.float64


def widen(stored: Array, name: str, dtype: type[np.floating[Any]]) -> Array:
    """Stored entries as numbers of the working type."""
    if name != "BF16":
        return stored.astype(dtype, copy=False)
    bits = stored.astype(np.uint32)
    bits <<= 16
    return bits.view(np.float32).astype(dtype, copy=False)


def narrow(values: Array, name: str) -> Array:
    """Numbers as stored entries, rounded to the nearest and ties to even.

    Overflow gives infinity, for the caller to refuse. float64 comes to bfloat16 through float32.
    """
    with np.errstate(over="ignore"):
        if name != "BF16":
            return values.astype(DTYPES[name].stored, copy=False)
        bits = values.astype(np.float32, copy=False).view(np.uint32)
    upper, lower = (bits >> 16).astype(np.uint16), bits.astype(np.uint16)
    upper += lower >= 0x8001 - (upper & 1)  # more than a half, or a half and odd
    return upper


def scatter(values: Array, name: str, draws: Array) -> Array:
    """As `narrow`, but 16-bit floats go up or down by chance: on average the value stays.

    draws: uniform uint16, one a value. What a stored entry can hold goes nowhere.
    """
    if name not in ("BF16", "F16"):
        return narrow(values, name)
    values = values.astype(np.float32, copy=False)
    if name == "BF16":
        upper: Array = ((values.view(np.uint32) + draws) >> 16).astype(np.uint16)
        return upper
    with np.errstate(over="ignore", invalid="ignore"):
        nearest = values.astype(np.float16)
        missing = values - nearest
        other = np.nextafter(nearest, np.copysign(np.float16(np.inf), missing).astype(np.float16))
        share = missing / (other.astype(np.float32) - nearest)
    return np.where(draws < share * (1 << 16), other, nearest)


def finite(stored: Array, name: str) -> bool:
    """Whether no stored entry is NaN or Inf."""
    if not stored.size or not DTYPES[name].floating:
        return True
    if name == "BF16":
        signed = stored.view(np.int16)  # its largest is the largest of no sign
        return bool(signed.max() < 0x7F80 and stored.max() < 0xFF80)
    return bool(np.isfinite(stored).all())
