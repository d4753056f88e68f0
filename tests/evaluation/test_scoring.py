"""Cells, quadrants and balances, worked by hand."""

from dataclasses import replace

import pytest
from answers_factory import checkpoint, marks, results_of, task_answers
from hypothesis import given, settings
from hypothesis import strategies as st

from mllmtool.evaluation.results import Results


@pytest.fixture(scope="module")
def worked() -> Results:
    return results_of(
        task_answers("new", "id/id", {"base": "1000", "ft": "1110"}, role="new"),
        task_answers("a", "ood/id", {"base": "1111", "ft": "11-0"}, {"base": "1111", "ft": "1110"}),
        task_answers("b", "ood/id", {"base": "11", "ft": "11"}),
        task_answers("c", "ood/ood", {"base": "1100", "ft": "1011"}),
    )


def test_a_cell_by_hand(worked: Results) -> None:
    cell = worked.cell("ft", "a")
    assert {name: score.value for name, score in cell.metrics.items()} == {
        "mcq_lenient": 0.5,
        "mcq_paper": 0.5,
        "likelihood": 0.75,
        "format_fail": 0.25,
    }
    # said 1 1 - 0, likeliest 1 1 1 0: the third disagrees
    assert cell.agreement == 0.75
    assert cell.letter_hist == {"A": 2, "B": 1, "null": 1}  # A, B, nothing, A for B
    compared = cell.vs_base
    assert compared is not None
    assert (compared.delta, compared.lost, compared.gained) == (-0.5, 2, 0)
    assert compared.likelihood_delta == -0.25
    assert compared.p == pytest.approx(0.25)  # 2 * 1/4 - 1/4
    assert compared.detectable == pytest.approx(2.8016 * (0.5 / 4) ** 0.5, rel=1e-4)


def test_p_values_are_adjusted_for_the_table(worked: Results) -> None:
    """Lost and gained 0+2, 2+0, 0+0, 1+2: mid-p .25, .25, 1, .625; by Holm 1, 1, 1, 1."""
    compared = [cell.vs_base for cell in worked.cells if cell.vs_base]
    assert [one.p for one in compared] == pytest.approx([0.25, 0.25, 1.0, 0.625])
    assert [one.p_holm for one in compared] == [1.0, 1.0, 1.0, 1.0]


def test_quadrants_by_hand(worked: Results) -> None:
    rows = {row.quadrant: row for row in worked.of("ft")}
    assert list(rows) == ["id_text_id_image", "ood_text_id_image", "ood_text_ood_image"]
    assert [row.role for row in rows.values()] == ["new", "original", "original"]
    middle = rows["ood_text_id_image"]
    assert (middle.tasks, middle.mean) == (("a", "b"), 0.75)  # (1/2 + 1) / 2, not 4 of 6
    assert middle.delta == -0.25
    assert (middle.likelihood_mean, middle.likelihood_delta) == (0.875, -0.125)
    own = worked.of("base")[1]
    assert (own.mean, own.delta, own.ci, own.verdict) == (1.0, 0.0, (0.0, 0.0), "kept")


def test_the_balance_by_hand(worked: Results) -> None:
    row = worked.balance("ft")
    assert row.original == pytest.approx((0.5 + 1 + 0.75) / 3)
    assert (row.new, row.gain) == (0.75, 0.5)
    assert row.h_score == pytest.approx(0.75)
    assert row.retention == pytest.approx((0.5 + 1 + 1.5) / 3)
    assert row.mean_delta == pytest.approx((-0.25 + 0.25) / 2)
    assert (row.worst_delta, row.worst_quadrant) == (-0.25, "ood_text_id_image")
    assert worked.balance("base").worst_delta == 0


def test_a_new_task_does_not_hide_a_loss_in_its_quadrant() -> None:
    results = results_of(
        task_answers("new", "ood/id", {"base": "0000", "ft": "1111"}, role="new"),
        task_answers("old", "ood/id", {"base": "1111", "ft": "1000"}),
    )
    shown = results.matrix("ft")["ood_text_id_image"]
    assert (shown.role, shown.tasks) == ("original", ("old",))
    assert [row.role for row in results.of("ft")] == ["original", "new"]
    assert results.balance("ft").worst_delta == -0.75


def test_a_copy_of_the_base_is_kept_however_few_the_items() -> None:
    rows = {"base": "1100", "copy": "1100", "other": "1100"}
    results = results_of(
        task_answers("t", "id/id", rows),
        rows=[
            checkpoint("base", same_as_base=True),
            checkpoint("copy", same_as_base=True),
            checkpoint("other"),
        ],
    )
    copy, other = (results.cell(label, "t").vs_base for label in ("copy", "other"))
    assert copy is not None
    assert other is not None
    assert (copy.delta, copy.ci, copy.bounds, copy.verdict) == (0, (0, 0), (0, 0), "kept")
    assert (other.delta, other.verdict) == (0, "undecided")  # four items show little


@pytest.mark.parametrize(
    ("right", "expected"), [(300, "kept"), (299, "kept"), (294, "undecided"), (260, "forgot")]
)
def test_verdicts_of_a_quadrant(right: int, expected: str) -> None:
    results = results_of(
        task_answers("t", "id/ood", {"base": marks(300, 300), "ft": marks(right, 300)})
    )
    assert results.matrix("ft")["id_text_ood_image"].verdict == expected


def test_the_base_alone() -> None:
    results = results_of(task_answers("t", "id/id", {"base": "10"}))
    assert results.others == ()
    assert results.balance("base").original == 0.5
    assert results.cells[0].vs_base is None


@settings(max_examples=15)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=4, max_size=30))
def test_swapping_base_and_checkpoint_turns_the_signs(pairs: list[tuple[bool, bool]]) -> None:
    before, after = ("".join("01"[hit] for hit in row) for row in zip(*pairs, strict=True))
    there = results_of(task_answers("t", "id/id", {"base": before, "ft": after}))
    back = results_of(task_answers("t", "id/id", {"base": after, "ft": before}))
    one, other = there.cell("ft", "t").vs_base, back.cell("ft", "t").vs_base
    assert one is not None
    assert other is not None
    assert one.delta == -other.delta
    assert one.ci == pytest.approx((-other.ci.upper, -other.ci.lower))
    assert (one.lost, one.gained, one.p) == (other.gained, other.lost, other.p)


def test_results_without_likelihoods_have_none() -> None:
    one = task_answers("t", "id/id", {"base": "1110", "ft": "0110"})
    answers = {
        label: [replace(row, logprobs=()) for row in rows] for label, rows in one.answers.items()
    }
    results = results_of(replace(one, answers=answers))
    cell = results.cell("ft", "t")
    assert "likelihood" not in cell.metrics
    assert (cell.agreement, cell.metrics["mcq_lenient"].value) == (None, 0.5)
    assert cell.vs_base is not None
    assert (cell.vs_base.likelihood_delta, cell.vs_base.lost) == (None, 1)
    assert results.matrix("ft")["id_text_id_image"].likelihood_mean is None


def test_macro_and_micro_by_hand(worked: Results) -> None:
    """Tasks a and b of four and two items: 2 and 2 right of the checkpoint, 4 and 2 of the base."""
    row = worked.of("ft")[1]
    assert row.micro is not None
    assert row.mean == 0.75
    assert row.micro.mean == pytest.approx(4 / 6)
    assert row.micro.delta == pytest.approx(-2 / 6)
    balance = worked.balance("ft")
    assert balance.original_micro == pytest.approx(7 / 10)
    assert balance.new_micro == 0.75


def test_what_was_lost_in_format_only_by_hand(worked: Results) -> None:
    """Lost are the third, whose right option is still the likeliest, and the fourth."""
    compared = worked.cell("ft", "a").vs_base
    assert compared is not None
    assert compared.lost_superficially == 1
    assert compared.forgotten == pytest.approx((2 / 0.5 - 0) / 4)
    assert compared.above_chance_delta == -1.0


def test_the_balance_of_ratios_by_hand(worked: Results) -> None:
    """Kept are (1/2 + 1 + 3/2) / 3 of the base's, learnt all of what the best learnt."""
    assert worked.new_reference == "ft"
    assert worked.balance("ft").h_score_ratio == pytest.approx(1.0)
    # 1 -> 1/2, 1 -> 1, 1/2 -> 3/4 of two options: above chance 1 -> 0, 1 -> 1, 0 has no ratio
    assert worked.balance("ft").retention_above_chance == pytest.approx(0.5)


def test_a_held_out_task_is_no_original_one() -> None:
    results = results_of(
        task_answers("old", "id/id", {"base": "1111", "ft": "1111"}),
        task_answers("held", "ood/id", {"base": "1111", "ft": "1000"}, role="heldout"),
    )
    row = results.balance("ft")
    assert (row.worst_delta, row.heldout, row.heldout_delta) == (0.0, 0.25, -0.75)
    assert results.matrix("ft")["ood_text_id_image"].role == "heldout"


def test_every_figure_has_its_formula(worked: Results) -> None:
    fields = {"h_score", "h_score_ratio", "retention", "retention_above_chance", "macro", "micro"}
    assert fields <= set(worked.formulas)
