"""Model Tailor on problems that fit on paper."""

import math
from typing import Any

import pytest
import torch

from mllmtool.configs.tailor import MaskRule
from mllmtool.tailoring.decorate import cholesky, conjugate_gradient, correction
from mllmtool.tailoring.matrix import Choices, Matrix, tailor, tailor_jointly
from mllmtool.tailoring.measures import beside_wise, mask_overlap, overlap_summary
from mllmtool.tailoring.moments import Moment
from mllmtool.tailoring.scores import (
    comparable,
    entry_count,
    fused_score,
    scoped_mask,
    sensitivity,
    standardised,
    top_mask,
)
from mllmtool.tailoring.sweep import sweep

F64 = torch.float64
A = torch.tensor([[2.0, 1.0], [1.0, 2.0]], dtype=F64)  # inverse: [[2, -1], [-1, 2]] / 3
CHANGE = torch.tensor([[3.0, 1.0]], dtype=F64)
NONE = torch.zeros(1, 1, dtype=F64)


def problem(change: torch.Tensor = CHANGE, anchor: Moment | None = None) -> Matrix:
    return Matrix(torch.zeros_like(change), change, (2,), Moment(NONE, A, 100), anchor)


def exactly(**changed: object) -> Choices:
    return Choices(**{"density": 0.5, "damping": 0.0, **changed})  # type: ignore[arg-type]


def test_sensitivity_of_theorem_4_3() -> None:
    # delta^2 / (2 [A^-1]_mm): 9 / (2 * 2/3) = 6.75 and 1 / (2 * 2/3) = 0.75
    diagonal = Moment(NONE, A).factor.inverse_diagonal(CHANGE.shape)
    assert diagonal[0].tolist() == pytest.approx([2 / 3, 2 / 3])
    assert sensitivity(CHANGE, diagonal)[0].tolist() == pytest.approx([6.75, 0.75])


def test_the_increase_of_the_error_is_the_sensitivity() -> None:
    # reverting entry 0 and correcting entry 1 by c: J = (d A d^T) / 2 with d = (-3, c), c = 1.5
    d = torch.tensor([[-3.0, 1.5]], dtype=F64)
    assert Moment(NONE, A).energy(d) / 2 == pytest.approx(6.75)


@pytest.mark.parametrize(("reverted", "kept_value"), [(0, 1 + 1.5), (1, 3 + 0.5)])
def test_compensation_of_theorem_4_3(reverted: int, kept_value: float) -> None:
    # c = -(delta_m / [A^-1]_mm) A^-1[m, :]: for m = 0, -(3 / (2/3)) (2/3, -1/3) = (-3, +1.5);
    # for m = 1, -(1 / (2/3)) (-1/3, 2/3) = (+0.5, -1)
    kept = 1 - reverted
    mask = torch.tensor([[kept == 0, kept == 1]])
    lost = torch.where(mask, 0.0, CHANGE)
    for found in (
        cholesky(Moment(NONE, A), lost, mask),
        conjugate_gradient(Moment(NONE, A), lost, mask)[0],
        correction(Moment(NONE, A), lost, mask)[0],
    ):
        assert (CHANGE + found)[0, kept].item() == pytest.approx(kept_value)
        assert found[0, reverted].item() == 0


def test_tailor_keeps_the_sensitive_entry() -> None:
    tailored = tailor(problem(), exactly())
    assert tailored.mask.tolist() == [[True, False]]
    assert tailored.change.tolist() == [[pytest.approx(3.5), 0.0]]
    assert (tailored.solver, tailored.damping, tailored.retries) == ("pcg", 0.0, 0)


def test_strength_scales_the_correction() -> None:
    half = tailor(problem(), exactly(strength=0.5))
    assert half.change.tolist() == [[pytest.approx(3.25), 0.0]]


def test_the_sweep_corrects_to_the_right_only() -> None:
    # A^-1 = U^T U, U = [[u, v], [0, w]]: u = sqrt(2/3), v = -1/(3u). Reverting column 0:
    # err = 3/u, column 1 gets -err * v = +3/(3 u^2) = +1.5, as the exact solution here
    root = Moment(NONE, A).inverse_root()
    assert root[0].tolist() == pytest.approx([math.sqrt(2 / 3), -1 / math.sqrt(6)])
    result, _ = sweep(root, CHANGE, lambda *_: torch.tensor([[False, True]]))
    assert result.tolist() == [[0.0, pytest.approx(2.5)]]
    # and reverting column 1 leaves column 0 alone, where the exact solution gives 3.5
    result, _ = sweep(root, CHANGE, lambda *_: torch.tensor([[True, False]]))
    assert result.tolist() == [[3.0, 0.0]]
    wrong, _ = sweep(root, CHANGE, lambda *_: torch.tensor([[False, True]]), sign=1)
    assert wrong.tolist() == [[0.0, pytest.approx(-0.5)]]


def test_anchored_dense_is_regression_mean() -> None:
    # scalar layer, task moment 2, anchor moment 1, weight 2: a = 2 * 3 / (2 + 2 * 1) = 1.5
    change = torch.tensor([[3.0]], dtype=F64)
    task, anchor = (Moment(NONE, torch.tensor([[m]], dtype=F64), 1) for m in (2.0, 1.0))
    matrix = Matrix(torch.zeros_like(change), change, (1,), task, anchor)
    tailored = tailor(matrix, exactly(density=1.0, anchor_weight=2.0))
    assert tailored.change.item() == pytest.approx(1.5)
    assert tailored.solver == "dense"


def test_embedding_rows_by_token_counts() -> None:
    # row v moves by c_t / (c_t + lambda c_a) of its change: 3/4 of it, and 1/4; a token that
    # neither set has stays at the base
    task, anchor = (
        Moment(torch.tensor(counts, dtype=F64)[:, None], tokens=4)
        for counts in ([0.75, 0.25, 0.0], [0.25, 0.75, 0.0])
    )
    change = torch.tensor([[4.0, 8.0]] * 3, dtype=F64)
    matrix = Matrix(torch.zeros_like(change), change, (2,), task, anchor)
    tailored = tailor(matrix, Choices(density=0.9, damping=1e-9, anchor_weight=1.0))
    assert tailored.change.flatten().tolist() == pytest.approx([3, 6, 1, 2, 0, 0], abs=1e-6)
    assert tailored.mask.tolist() == [[True, True], [True, True], [False, False]]


def test_the_rows_of_a_tied_head_have_both_moments() -> None:
    # row v: A_v = full + c_v I. With full = A and c = (1, 0): row 0 has [[3, 1], [1, 3]],
    # inverse [[3, -1], [-1, 3]] / 8; row 1 has A
    tied = Moment(torch.tensor([[1.0], [0.0]], dtype=F64), A)
    diagonal = tied.factor.inverse_diagonal(torch.Size((2, 2)))
    assert diagonal.flatten().tolist() == pytest.approx([3 / 8, 3 / 8, 2 / 3, 2 / 3])
    right = torch.tensor([[4.0, 4.0], [3.0, 3.0]], dtype=F64)
    assert tied.factor.solve(right).flatten().tolist() == pytest.approx([1, 1, 1, 1])
    lost = torch.tensor([[0.0, 4.0], [3.0, 0.0]], dtype=F64)
    mask = lost == 0
    # kept entry 0 of row 0: 1 * 4 / 3; kept entry 1 of row 1: 1 * 3 / 2
    for found in (cholesky(tied, lost, mask), conjugate_gradient(tied, lost, mask)[0]):
        assert found.flatten().tolist() == pytest.approx([4 / 3, 0, 0, 3 / 2])


def test_scores() -> None:
    values = torch.tensor([[1.0, 2.0, 3.0], [5.0, 5.0, 5.0]], dtype=F64)
    assert standardised(values).tolist() == [[-1.0, 0.0, 1.0], [0.0, 0.0, 0.0]]
    assert standardised(torch.ones(1, 1)).tolist() == [[0.0]]
    fused = fused_score(values, -values, 0.75, "row")
    assert fused[0].tolist() == [-0.5, 0.0, 0.5]
    bias = torch.tensor([[3.0], [1.0], [2.0]], dtype=F64)
    assert comparable(bias, "row").flatten().tolist() == [1.0, -1.0, 0.0]
    assert comparable(bias, "rank").flatten().tolist() == [1.0, 0.0, 0.5]
    assert comparable(bias, "none").tolist() == bias.tolist()
    wide = torch.cat([torch.arange(128.0), torch.tensor([5.0, 7.0])])[None].double()
    assert comparable(wide, "block")[0, 128:].tolist() == pytest.approx([-(0.5**0.5), 0.5**0.5])


def test_scopes_share_out_one_count() -> None:
    score = torch.tensor([[9.0, 8.0, 7.0], [6.0, 1.0, 2.0], [3.0, 4.0, 5.0]])
    every = torch.ones(3, 3, dtype=torch.bool)
    assert scoped_mask(score, every, 4, "matrix").sum(dim=1).tolist() == [3, 1, 0]
    # 4 / 3 a row: 1.33, 2.67 and 4 round to 1, 3 and 4
    assert scoped_mask(score, every, 4, "row").tolist() == [
        [True, False, False],
        [True, False, True],
        [False, False, True],
    ]
    wide = torch.arange(200.0)[None]
    kept = scoped_mask(wide, torch.ones(1, 200, dtype=torch.bool), 10, "block").nonzero()[:, 1]
    # 128 of 200 columns ask for 6.4 of the 10
    assert kept.tolist() == [122, 123, 124, 125, 126, 127, 196, 197, 198, 199]


def test_what_the_mask_rule_asks() -> None:
    change = torch.tensor([[0.0, 1.0], [2.0, 4.0]], dtype=F64)
    base = torch.tensor([[9.0, 0.0], [1.0, 0.0]], dtype=F64)
    dead = Moment(torch.tensor([[1.0, 0.0]], dtype=F64), torch.zeros(2, 2, dtype=F64), 9)
    matrix = Matrix(base, change, (2,), dead)

    def kept(density: float, **rule: str) -> list[list[bool]]:
        choices = Choices(density, salience_weight=0.0, mask=MaskRule(**rule))  # type: ignore[arg-type]
        return tailor(matrix, choices).mask.tolist()

    # only the entry that was changed and whose input lives
    assert kept(0.75) == [[False, False], [True, False]]
    assert kept(0.5, dead="mask", normalise="none") == [[False, False], [True, True]]
    assert kept(0.25, eligible="all", sensitivity="weight", normalise="none") == [
        [True, False],
        [False, False],
    ]
    # a third of the three changed entries
    assert kept(1 / 3, count="changed") == [[False, False], [True, False]]


def test_a_ridge_by_column_is_a_share_of_each() -> None:
    full = torch.diag(torch.tensor([4.0, 1.0, 0.0], dtype=F64))
    damped = Moment(NONE, full).damped(0.3, torch.Size((2, 3)), "column")
    assert damped.on_diagonal(torch.Size((2, 3)))[0].tolist() == pytest.approx([5.2, 1.3, 0.5])


def test_two_tasks_make_one_least_squares() -> None:
    # scalar layer: task moments 2 and 1, changes 3 and 6: (2 * 3 + 1 * 6) / 3 = 4
    def task(moment: float, change: float) -> Matrix:
        return Matrix(
            torch.zeros(1, 1, dtype=F64),
            torch.tensor([[change]], dtype=F64),
            (1,),
            Moment(NONE, torch.tensor([[moment]], dtype=F64), 1),
        )

    tailored = tailor_jointly([task(2, 3), task(1, 6)], exactly(density=1.0))
    assert tailored.change.tolist() == [[pytest.approx(4)]]


def test_exact_counts_and_ties_to_the_earlier_entry() -> None:
    score = torch.tensor([[2.0, 1.0, 2.0], [2.0, 3.0, 2.0]])
    every = torch.ones(2, 3, dtype=torch.bool)
    assert top_mask(score, every, 3).tolist() == [[True, False, True], [False, True, False]]
    some = torch.tensor([[False, True, True], [True, False, True]])
    assert top_mask(score, some, 2).tolist() == [[False, False, True], [True, False, False]]
    assert top_mask(score, some, 9).tolist() == some.tolist()
    assert not top_mask(score, every, 0).any()
    assert [entry_count(0.1, n) for n in (0, 4, 5, 14, 15, 100)] == [0, 0, 1, 1, 2, 10]


def test_a_weight_and_its_bias_are_one_problem_with_counts_of_their_own() -> None:
    change = torch.tensor([[1.0, 9.0, 4.0], [2.0, 3.0, 5.0]], dtype=F64)
    matrix = Matrix(torch.zeros_like(change), change, (2, 1), Moment(NONE, torch.eye(3, dtype=F64)))
    mask = tailor(matrix, Choices(density=0.5, salience_weight=1.0)).mask
    # half of the 4 weights, best of their row (z = +-0.71 in both), and half of the 2 biases
    assert mask.tolist() == [[False, True, False], [False, True, True]]


def test_wise_ft_at_the_same_error() -> None:
    # error 1/4 is that of scale 1/2, whose drift is 1/4: .3 is worse, .2 is not
    def rows(drift: float | None, held_out: dict[str, float] | None = None) -> list[Any]:
        return [{"tasks": [{"tailored": 0.25, "anchor_drift": drift, "held_out": held_out}]}]

    assert beside_wise(rows(0.3)) == {
        "error": 0.25,
        "anchor_drift": 0.3,
        "wise_ft_scale": 0.5,
        "wise_ft_anchor_drift": 0.25,
        "worse": True,
    }
    better = beside_wise(rows(0.2))
    assert better is not None
    assert not better["worse"]
    held_out = beside_wise(rows(0.2, {"tailored": 0.64}))
    assert held_out is not None
    assert held_out["wise_ft_scale"] == pytest.approx(0.2)
    assert held_out["worse"]
    assert beside_wise(rows(None)) is None


def test_overlap_of_masks() -> None:
    masks = [torch.tensor([[1, 1, 0, 0]]).bool(), torch.tensor([[0, 1, 1, 0]]).bool()]
    changes = [torch.tensor([[1.0, 2.0, 0.0, 0.0]]), torch.tensor([[0.0, -1.0, 1.0, 0.0]])]
    pairs = mask_overlap(list(zip(masks, changes, strict=True)))
    assert pairs == [{"both": 1, "either": 3, "opposed": 1}]
    # by chance, two of four against two of four share one: 1 / 3
    assert overlap_summary([{"entries": 4, "overlap": pairs}]) == {
        "jaccard": pytest.approx(1 / 3),
        "chance": pytest.approx(1 / 3),
        "opposed_share": 1.0,
    }
