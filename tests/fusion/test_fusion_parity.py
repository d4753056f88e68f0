"""Methods against slow transcriptions of their papers, which share no code with them."""

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pcg
import pytest
import torch
from fusing import fused, prepare
from hypothesis import given, settings
from hypothesis import strategies as st

from mllmtool.context import Context
from mllmtool.fusion import Settings
from mllmtool.fusion.masks import bernoulli
from mllmtool.fusion.thresholds import thresholds

Flat = npt.NDArray[np.float64]
SHAPES = {"embed": (30, 8), "layer.0": (16, 16), "layer.1": (16, 16), "norm": (16,)}


def models_like_bf16(count: int, dtype: torch.dtype) -> list[dict[str, torch.Tensor]]:
    """A base and tuned models whose scale differs from tensor to tensor; bf16 makes many ties."""
    rng = torch.Generator().manual_seed(3)
    base = {name: torch.randn(shape, generator=rng) for name, shape in SHAPES.items()}
    tuned = [
        {
            name: tensor + 0.03 * (i + 1) * torch.randn(tensor.shape, generator=rng)
            for i, (name, tensor) in enumerate(base.items())
        }
        for _ in range(count)
    ]
    return [{name: t.to(dtype) for name, t in model.items()} for model in (base, *tuned)]


def flat(model: dict[str, torch.Tensor]) -> Flat:
    return np.concatenate([model[name].double().numpy().ravel() for name in sorted(model)])


def ties_of_the_paper(base: Flat, tuned: list[Flat], density: float, scale: float) -> Flat:
    """Algorithm 1 of TIES-Merging on whole flat models, entry by entry."""
    trimmed = []
    for theta in tuned:
        tau = theta - base
        smallest_kept = sorted(abs(tau))[len(tau) - round(density * len(tau))]
        trimmed.append([t if abs(t) >= smallest_kept else 0.0 for t in tau])
    merged = []
    for column in zip(*trimmed, strict=True):
        total = math.fsum(column)
        agreeing = [t for t in column if t * total > 0]
        merged.append(math.fsum(agreeing) / len(agreeing) if agreeing else 0.0)
    return base + scale * np.array(merged)


def same(found: dict[str, torch.Tensor], expected: Flat, dtype: torch.dtype) -> bool:
    rounded = torch.from_numpy(expected).to(dtype).double().numpy()
    eps = torch.finfo(dtype).eps if dtype == torch.float32 else 0
    return np.allclose(flat(found), rounded, rtol=4 * eps, atol=4 * eps)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("density", [0.1, 0.2, 0.73])
def test_ties(tmp_path: Path, dtype: torch.dtype, density: float) -> None:
    base, *tuned = models_like_bf16(3, dtype)
    found = fused(tmp_path, base, tuned, "ties", density=density, scale=1.5)
    expected = ties_of_the_paper(flat(base), [flat(m) for m in tuned], density, 1.5)
    assert same(found, expected, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_task_arithmetic_and_linear_and_wise_ft(tmp_path: Path, dtype: torch.dtype) -> None:
    base, *tuned = models_like_bf16(3, dtype)
    start, ends, w = flat(base), [flat(m) for m in tuned], (0.5, 1.0, -0.25)
    found = fused(tmp_path / "1", base, tuned, "task-arithmetic", weight=w, scale=0.7)
    change = sum(0.7 * weight * (end - start) for weight, end in zip(w, ends, strict=True))
    assert same(found, start + change, dtype)
    found = fused(tmp_path / "2", base, tuned, "linear", weight=(1, 2, 5))
    assert same(found, (ends[0] + 2 * ends[1] + 5 * ends[2]) / 8, dtype)
    found = fused(tmp_path / "3", base, tuned[:1], "wise-ft", scale=0.3)
    assert same(found, 0.7 * start + 0.3 * ends[0], dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tailor(tmp_path: Path, dtype: torch.dtype) -> None:
    rng = np.random.default_rng(4)
    base, *tuned = models_like_bf16(3, dtype)
    for model in tuned:
        for name, tensor in model.items():
            keep = torch.from_numpy(rng.random(tensor.shape) < 0.4)
            model[name] = torch.where(keep, tensor, base[name])
    start, expected = flat(base), []
    for entry, column in zip(start, zip(*(flat(m) for m in tuned), strict=True), strict=True):
        patches = [theta - entry for theta in column if theta != entry]
        expected.append(entry + (sum(patches) / len(patches) if patches else 0))
    assert same(fused(tmp_path, base, tuned, "tailor"), np.array(expected), dtype)


def test_slerp(tmp_path: Path) -> None:
    base, *tuned = models_like_bf16(2, torch.float32)
    found = fused(tmp_path, base, tuned, "slerp", weight=(1, 3))
    for name in SHAPES:
        a, b = (model[name].double().numpy() for model in tuned)
        angle = np.arctan2(  # half-angle form: another formula than the code's
            np.linalg.norm(a / np.linalg.norm(a) - b / np.linalg.norm(b)),
            np.linalg.norm(a / np.linalg.norm(a) + b / np.linalg.norm(b)),
        )
        angle = 2 * angle
        expected = (np.sin(0.25 * angle) * a + np.sin(0.75 * angle) * b) / np.sin(angle)
        assert np.allclose(found[name].numpy(), expected, rtol=1e-6, atol=1e-6)


def mask_by_hand(seed: int, count: int, density: float) -> list[bool]:
    words = pcg.words(seed, count)
    draws = [word >> 16 * i & 0xFFFF for word in words for i in range(4)]
    return [draw < round(density * 2**16) for draw in draws[:count]]


def test_masks_are_pcg() -> None:
    seed = Context(seed=5).stream_seed("dare/x/y")
    assert bernoulli(seed, 0, 100, 0.3).tolist() == mask_by_hand(seed, 100, 0.3)


def test_dare(tmp_path: Path) -> None:
    base, *tuned = models_like_bf16(2, torch.float32)
    inputs = prepare(tmp_path / "labels", base, tuned)
    found = fused(tmp_path, base, tuned, "dare", density=0.4, weight=(1, 0.5), scale=0.8)
    for name, start in base.items():
        expected = start.double()
        for label, model, weight in zip(inputs.fingerprints, tuned, (1, 0.5), strict=True):
            seed = Context().stream_seed(f"dare/{label}/{name}")
            mask = torch.tensor(mask_by_hand(seed, start.numel(), 0.4)).reshape(start.shape)
            kept = round(0.4 * 2**16) / 2**16
            expected += 0.8 * weight * torch.where(mask, (model[name] - start).double() / kept, 0)
        assert torch.allclose(found[name].double(), expected, rtol=1e-6, atol=1e-6)


def elected_mean(columns: list[tuple[float, ...]]) -> list[float]:
    """Steps 2 and 3 of TIES on trimmed task vectors, entry by entry."""
    merged = []
    for column in columns:
        agreeing = [t for t in column if t * math.fsum(column) > 0]
        merged.append(math.fsum(agreeing) / len(agreeing) if agreeing else 0.0)
    return merged


def test_dare_ties(tmp_path: Path) -> None:
    base, *tuned = models_like_bf16(3, torch.float32)
    inputs = prepare(tmp_path / "labels", base, tuned)
    found = fused(tmp_path, base, tuned, "dare-ties", density=0.5, scale=0.8)
    for name, start in base.items():
        dropped = []
        for label, model in zip(inputs.fingerprints, tuned, strict=True):
            seed = Context().stream_seed(f"dare/{label}/{name}")
            tau = (model[name].double() - start.double()).flatten().tolist()
            mask = mask_by_hand(seed, len(tau), 0.5)
            dropped.append([2 * t if kept else 0.0 for t, kept in zip(tau, mask, strict=True)])
        change = torch.tensor(elected_mean(list(zip(*dropped, strict=True)))).reshape(start.shape)
        assert torch.allclose(found[name], start + 0.8 * change, rtol=1e-6, atol=1e-6)


def test_della(tmp_path: Path) -> None:
    base, *tuned = models_like_bf16(2, torch.bfloat16)
    inputs = prepare(tmp_path / "labels", base, tuned)
    found = fused(tmp_path, base, tuned, "della", density=0.5, epsilon=0.25)
    for name, start in base.items():
        sampled = []
        for label, model in zip(inputs.fingerprints, tuned, strict=True):
            seed = Context().stream_seed(f"della/{label}/{name}")
            tau = (model[name].double() - start.double()).flatten().tolist()
            columns = start.shape[-1]
            draws = [
                word >> 16 * i & 0xFFFF for word in pcg.words(seed, len(tau)) for i in range(4)
            ]
            entries = []
            for first in range(0, len(tau), columns):
                row = tau[first : first + columns]
                order = sorted(range(columns), key=lambda i: (-abs(row[i]), i))
                for i, value in enumerate(row):
                    drop = 0.5 - 0.125 + 0.25 * order.index(i) / columns
                    steps = round((1 - drop) * 65536)
                    entries.append(value * 65536 / steps if draws[first + i] < steps else 0.0)
            sampled.append(entries)
        change = elected_mean(list(zip(*sampled, strict=True)))
        expected = start.double() + torch.tensor(change, dtype=torch.float64).reshape(start.shape)
        assert torch.equal(found[name], expected.bfloat16())


@settings(max_examples=50, deadline=None)
@given(
    values=st.lists(st.floats(-8, 8, width=16), min_size=1, max_size=60),
    density=st.floats(0.01, 1),
)
def test_thresholds_are_exact(
    tmp_path_factory: pytest.TempPathFactory, values: list[float], density: float
) -> None:
    base, tuned = {"w": torch.zeros(len(values))}, {"w": torch.tensor(values)}
    inputs = prepare(tmp_path_factory.mktemp("t"), base, [tuned])
    (found,) = thresholds(replace(inputs, settings=Settings((1.0,), density)))
    sizes = sorted((abs(np.float32(v)) for v in values), reverse=True)
    expected = sizes[max(1, round(density * len(values))) - 1]
    if expected:
        assert found.magnitude == expected
        assert found.kept == sum(size >= expected for size in sizes)
        assert found.ties == sizes.count(expected)
    else:
        assert 0 < found.magnitude < 1e-44
        assert (found.kept, found.ties) == (sum(size > 0 for size in sizes), 0)


def test_thresholds_fall_with_density(tmp_path: Path) -> None:
    base, tuned = models_like_bf16(1, torch.float32)
    inputs = prepare(tmp_path, base, [tuned])
    found = [
        thresholds(replace(inputs, settings=Settings((1.0,), density)))[0]
        for density in (0.05, 0.2, 0.6, 1)
    ]
    assert all(a.magnitude > b.magnitude and a.kept < b.kept for a, b in pairwise(found))
    assert found[-1].kept == sum(tensor.numel() for tensor in base.values())
