"""Findings by hand: intervals, verdicts, and the three files that say them."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from scripts import script

from mllmtool.reports.figures import save_png

findings = script("findings")
pages = script("pages")
compare = script("compare/compare")
Estimate, Finding = findings.Estimate, findings.Finding


def test_over_seeds_by_hand() -> None:
    mean, low, high = findings.over_seeds([0.01, 0.02, 0.03])
    # sd 0.01, standard error 0.01 / sqrt(3), t of 2 degrees at .975 is 4.302653
    assert mean == pytest.approx(0.02)
    assert low == pytest.approx(0.02 - 4.302653 * 0.01 / math.sqrt(3))
    assert high == pytest.approx(0.02 + 4.302653 * 0.01 / math.sqrt(3))


def test_one_seed_has_no_interval_and_decides_nothing() -> None:
    alone = findings.over_seeds([0.3])
    assert alone == (0.3, -math.inf, math.inf)
    assert str(alone) == "+30.0 (no interval)"
    assert Finding("c", alone, "1 seed").verdict == "undecided"


def test_estimates_are_shown_in_points_without_a_negative_nought() -> None:
    assert str(Estimate(-0.0001, -0.02, 0.0001)) == "+0.0 (-2.0 to +0.0)"
    assert Estimate(0.831, 0.79, 0.865).shown("") == "83.1 (79.0 to 86.5)"


def test_difference_by_hand() -> None:
    found = findings.difference(Estimate(0.5, 0.4, 0.6), Estimate(0.3, 0.22, 0.4))
    # below the root of 0.1^2 + 0.1^2 is 0.141421, above that of 0.1^2 + 0.08^2 is 0.128062
    assert found == pytest.approx((0.2, 0.058579, 0.328062), abs=1e-6)
    assert str(found) == "+20.0 (+5.9 to +32.8)"


def test_compared_is_over_items_of_one_seed_and_over_seeds_of_several() -> None:
    first, second = Estimate(0.5, 0.4, 0.6), Estimate(0.3, 0.22, 0.4)
    assert findings.compared([first], [second]) == (findings.difference(first, second), "items")
    both = findings.compared([first, second], [second, second])
    assert both == (findings.over_seeds([first.value - second.value, 0.0]), "2 seeds")


@pytest.mark.parametrize(
    ("figure", "least", "verdict"),
    [
        ((0.1, 0.01, 0.2), 0.0, "held"),
        ((-0.1, -0.2, -0.01), 0.0, "not held"),
        ((0.1, -0.1, 0.3), 0.0, "undecided"),
        ((0.1, 0.0, 0.2), 0.0, "undecided"),
        ((-0.01, -0.015, 0.0), -0.02, "held"),
        ((-0.05, -0.06, -0.03), -0.02, "not held"),
    ],
)
def test_verdict_is_what_the_whole_interval_says(
    figure: tuple[float, float, float], least: float, verdict: str
) -> None:
    assert Finding("c", Estimate(*figure), "items", least).verdict == verdict


SAID = [
    Finding("a<b>", Estimate(0.1, 0.05, 0.15), "items", paper="+9 | T"),
    Finding("c", Estimate(-0.1, -0.15, -0.05), "3 seeds"),
    Finding("d", Estimate(0.1, 0.05, 0.15), "items"),
]


def test_sentence_by_hand() -> None:
    expected = "Of 3 findings at toy scale: 2 held (a<b>; d), 1 not held (c)."
    assert findings.sentence(SAID, "toy") == expected
    assert findings.sentence([], "smoke") == "Of 0 findings at smoke scale: none."


def _page() -> Any:
    table = pages.Table("Rates", ["rate", "gain"], [["1e-3", "<i>2</i>"]])
    pictures = {"Loss & gain": "x.png"}
    return pages.Page("fig", "A title", "A <lead>.", "toy", SAID, [table], pictures, ["A note"])


MARKDOWN = """\
# A title, toy scale

A <lead>.

Of 3 findings at toy scale: 2 held (a<b>; d), 1 not held (c).

![Loss & gain](x.png)

## Findings

| finding | points (95 %) | held above | over | paper | verdict |
|---|---|---|---|---|---|
| a<b> | +10.0 (+5.0 to +15.0) | +0.0 | items | +9 \\| T | held |
| c | -10.0 (-15.0 to -5.0) | +0.0 | 3 seeds |  | not held |
| d | +10.0 (+5.0 to +15.0) | +0.0 | items |  | held |

## Rates

| rate | gain |
|---|---|
| 1e-3 | <i>2</i> |

- A note
"""


def test_page_is_written_whole_and_its_html_is_escaped_with_pictures_inside(tmp_path: Path) -> None:
    save_png(Figure(figsize=(1, 1)), tmp_path / "x.png", dpi=20)
    pages.write(_page(), tmp_path, {"rates": [1]})
    assert {path.name for path in tmp_path.iterdir()} == {
        *("fig.md", "fig.html", "fig.json", "x.png")
    }
    assert (tmp_path / "fig.md").read_text() == MARKDOWN
    html = (tmp_path / "fig.html").read_text()
    assert "<td>&lt;i&gt;2&lt;/i&gt;</td>" in html
    assert "a&lt;b&gt;" in html
    assert "A &lt;lead&gt;." in html
    assert 'src="data:image/png;base64,' in html
    assert 'alt="Loss &amp; gain"' in html
    values = json.loads((tmp_path / "fig.json").read_text())
    assert values["figures"] == {"rates": [1]}
    assert [one["verdict"] for one in values["findings"]] == ["held", "not held", "held"]


def test_no_interval_is_null_in_json(tmp_path: Path) -> None:
    alone = [Finding("c", findings.over_seeds([0.3]), "1 seed")]
    pages.write(_page()._replace(findings=alone, pictures={}), tmp_path, None)
    assert json.loads((tmp_path / "fig.json").read_text())["findings"][0]["figure"] == [
        *(0.3, None, None)
    ]


def _evaluated(path: Path, rows: dict[str, tuple[float, float]]) -> Path:
    balances = [{"checkpoint": "base", "gain": 0.0, "mean_delta": 0.0}]
    balances += [{"checkpoint": c, "gain": g, "mean_delta": k} for c, (g, k) in rows.items()]
    path.write_text(json.dumps({"results": {"original_new": balances}}))
    return path


def test_compare_reads_a_way_off_the_line_through_its_strengths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports = []
    for seed, safe in enumerate((-0.05, -0.06)):
        rows = {"unsafe": (0.5, -0.4), "safe": (0.5, safe), "hybrid": (0.5, -0.02)}
        rows |= {"wise-ft-0.5": (0.3, -0.1), "wise-ft-0.9": (0.5, -0.3), "safe-wise-ft-1": (0.5, 0)}
        reports.append(_evaluated(tmp_path / f"{seed}.json", rows))
    monkeypatch.setattr(
        "sys.argv", ["compare.py", "toy", str(tmp_path / "out"), *map(str, reports)]
    )
    compare.main()
    said = (tmp_path / "out" / "compare.md").read_text()
    # at 0.8 * 0.5 = 0.4 WiSE-FT is halfway between its strengths
    assert "| wise-ft | 2 | -20.0 (-20.0 to -20.0) | -25.0 (-25.0 to -25.0) |" in said
    # hybrid less safe: 3 and 4 points; half = 12.7062 * 0.70711 / sqrt(2)
    text = "Hybrid data keep more than a safe recipe, at 80% of the gain"
    assert f"| {text} | +3.5 (-2.9 to +9.9) | +0.0 | 2 seed(s) |  | undecided |" in said
    text = "A safe recipe then interpolation keeps more than interpolation, at 80% of the gain"
    assert f"| {text} | +20.0 (+20.0 to +20.0) | +0.0 | 2 seed(s) |  | held |" in said
    assert "anchored" not in said
