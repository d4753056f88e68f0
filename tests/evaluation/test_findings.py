"""The sentences follow from the figures, and change with them."""

from dataclasses import replace

import pytest
from answers_factory import checkpoint, marks, results_of, task_answers

from mllmtool.data.items import NO_OPTION
from mllmtool.evaluation.findings import Point, above, find, interpolations
from mllmtool.evaluation.results import Results
from mllmtool.evaluation.wording import listed, percent, points, quadrant, span
from mllmtool.metrics.scores import Answered
from mllmtool.metrics.statistics import Interval

N = 400


def sweep(**rows: tuple[int, int, int]) -> Results:
    """Right answers of each checkpoint: on the new task, on an old one, and there by likelihood."""
    rows = {"base": (40, 360, 360), **rows}
    made = [
        checkpoint("base", same_as_base=True),
        *(
            checkpoint(
                label,
                interpolates="sha of unsafe" if label.startswith("wise") else None,
                weight=0.5 if label.startswith("wise") else None,
            )
            for label in list(rows)[1:]
        ),
    ]
    new = {label: marks(row[0], N) for label, row in rows.items()}
    old = {label: marks(row[1], N) for label, row in rows.items()}
    likely = {label: marks(row[2], N) for label, row in rows.items()}
    return results_of(
        task_answers("new", "id/id", new, role="new"),
        task_answers("old", "ood/id", old, likely),
        rows=made,
    )


def texts(results: Results) -> dict[str, str]:
    return {finding.kind: finding.text for finding in find(results)}


def test_the_sentences_by_hand() -> None:
    results = sweep(
        unsafe=(340, 160, 340), wise=(200, 260, 300), safe=(324, 358, 358), weak=(60, 360, 360)
    )
    assert texts(results) == {
        "best trade": "safe is the best trade: +71.0 pp (10.0 % to 81.0 %) on the new task,"
        " −0.5 pp in OOD text · ID image, its worst quadrant",
        "gains most": "unsafe gains most on the new task: +75.0 pp (10.0 % to 85.0 %)",
        "loses most": "unsafe loses most: −50.0 pp in OOD text · ID image, from 90.0 % to 40.0 %",
        "kept": "Kept every quadrant of the original tasks at a margin of 2.0 pp: safe and weak",
        "format": "The loss of unsafe in OOD text · ID image is partly of format: −50.0 pp by what"
        " it says, −5.0 pp by which option it finds likeliest",
        "interpolation": "safe and weak keep more in the worst quadrant than plain interpolation"
        " does at the same gain",
    }
    assert [finding.checkpoints for finding in find(results)] == [
        ("safe",),
        ("unsafe",),
        ("unsafe",),
        ("safe", "weak"),
        ("unsafe",),
        ("safe", "weak"),
    ]


def test_one_that_is_best_at_both_is_told_once() -> None:
    found = texts(sweep(safe=(340, 359, 359), other=(100, 300, 300)))
    assert found["best trade"].startswith("safe is the best trade")
    assert "gains most" not in found
    assert found["loses most"].startswith("other loses most: −15.0 pp")


def test_nothing_kept_nothing_of_format() -> None:
    found = texts(sweep(unsafe=(340, 160, 160)))
    assert found["kept"] == (
        "No checkpoint kept every quadrant of the original tasks at a margin of 2.0 pp"
    )
    assert set(found) == {"best trade", "loses most", "kept"}


def test_a_loss_where_there_are_no_options_is_none_of_format() -> None:
    right = {"base": "1" * N, "ft": "1" * N}
    asked = task_answers("asked", "ood/ood", right, type="exact", answer=None)
    said = {
        label: [Answered("open", (), NO_OPTION, text, (), ("yes",))] * N
        for label, text in (("base", "yes"), ("ft", "no"))
    }
    results = results_of(
        task_answers("new", "id/id", right, role="new"),
        task_answers("chosen", "ood/ood", right),
        replace(asked, answers=said),
    )
    (lost,) = results.of("ft", "original")
    assert (lost.verdict, lost.delta, lost.likelihood_delta) == ("forgot", -0.5, 0.0)
    assert "format" not in texts(results)


def test_a_target_much_lower_is_no_trade() -> None:
    """Within 5 pp of the best counts as reached; 5.25 pp below does not."""
    assert texts(sweep(a=(340, 300, 300), b=(320, 350, 350)))["best trade"].startswith("b is")
    assert texts(sweep(a=(340, 300, 300), b=(319, 350, 350)))["best trade"].startswith("a is")


def test_without_a_new_task_there_is_no_trade() -> None:
    results = results_of(task_answers("t", "id/id", {"base": marks(9, 10), "ft": marks(1, 10)}))
    assert set(texts(results)) == {"loses most", "kept"}


def test_a_copy_of_the_base_is_no_finding() -> None:
    results = results_of(
        task_answers("n", "id/id", {"base": "10", "copy": "10"}, role="new"),
        task_answers("t", "ood/id", {"base": "10", "copy": "10"}),
        rows=[checkpoint("base", same_as_base=True), checkpoint("copy", same_as_base=True)],
    )
    assert find(results) == ()


def test_the_base_alone_has_no_findings() -> None:
    assert find(results_of(task_answers("t", "id/id", {"base": "10"}))) == ()


def test_interpolation_goes_from_the_base_to_what_it_came_from() -> None:
    (line,) = interpolations(sweep(wise=(200, 260, 300), unsafe=(340, 160, 340)))
    assert [point.label for point in line] == ["base", "wise", "unsafe"]
    assert interpolations(sweep(unsafe=(340, 160, 340))) == []


@pytest.mark.parametrize(
    ("gain", "worst", "better"),
    [(0.2, -0.09, True), (0.2, -0.11, False), (0.6, -0.49, True), (0.9, -0.1, False)],
)
def test_above_the_line(gain: float, worst: float, better: bool) -> None:
    """Through (0, 0), (0.4, -0.2), (0.8, -0.8); beyond its end nothing is compared."""
    line = [Point("base", 0, 0), Point("wise", 0.4, -0.2), Point("ft", 0.8, -0.8)]
    assert above(line, Point("x", gain, worst)) is better


def test_above_a_line_that_turns_back() -> None:
    """At a gain of 0.5 it is at -0.3 on its way out and at -0.7 on its way back."""
    line = [Point("base", 0, 0), Point("wise", 0.6, -0.36), Point("ft", 0.4, -1.04)]
    assert not above(line, Point("x", 0.5, -0.5))
    assert above(line, Point("x", 0.5, -0.29))


def test_words() -> None:
    assert (percent(0.8315), percent(None), percent(0)) == ("83.2 %", "–", "0.0 %")
    assert (points(0.032), points(-0.0004), points(None)) == ("+3.2 pp", "0.0 pp", "–")
    assert span(Interval(-0.012, 0.004)) == "[−1.2, +0.4]"
    assert quadrant("ood_text_id_image") == "OOD text · ID image"
    assert (listed(["a"]), listed(["a", "b", "c"])) == ("a", "a, b and c")
