"""What holds of every method, whatever the weights."""

import math
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import numpy as np
import pytest
import torch
from fusing import fused, prepare, run
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from weights import Tensors, same_bits

from mllmtool.configs.fuse import FuseMethod
from mllmtool.fusion import METHODS, inputs
from mllmtool.fusion.masks import bernoulli

ALL: tuple[FuseMethod, ...] = get_args(FuseMethod)
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
quick = settings(max_examples=10, deadline=None)
numbers = st.floats(-100, 100, width=32) | st.sampled_from([0.0, -0.0, 1e-7, 1.0, 1.0009765625])
vectors = hnp.arrays(np.float32, 7, elements=numbers)


def tensors(values: np.ndarray[Any, Any], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    tensor = torch.from_numpy(values).to(dtype)
    return {"a": tensor[:2].reshape(2, 1), "b": tensor[2:6].reshape(2, 2), "c": tensor[6]}


def num_models(method: FuseMethod) -> int:
    return METHODS[method].num_models or 3


def close(a: Tensors, b: Tensors, dtype: torch.dtype) -> bool:
    eps = torch.finfo(dtype).eps
    return all(
        torch.allclose(a[name].double(), b[name].double(), rtol=eps, atol=100 * eps) for name in a
    )


def test_names_and_rows_agree() -> None:
    assert tuple(METHODS) == ALL


@pytest.mark.parametrize("method", ALL)
@pytest.mark.parametrize("dtype", DTYPES)
@quick
@given(values=vectors)
def test_models_equal_to_the_base_give_the_base(
    method: FuseMethod, dtype: torch.dtype, values: np.ndarray[Any, Any]
) -> None:
    same = tensors(values, dtype)
    with TemporaryDirectory() as folder:
        found = fused(Path(folder), same, [same] * num_models(method), method)
    if dtype == torch.float64 and method in ("linear", "slerp"):  # no wider type to sum in
        assert close(found, same, dtype)
    else:
        assert all(same_bits(found[name], same[name]) for name in same)


@pytest.mark.parametrize("method", [m for m in ALL if "scale" in METHODS[m].reads])
@pytest.mark.parametrize("dtype", DTYPES[1:3])
@quick
@given(base=vectors, tuned=vectors)
def test_scale_0_gives_the_base(
    method: FuseMethod,
    dtype: torch.dtype,
    base: np.ndarray[Any, Any],
    tuned: np.ndarray[Any, Any],
) -> None:
    start, models = tensors(base, dtype), [tensors(tuned, dtype)] * num_models(method)
    with TemporaryDirectory() as folder:
        found = fused(Path(folder), start, models, method, scale=0)
    assert all(same_bits(found[name], start[name]) for name in start)


@pytest.mark.parametrize(
    "method", ["wise-ft", "task-arithmetic", "ties", "tailor", "dare", "dare-ties"]
)
@pytest.mark.parametrize("dtype", DTYPES[1:3])
@quick
@given(base=vectors, tuned=vectors)
def test_one_model_whole_gives_the_model(
    method: FuseMethod,
    dtype: torch.dtype,
    base: np.ndarray[Any, Any],
    tuned: np.ndarray[Any, Any],
) -> None:
    model = tensors(tuned, dtype)
    whole = {"density": 1} if "density" in METHODS[method].reads else {}
    with TemporaryDirectory() as folder:
        found = fused(Path(folder), tensors(base, dtype), [model], method, scale=1, **whole)
    assert close(found, model, dtype)
    if method == "wise-ft":
        assert all(same_bits(found[name], model[name]) for name in model)


@pytest.mark.parametrize("method", [m for m in ALL if METHODS[m].num_models != 1])
@quick
@given(base=vectors, models=st.lists(vectors, min_size=3, max_size=3), data=st.data())
def test_the_order_of_the_models_does_not_matter(
    method: FuseMethod,
    base: np.ndarray[Any, Any],
    models: list[np.ndarray[Any, Any]],
    data: st.DataObject,
) -> None:
    count = num_models(method)
    order = data.draw(st.permutations(range(count)))
    given_weights = "weight" in METHODS[method].reads
    weights = data.draw(st.tuples(*[st.sampled_from([0.25, 0.5, 1.0, 3.0])] * count))
    tuned = [tensors(values, torch.float32) for values in models[:count]]
    start = tensors(base, torch.float32)
    with TemporaryDirectory() as first, TemporaryDirectory() as second:
        flags = {"weight": weights} if given_weights else {}
        one = fused(Path(first), start, tuned, method, **flags)
        flags = {"weight": tuple(weights[i] for i in order)} if given_weights else {}
        other = fused(Path(second), start, [tuned[i] for i in order], method, **flags)
    assert close(one, other, torch.float32)


@pytest.mark.parametrize("method", ALL)
@pytest.mark.parametrize("piece", [1, 3, 8, 1 << 16])
def test_shards_and_pieces_do_not_matter(
    tmp_path: Path, method: FuseMethod, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = torch.Generator().manual_seed(1)
    shapes = {"a": (5, 7), "b": (40,), "c": (3, 3, 3)}
    base, *models = (
        {name: torch.randn(shape, generator=rng).bfloat16() for name, shape in shapes.items()}
        for _ in range(1 + num_models(method))
    )
    expected = fused(tmp_path / "whole", base, models, method)
    monkeypatch.setattr(inputs, "PIECE", piece)
    found = fused(tmp_path / "sharded", base, models, method, num_shards=3)
    assert all(same_bits(found[name], expected[name]) for name in base)


@pytest.mark.parametrize("method", ALL)
def test_workers_do_not_matter(tmp_path: Path, method: FuseMethod) -> None:
    rng = torch.Generator().manual_seed(1)
    shapes = {f"{i}": (3 + i, 50) for i in range(9)}
    base, *models = (
        {name: torch.randn(shape, generator=rng).bfloat16() for name, shape in shapes.items()}
        for _ in range(1 + num_models(method))
    )
    inputs = prepare(tmp_path, base, models, num_shards=2)
    one, drifts, findings = run(tmp_path / "one", inputs, method)
    four, again, found = run(tmp_path / "four", replace(inputs, workers=4), method)
    assert all(same_bits(one[name], four[name]) for name in base)
    assert [d.describe() for d in drifts.values()] == [d.describe() for d in again.values()]
    assert (list(drifts), findings) == (list(again), found)


def test_a_mask_is_addressed_by_seed_and_place() -> None:
    first = bernoulli(7, 0, 1000, 0.3)
    assert (first == bernoulli(7, 0, 2000, 0.3)[:1000]).all()
    assert (first[123:] == bernoulli(7, 123, 877, 0.3)).all()
    assert not (first == bernoulli(8, 0, 1000, 0.3)).all()


@pytest.mark.parametrize("density", [0.01, 0.1, 0.5, 0.9, 1.0])
def test_masks_keep_their_density(density: float) -> None:
    count = 1 << 18
    kept = int(bernoulli(3, 0, count, density).sum())
    assert abs(kept - density * count) <= 5 * math.sqrt(count * density * (1 - density))


def test_dare_is_unbiased(tmp_path: Path) -> None:
    """The mean of tau after dropping is that before, within five standard errors."""
    count, density = 1 << 16, 0.1
    base, tuned = {"w": torch.zeros(count)}, {"w": torch.ones(count)}
    found = fused(tmp_path, base, [tuned], "dare", density=density)["w"]
    error = math.sqrt((1 - density) / density / count)
    assert abs(float(found.mean()) - 1) <= 5 * error


def test_della_keeps_its_density_and_large_entries_more_often(tmp_path: Path) -> None:
    rng = torch.Generator().manual_seed(5)
    tau = torch.randn(256, 256, generator=rng)
    found = fused(
        tmp_path, {"w": torch.zeros(256, 256)}, [{"w": tau}], "della", density=0.4, epsilon=0.4
    )["w"]
    kept = found != 0
    assert float(kept.double().mean()) == pytest.approx(0.4, abs=0.01)
    ranks = tau.abs().argsort(dim=1, descending=True).argsort(dim=1)
    by_quarter = [float(kept[ranks // 64 == i].double().mean()) for i in range(4)]
    assert by_quarter == pytest.approx([0.55, 0.45, 0.35, 0.25], abs=0.02)
    assert float(found.mean()) == pytest.approx(float(tau.mean()), abs=0.03)


def test_ties_is_odd_in_the_task_vectors(tmp_path: Path) -> None:
    """No sign is preferred: negated task vectors give the negated change."""
    rng = torch.Generator().manual_seed(2)
    models = [{"w": torch.randn(50, generator=rng)} for _ in range(3)]
    base = {"w": torch.zeros(50)}
    up = fused(tmp_path / "up", base, models, "ties")["w"]
    down = fused(tmp_path / "down", base, [{"w": -m["w"]} for m in models], "ties")["w"]
    assert torch.equal(up, -down)
