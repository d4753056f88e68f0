"""bfloat16 by hand against torch, and the type that is computed with."""

import numpy as np
import pytest
import torch

from mllmtool.checkpoints.dtypes import (
    DTYPES,
    LAYOUT,
    finite,
    narrow,
    scatter,
    widen,
    working_dtype,
)


def test_every_bfloat16_widens_as_in_torch() -> None:
    bits = np.arange(1 << 16, dtype=np.uint16)
    theirs = torch.from_numpy(bits).view(torch.bfloat16).float().numpy()
    for dtype in (np.float32, np.float64):
        with np.errstate(invalid="ignore"):  # signalling NaN
            ours = widen(bits, "BF16", dtype)
        assert ours.dtype == dtype
        assert np.array_equal(ours, theirs, equal_nan=True)
        assert np.array_equal(np.signbit(ours), np.signbit(theirs))


@pytest.mark.parametrize("name", ["BF16", "F16", "F32", "F64"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_narrowing_rounds_as_in_torch(name: str, dtype: type) -> None:
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 1 << 32, 100_000, dtype=np.uint32)
    halves = np.arange(0, 1 << 16, 7, dtype=np.uint32) << 16 | 0x8000  # half way in bfloat16
    values = np.concatenate([bits, halves]).view(np.float32)
    values = values[np.isfinite(values)].astype(dtype)
    theirs = torch.from_numpy(values).to(DTYPES[name].torch).view(-1)
    ours = narrow(values, name)
    assert ours.tobytes() == theirs.view(torch.uint8).numpy().tobytes()


def test_narrowing_undoes_widening() -> None:
    bits = np.arange(1 << 16, dtype=np.uint16)
    bits = bits[(bits & 0x7F80) != 0x7F80]
    assert np.array_equal(narrow(widen(bits, "BF16", np.float64), "BF16"), bits)


def test_finite_tells_every_bfloat16() -> None:
    bits = np.arange(1 << 16, dtype=np.uint16)
    theirs = torch.isfinite(torch.from_numpy(bits).view(torch.bfloat16))
    assert finite(bits[theirs.numpy()], "BF16")
    assert not any(finite(bits[i : i + 1], "BF16") for i in np.flatnonzero(~theirs.numpy()))


def test_numbers_are_computed_with_wider_than_they_are_stored() -> None:
    assert working_dtype(["BF16", "F16"]) is np.float32
    assert working_dtype(["BF16", "F32"]) is np.float64
    assert working_dtype(["F64"]) is np.float64


def test_the_widest_dtypes_are_laid_out_first() -> None:
    sizes = [DTYPES[name].stored.itemsize for name in sorted(LAYOUT, key=LAYOUT.__getitem__)]
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize("name", ["BF16", "F16"])
@pytest.mark.parametrize(
    "value", [1.00048828125, -3.1415927, 1e-3, 6.1e-5, -3.3e-8, 65503.5, 0.0, -1.0]
)
def test_over_all_draws_a_scattered_value_is_its_own_mean(name: str, value: float) -> None:
    single = np.float32(value)
    every = np.arange(1 << 16, dtype=np.uint16)
    found = widen(scatter(np.full(1 << 16, single), name, every), name, np.float64)
    around = np.unique(found)
    assert len(around) <= 2
    assert around[0] <= single <= around[-1]
    # a draw has 16 bits, and so has the chance to go to the other of the two
    assert found.mean() == pytest.approx(single, abs=(around[-1] - around[0]) / (1 << 16))


@pytest.mark.parametrize("name", ["BF16", "F16"])
def test_what_can_be_stored_is_not_scattered(name: str) -> None:
    stored = np.arange(1 << 16, dtype=np.uint16).view(DTYPES[name].stored)
    stored = stored[[finite(stored[i : i + 1], name) for i in range(1 << 16)]]
    draws = np.random.default_rng(0).integers(0, 1 << 16, stored.size, dtype=np.uint16)
    for dtype in (np.float32, np.float64):
        found = scatter(widen(stored, name, dtype), name, draws)
        assert found.tobytes() == stored.tobytes()
