"""Each method on numbers worked by hand."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from fusing import fused, one, prepare, run

from mllmtool.fusion import total
from mllmtool.fusion.magnitude_sampling import descending


def test_linear(tmp_path: Path) -> None:
    # (1 * 1 + 3 * 3) / 4 = 2.5 and (1 * 2 + 3 * 6) / 4 = 5
    assert one(tmp_path, [9, 9], [[1, 2], [3, 6]], "linear", weight=(1, 3)) == [2.5, 5]


def test_linear_is_the_uniform_soup_by_default(tmp_path: Path) -> None:
    assert one(tmp_path, [9, 9], [[1, 2], [3, 6], [5, 1]], "linear") == [3, 3]


def test_wise_ft(tmp_path: Path) -> None:
    # three quarters of (0, 4) and one of (2, 0)
    assert one(tmp_path, [0, 4], [[2, 0]], "wise-ft", scale=0.25) == [0.5, 3]


def test_wise_ft_is_half_way_by_default(tmp_path: Path) -> None:
    assert one(tmp_path, [0, 4], [[2, 0]], "wise-ft") == [1, 2]


def test_task_arithmetic(tmp_path: Path) -> None:
    # tau = (2, -1), (0, 1); 1 + 0.5 (1 * 2 + 2 * 0) = 2 and 1 + 0.5 (1 * -1 + 2 * 1) = 1.5
    models: list[list[float]] = [[3, 0], [1, 2]]
    assert one(tmp_path, [1, 1], models, "task-arithmetic", scale=0.5, weight=(1, 2)) == [2, 1.5]


def test_task_arithmetic_may_forget_a_task(tmp_path: Path) -> None:
    assert one(tmp_path, [1, 1], [[3, 0]], "task-arithmetic", scale=1, weight=(-1,)) == [-1, 2]


def test_ties_trims_by_one_threshold_over_the_whole_model(tmp_path: Path) -> None:
    base = {"a": torch.zeros(4), "b": torch.ones(2)}
    first = {"a": torch.tensor([4.0, -1.0, 2.0, 3.0]), "b": torch.tensor([1.5, 1.0])}
    second = {"a": torch.tensor([2.0, 3.5, -1.0, -5.0]), "b": torch.tensor([1.25, 1.5])}
    # Density 0.5 keeps 3 of 6. tau_1 = (4 -1 2 3 | 0.5 0) -> (4 0 2 3 | 0 0), threshold 2;
    # tau_2 = (2 3.5 -1 -5 | 0.25 0.5) -> (2 3.5 0 -5 | 0 0), threshold 2. A threshold for each
    # tensor would have kept one entry of b.
    # Sums (6 3.5 2 -2 | 0 0) elect (+ + + -). Means of those that agree:
    # (4 + 2) / 2 = 3, 3.5, 2, -5 (the 3 does not agree), and b stays. Twice that.
    inputs = prepare(tmp_path, base, [first, second])
    tensors, drifts, findings = run(tmp_path / "out", inputs, "ties", density=0.5, scale=2)
    assert tensors["a"].tolist() == [6, 7, 4, -10]
    assert tensors["b"].tolist() == [1, 1]
    threshold = {"magnitude": 2.0, "kept": 3, "ties": 1}
    assert findings == {"thresholds": [threshold, threshold]}
    assert total(list(drifts.values())).describe()["kept"] == [0.5, 0.5]


def test_ties_keeps_all_entries_at_the_threshold(tmp_path: Path) -> None:
    # 2 of 5 asked for; the second largest magnitude is 3, and three entries have it
    inputs = prepare(
        tmp_path, {"w": torch.zeros(5)}, [{"w": torch.tensor([3.0, -3.0, 1.0, 4.0, 3.0])}]
    )
    tensors, _, findings = run(tmp_path / "out", inputs, "ties", density=0.4)
    assert tensors["w"].tolist() == [3, -3, 0, 4, 3]
    assert findings == {"thresholds": [{"magnitude": 3.0, "kept": 4, "ties": 3}]}


def test_ties_never_keeps_an_entry_that_was_not_tuned(tmp_path: Path) -> None:
    inputs = prepare(tmp_path, {"w": torch.zeros(4)}, [{"w": torch.tensor([0.0, 0.0, 1.0, 0.0])}])
    tensors, _, findings = run(tmp_path / "out", inputs, "ties", density=0.75)
    assert tensors["w"].tolist() == [0, 0, 1, 0]
    assert findings["thresholds"][0]["kept"] == 1


def test_ties_leaves_entries_whose_signs_cancel(tmp_path: Path) -> None:
    # tau = (2, 1), (-2, 1): the first sums to 0, sgn(0) = 0
    assert one(tmp_path, [5, 5], [[7, 6], [3, 6]], "ties", density=1) == [5, 6]


def test_dare_drops_or_rescales(tmp_path: Path) -> None:
    values = [float(i) for i in range(1, 201)]
    found = one(tmp_path, [1.0] * 200, [[1 + v for v in values]], "dare", density=0.25)
    kept = [new != 1 for new in found]
    assert found == [1 + 4 * v if k else 1 for v, k in zip(values, kept, strict=True)]
    assert 30 <= sum(kept) <= 70


def test_della_ranks_rows_by_magnitude() -> None:
    rows = np.array([[1, 3, 2, 3], [0, 0, 1e-40, 0]], np.float32)
    assert descending(rows).tolist() == [1, 3, 2, 0, 6, 4, 5, 7]


def test_slerp_on_the_quarter_circle(tmp_path: Path) -> None:
    # 60 degrees to go of 90: sin 60 and sin 30
    found = one(tmp_path, [0, 0], [[1, 0], [0, 1]], "slerp", weight=(2, 1))
    assert found == pytest.approx([math.sqrt(3) / 2, 0.5])


def test_slerp_takes_the_angle_of_each_tensor(tmp_path: Path) -> None:
    a = {"v": torch.tensor([1.0, 0.0]), "w": torch.tensor([2.0, 2.0])}
    b = {"v": torch.tensor([0.0, 1.0]), "w": torch.tensor([4.0, 4.0])}
    found = fused(tmp_path, a, [a, b], "slerp")
    assert found["v"].tolist() == pytest.approx([math.sqrt(0.5)] * 2)
    assert found["w"].tolist() == [3, 3]  # collinear: along the chord


def test_slerp_of_opposites_and_of_zero_is_the_chord(tmp_path: Path) -> None:
    a = {"v": torch.tensor([1.0, 2.0]), "w": torch.zeros(2), "empty": torch.zeros(0)}
    b = {"v": torch.tensor([-1.0, -2.0]), "w": torch.tensor([4.0, 2.0]), "empty": torch.zeros(0)}
    found = fused(tmp_path, a, [a, b], "slerp", weight=(3, 1))
    assert found["v"].tolist() == [0.5, 1]
    assert found["w"].tolist() == [1, 0.5]


def test_tailor_sums_patches_and_takes_the_mean_where_they_overlap(tmp_path: Path) -> None:
    # tau = (2 0 4 0), (0 3 2 0): alone 2 and 3, both (4 + 2) / 2 = 3, none 0
    assert one(tmp_path, [1] * 4, [[3, 1, 5, 1], [1, 4, 3, 1]], "tailor") == [3, 4, 4, 1]


def test_drift_by_hand(tmp_path: Path) -> None:
    # base (3, 4), norm 5; tau = (3, 4), (-4, 3): norms 5, cosine 0, the first entry in conflict
    inputs = prepare(
        tmp_path,
        {"w": torch.tensor([3.0, 4.0])},
        [{"w": torch.tensor([6.0, 8.0])}, {"w": torch.tensor([-1.0, 7.0])}],
    )
    _, drifts, _ = run(tmp_path / "out", inputs, "task-arithmetic", scale=1, weight=(1, 0))
    assert drifts["w"].describe() == {
        "entries": 2,
        "relative_l2": 1.0,
        "max": 4.0,
        "changed": 1.0,
        "task_vectors": [1.0, 1.0],
        "cosine": 0.0,
        "sign_conflict": 0.5,
        "kept": None,
    }


def test_drift_that_is_not_defined_is_null(tmp_path: Path) -> None:
    inputs = prepare(tmp_path / "2", {"w": torch.zeros(2)}, [{"w": torch.zeros(2)}])
    _, drifts, _ = run(tmp_path / "out", inputs, "task-arithmetic")
    assert drifts["w"].describe() == {
        "entries": 2,
        "relative_l2": None,
        "max": 0.0,
        "changed": 0.0,
        "task_vectors": [None],
        "cosine": None,
        "sign_conflict": None,
        "kept": None,
    }
