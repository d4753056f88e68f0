"""Compare the ways not to forget over several seeds, at equal gain on the new task.

    python recipes/compare/compare.py SCALE OUT EVAL/report.json [EVAL/report.json ...]

OUT/compare.md, .html, .json  what each way keeps at a share of the tuned checkpoint's gain, and the
                              findings
OUT/pareto.png                every checkpoint of every seed: gain against the mean loss of the old
                              quadrants

A way is given at several strengths. At a level, say 0.9 of what the tuned checkpoint gains, a
way's figure on one seed is read off the line through those of its strengths that no other of them
beats in both gain and loss. A finding is the difference of two ways there, over the seeds that
both reach.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).parents[1]))
from findings import Finding, over_seeds
from pages import Page, Table, parser, write

from mllmtool.reports.figures import save_png

LEVELS = (0.8, 0.9, 0.95)
TUNED = "unsafe"
CLAIMS = (
    ("grafting", "wise-ft", "Keeping the largest changes keeps more than interpolating all"),
    ("paper", "wise-ft", "The paper's decorated patch keeps more than interpolating all"),
    ("paper", "released", "The exact decoration keeps more than the released code's"),
    ("paper", "grafting", "The fused mask with decoration keeps more than magnitude alone"),
    ("anchored", "wise-ft", "The anchored patch keeps more than interpolating all"),
    ("anchored", "paper", "Anchors keep more than the paper's objective"),
    ("safe", "anchored", "A safe recipe keeps more than an anchored repair afterwards"),
    ("hybrid", "anchored", "Hybrid data keep more than an anchored repair afterwards"),
    ("hybrid", "safe", "Hybrid data keep more than a safe recipe"),
    ("hybrid-wise-ft", "hybrid", "Interpolating after hybrid training keeps more yet"),
    ("safe-wise-ft", "wise-ft", "A safe recipe then interpolation keeps more than interpolation"),
)


class Row(NamedTuple):
    """One checkpoint on one seed; shares."""

    label: str
    gain: float
    kept: float  # mean delta of the old quadrants, mostly below 0

    @property
    def way(self) -> str:
        """The label without its strengths: `anchored-0.1-3` is `anchored`."""
        return re.sub(r"(-[0-9.]+)+$", "", self.label)


def main() -> None:
    """Write the files."""
    told = parser(__doc__)
    told.add_argument("reports", type=Path, nargs="+")
    arguments = told.parse_args()
    seeds = [rows_of(json.loads(path.read_text())) for path in arguments.reports]
    arguments.out.mkdir(parents=True, exist_ok=True)
    draw(seeds, arguments.out / "pareto.png")
    rows = [[row._asdict() for row in seed] for seed in seeds]
    write(page(seeds, arguments.scale), arguments.out, rows)


def rows_of(report: dict[str, Any]) -> list[Row]:
    """The checkpoints of one evaluation, the base left out."""
    rows = report["results"]["original_new"]
    return [Row(row["checkpoint"], row["gain"], row["mean_delta"]) for row in rows[1:]]


def at_level(rows: list[Row], way: str, level: float) -> float | None:
    """The loss of a way at a share of the tuned checkpoint's gain; None where it gains less."""
    wanted = level * next(row.gain for row in rows if row.label == TUNED)
    same = sorted((row for row in rows if row.way == way), key=lambda row: row.gain)
    best = [row for place, row in enumerate(same) if row.kept >= max(r.kept for r in same[place:])]
    if not best or best[-1].gain < wanted:
        return None
    return float(np.interp(wanted, [row.gain for row in best], [row.kept for row in best]))


def compared(seeds: list[list[Row]], claim: tuple[str, str, str], level: float) -> list[Finding]:
    """The finding of one claim at one level; none if no seed has both ways there."""
    first, second, text = claim
    pairs = [(at_level(rows, first, level), at_level(rows, second, level)) for rows in seeds]
    differences = [one - two for one, two in pairs if one is not None and two is not None]
    if not differences:
        return []
    claimed = f"{text}, at {level:.0%} of the gain"
    return [Finding(claimed, over_seeds(differences), f"{len(differences)} seed(s)")]


def page(seeds: list[list[Row]], scale: str) -> Page:
    """What every way keeps at each level, and the findings."""
    ways = list(dict.fromkeys(row.way for row in seeds[0]))
    return Page(
        name="compare",
        title=f"What keeps most at equal gain, {len(seeds)} seed(s)",
        lead="Mean change of the old quadrants, points, at a share of the tuned checkpoint's gain:"
        " mean over seeds (least to most); in brackets the seeds that reach the level, if not all.",
        scale=scale,
        findings=[
            found for claim in CLAIMS for level in LEVELS for found in compared(seeds, claim, level)
        ],
        tables=[
            Table(
                "Ways",
                ["way", "strengths", *(f"{level:.0%}" for level in LEVELS)],
                [way_row(seeds, way) for way in ways],
            ),
            Table("Checkpoints", ["checkpoint", "gain", "old quadrants"], checkpoint_rows(seeds)),
        ],
        pictures={"Gain against loss": "pareto.png"},
    )


def way_row(seeds: list[list[Row]], way: str) -> list[str]:
    """A way at every level."""
    strengths = sum(row.way == way for row in seeds[0])
    cells = [cell([at_level(rows, way, level) for rows in seeds]) for level in LEVELS]
    return [way, str(strengths), *cells]


def checkpoint_rows(seeds: list[list[Row]]) -> list[list[str]]:
    """Every checkpoint's gain and loss on each seed."""
    found = []
    for row in seeds[0]:
        same = [other for rows in seeds for other in rows if other.label == row.label]
        gains = " / ".join(f"{100 * other.gain:+.1f}" for other in same)
        kept = " / ".join(f"{100 * other.kept:+.1f}" for other in same)
        found.append([row.label, gains, kept])
    return found


def cell(values: list[float | None]) -> str:
    """One way at one level over the seeds."""
    reached = [100 * value for value in values if value is not None]
    if not reached:
        return "not reached"
    missing = "" if len(reached) == len(values) else f" [{len(reached)}]"
    return f"{np.mean(reached):+.1f} ({min(reached):+.1f} to {max(reached):+.1f}){missing}"


def draw(seeds: list[list[Row]], path: Path) -> None:
    """Every checkpoint, a marker a way; a line joins the strengths of an interpolation."""
    figure = Figure(figsize=(8, 5.5), layout="constrained")
    axes = figure.subplots()
    ways = list(dict.fromkeys(row.way for row in seeds[0]))
    for place, way in enumerate(ways):
        for seed, rows in enumerate(seeds):
            points = sorted((row.gain, row.kept) for row in rows if row.way == way)
            gains, kept = 100 * np.array(points).T
            style = {"color": f"C{place % 10}", "marker": "osv^D*Px<>"[place % 10], "alpha": 0.8}
            line = "-" if way.endswith("wise-ft") else ""
            label = way if seed == 0 else None
            axes.plot(gains, kept, line, lw=0.6, ms=5, label=label, **style)
    axes.set_xlabel("gain on the new task, points")
    axes.set_ylabel("mean change of the old quadrants, points")
    axes.legend(fontsize=8, frameon=False)
    axes.grid(alpha=0.3)
    save_png(figure, path, dpi=160)


if __name__ == "__main__":
    main()
