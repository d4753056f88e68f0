"""Which checkpoint is shipped, and what is said for it."""

import pytest
from answers_factory import marks, results_of, task_answers

from mllmtool.errors import DataError
from mllmtool.evaluation.results import Results
from mllmtool.evaluation.shipping import best

N = 400


def sweep(**rows: tuple[int, int]) -> Results:
    """Right answers of each checkpoint on the new task and on an old one; the base's 40 and 360."""
    rows = {"base": (40, 360), **rows}
    new = {label: marks(row[0], N) for label, row in rows.items()}
    old = {label: marks(row[1], N) for label, row in rows.items()}
    return results_of(
        task_answers("new", "id/id", new, role="new"), task_answers("old", "ood/id", old)
    )


def test_the_most_gain_that_keeps_is_shipped() -> None:
    chosen = best(sweep(unsafe=(340, 160), safe=(300, 360), weak=(60, 360)), 0.02)
    assert chosen.label == "safe"
    gain, kept, passed = chosen.reasons
    assert gain == "gains +65.0 pp on the new tasks, 10.0 % to 75.0 %"
    assert kept.startswith(
        "a loss beyond 2.0 pp is ruled out in every quadrant of the original tasks:"
        " 0.0 pp in OOD text · ID image, at worst −0."
    )
    assert passed.startswith("unsafe gains more, +75.0 pp, but −50.0 pp in OOD text · ID image")


def test_what_is_not_ruled_out_is_said() -> None:
    chosen = best(sweep(safe=(300, 357)), 0.01)
    assert chosen.label == "safe"
    assert chosen.reasons[1].startswith(
        "no quadrant was seen to lose more than 1.0 pp, but more is not ruled out: −0.8 pp"
    )


def test_the_base_is_shipped_where_all_lose_too_much() -> None:
    chosen = best(sweep(unsafe=(340, 160)), 0.01)
    assert chosen.label == "base"
    assert chosen.reasons[0].startswith(
        "no checkpoint that gains on the new tasks loses at most 1.0 pp: unsafe −50.0 pp in OOD"
    )


def test_the_base_is_shipped_where_nothing_gains() -> None:
    chosen = best(sweep(worse=(30, 360)), 0.01)
    assert chosen.label == "base"
    assert chosen.reasons == ("no checkpoint gains on the new tasks",)


def test_a_loss_of_just_so_much_is_allowed() -> None:
    assert best(sweep(safe=(300, 352)), 0.02).label == "safe"  # 0.88 - 0.9 is less than -0.02


def test_both_kinds_of_tasks_are_needed() -> None:
    results = results_of(task_answers("t", "id/id", {"base": "10", "ft": "11"}))
    with pytest.raises(DataError, match="best: needs original and new tasks"):
        best(results, 0.01)
