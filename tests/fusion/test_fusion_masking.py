"""Model Stock, Breadcrumbs, Consensus and PCB: by hand, and against slow transcriptions."""

import math
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from fusing import one, prepare, run
from test_fusion_parity import SHAPES, flat, models_like_bf16, same

from mllmtool.configs.fuse import FuseConfig
from mllmtool.errors import ConfigError
from mllmtool.fusion import METHODS, settings_for


def test_model_stock_by_hand(tmp_path: Path) -> None:
    # tau = (5, 0), (3, 4): cosine 15 / 25 = 0.6, t = 1.2 / 1.6 = 0.75, mean (4, 2)
    assert one(tmp_path, [1, 1], [[6, 1], [4, 5]], "model-stock") == pytest.approx([4, 2.5])


def test_model_stock_stays_at_the_base_where_models_disagree(tmp_path: Path) -> None:
    # cosine -0.6 would give t = -3
    inputs = prepare(
        tmp_path,
        {"w": torch.tensor([1.0, 1.0])},
        [{"w": torch.tensor([6.0, 1.0])}, {"w": torch.tensor([-2.0, 5.0])}],
    )
    tensors, _, findings = run(tmp_path / "out", inputs, "model-stock")
    assert tensors["w"].tolist() == [1, 1]
    assert findings == {"ratios": {"w": 0.0}}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_model_stock_as_transcribed(tmp_path: Path, dtype: torch.dtype) -> None:
    base, *tuned = models_like_bf16(3, dtype)
    for model in tuned:  # a common direction, that angles be acute
        for name in model:
            model[name] = model[name] + 0.05 * tuned[0][name]
    inputs = prepare(tmp_path, base, tuned)
    found, _, _ = run(tmp_path / "out", inputs, "model-stock")
    expected = {}
    for name, start in base.items():
        taus = [model[name].double() - start.double() for model in tuned]
        cosines = [
            float((a * b).sum() / math.sqrt(float((a * a).sum() * (b * b).sum())))
            for a, b in combinations(taus, 2)
        ]
        phi = sum(cosines) / 3
        t = 3 * phi / (1 + 2 * phi)
        assert 0 < t < 1
        mean = sum(model[name].double() for model in tuned) / 3
        expected[name] = t * mean + (1 - t) * start.double()
    assert same(found, flat(expected), dtype)


def test_breadcrumbs_by_hand(tmp_path: Path) -> None:
    # of ten, the largest is dropped and the three after it are kept
    tau: list[float] = [1, -2, 3, 4, 5, 6, -7, 8, 9, -10]
    found = one(
        tmp_path, [1] * 10, [[1 + t for t in tau]], "breadcrumbs", density=0.3, gamma=0.1, scale=2
    )
    assert found == [1, 1, 1, 1, 1, 1, -13, 17, 19, 1]


def test_breadcrumbs_keeps_ties_at_both_bounds(tmp_path: Path) -> None:
    # asked for 1 dropped and 2 kept of 6: the second largest is 5, the third 2, and both are tied
    found = one(
        tmp_path, [0] * 6, [[5, 5, 2, -2, 1, 0]], "breadcrumbs", density=0.33, gamma=0.17, scale=1
    )
    assert found == [5, 5, 2, -2, 0, 0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_breadcrumbs_as_transcribed(tmp_path: Path, dtype: torch.dtype) -> None:
    base, *tuned = models_like_bf16(3, dtype)
    inputs = prepare(tmp_path, base, tuned)
    found, _, _ = run(tmp_path / "out", inputs, "breadcrumbs", density=0.2, gamma=0.05, scale=0.5)
    expected = {}
    for name, start in base.items():
        change = torch.zeros(start.shape, dtype=torch.float64)
        for model in tuned:
            tau = (model[name].double() - start.double()).flatten()
            order = sorted(tau.abs().float().tolist(), reverse=True)
            top = round(0.05 * len(order))
            bottom = top + round(0.2 * len(order)) - 1
            masked = [t if order[bottom] <= abs(t) <= order[top] else 0 for t in tau.tolist()]
            if dtype == torch.bfloat16:
                change += torch.tensor(masked, dtype=torch.float64).reshape(start.shape)
            else:  # ranked as float32
                bounds = np.float32(order[bottom]), np.float32(order[top])
                masked = [
                    t if bounds[0] <= np.float32(abs(t)) <= bounds[1] else 0 for t in tau.tolist()
                ]
                change += torch.tensor(masked, dtype=torch.float64).reshape(start.shape)
        expected[name] = start.double() + 0.5 * change
    assert same(found, flat(expected), dtype)


def test_consensus_by_hand(tmp_path: Path) -> None:
    # tau = (4 0 1), (2 3 -1), sum (6 3 0). First: 4 >= 0.5 * 2 and 2 >= 0.5 * 4, two votes;
    # second: 0 < 0.5 * 3, one vote; third: two votes for nothing
    models: list[list[float]] = [[5, 1, 2], [3, 4, 0]]
    assert one(tmp_path, [1, 1, 1], models, "consensus", threshold=0.5, scale=2) == [13, 1, 1]


@pytest.mark.parametrize(
    ("votes", "dtype"), [(1, torch.float32), (2, torch.bfloat16), (3, torch.float32)]
)
def test_consensus_as_transcribed(tmp_path: Path, votes: int, dtype: torch.dtype) -> None:
    base, *tuned = models_like_bf16(3, dtype)
    inputs = prepare(tmp_path, base, tuned)
    found, _, _ = run(tmp_path / "out", inputs, "consensus", threshold=0.6, votes=votes, scale=0.5)
    start, expected = flat(base), []
    for entry, column in zip(start, zip(*(flat(m) for m in tuned), strict=True), strict=True):
        merged = entry + sum(theta - entry for theta in column)
        mattering = sum(abs(theta - entry) >= 0.6 * abs(merged - theta) for theta in column)
        expected.append(entry + 0.5 * (merged - entry) * (mattering >= votes))
    assert same(found, np.array(expected), dtype)


def test_pcb_by_hand(tmp_path: Path) -> None:
    # tau = (1 2 4 4), (4 4 2 1), sums (5 6 6 5). The greatest magnitude is the second largest, as
    # in the released code: 4. norm = (0 1/3 1 1), scores e^(2 norm^2) tanh(tau sum):
    # (tanh 5, e^(2/9), e^2, e^2) and the reverse. All kept, from tanh 5 as 0 to e^2 as 1.
    b = (math.exp(2 / 9) - math.tanh(5)) / (math.exp(2) - math.tanh(5))
    models: list[list[float]] = [[1, 2, 4, 4], [4, 4, 2, 1]]
    found = one(tmp_path / "1", [0] * 4, models, "pcb", density=1, scale=1)
    mixed = (2 * b + 4) / (b + 1)
    assert found == pytest.approx([4, mixed, mixed, 4])
    # of three of four kept, the third is the least and counts 0
    found = one(tmp_path / "2", [0] * 4, models, "pcb", density=0.75, scale=0.5)
    assert found == pytest.approx([2, 2, 2, 2])


@pytest.mark.parametrize("density", [0.05, 0.2])
def test_pcb_as_transcribed(tmp_path: Path, density: float) -> None:
    base, *tuned = models_like_bf16(3, torch.float32)
    inputs = prepare(tmp_path, base, tuned)
    found, _, _ = run(tmp_path / "out", inputs, "pcb", density=density, scale=0.7)
    start = flat(base)
    taus = [flat(model) - start for model in tuned]
    size, clamped, scales = len(start), [], []
    for tau in taus:
        ordered = sorted(abs(tau))
        low, high = ordered[int(size * 1e-4)], ordered[int(size * (1 - 1e-4) - 1)]
        magnitude = [min(max(abs(t), low), high) for t in tau]
        clamped.append([math.copysign(m, t) for m, t in zip(magnitude, tau, strict=True)])
        score = [
            math.exp(3 * ((m - low) / (high - low)) ** 2) * math.tanh(t * total)
            for m, t, total in zip(magnitude, tau, np.sum(taus, axis=0), strict=True)
        ]
        least = sorted(score)[int(size * (1 - density))]
        scales.append([(max(s, least) - least) / (max(score) - least) for s in score])
    change = np.sum(np.multiply(clamped, scales), axis=0) / np.maximum(
        np.sum(scales, axis=0), 1e-12
    )
    expected = start + 0.7 * change
    ours = flat(found)
    close = np.isclose(ours, expected, rtol=1e-5, atol=1e-6)
    # at the threshold itself a score is 0 or a rounding above it, and alone it decides
    assert np.count_nonzero(~close) <= len(SHAPES)
    assert np.count_nonzero(change) > 0.04 * size


@pytest.mark.parametrize(
    ("method", "flags", "message"),
    [
        (
            "breadcrumbs",
            {"density": 0.9, "gamma": 0.2},
            "--gamma: 0.2 and density 0.9 are more than 1 together for breadcrumbs",
        ),
        ("consensus", {"votes": 3}, "--votes: 3 of 2 --model for consensus"),
        ("pcb", {"gamma": 0.2}, "--gamma: pcb does not read it; of use to breadcrumbs"),
    ],
)
def test_refused_settings(method: str, flags: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        settings_for(
            FuseConfig.parse({"base": "b", "model": ["x", "y"], "method": method, **flags})
        )
    assert str(raised.value) == message


def test_defaults_are_those_of_the_papers() -> None:
    assert METHODS["model-stock"].reads == {}
    assert METHODS["breadcrumbs"].reads == {"density": 0.14, "gamma": 0.01, "scale": 0.2}
    assert METHODS["consensus"].reads == {"threshold": 0.4, "votes": 2, "scale": 0.3}
    assert METHODS["pcb"].reads == {"density": 0.1, "scale": 1.2}
