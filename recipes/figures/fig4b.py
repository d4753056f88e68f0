"""Figure 4b of arXiv 2603.14493: how large a share of general data, and a control that it lacks.

    python recipes/figures/fig4b.py SCALE OUT EVAL/report.json [EVAL/report.json ...]

One report a seed. In `general-SHARE` the samples of all sources together are held, as in the paper:
the more general ones, the fewer of the target. In `iso-SHARE` the target's are held, as many as in
the largest share of the first, and general ones come on top.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).parents[1]))
from findings import Estimate, Finding, compared
from pages import Page, Table, parser, write
from readings import FAILING, NEW, OLD, delta, mischoice, read, spread

from mllmtool.evaluation.results import Results
from mllmtool.evaluation.wording import quadrant
from mllmtool.reports.figures import save_png

SWEEPS = {"general": "all samples held", "iso": "the target's held"}
STYLES = {"general": "-o", "iso": "--s"}
MARGIN = 0.02  # the suite's
HALF, MOST = 0.5, 0.7
HEAD = ("held", "share", "new task", *map(quadrant, OLD), "mis-choice")
NOTES = (
    "The paper's claims are those that a public third-party note copied from it"
    " (kreuzhofer/dgx-manager, 2026): half LLaVA-665K keeps target accuracy within about 1 point"
    " and fixes the failure, 70 % adds nothing. It holds the sum of samples; it has no control.",
    "Changes against the base in points: of one seed with its interval over items, of several"
    " their mean, least and most. Mis-choice is the share of answers that name the class.",
)


def main() -> None:
    """Write the page and the picture."""
    told = parser(__doc__)
    told.add_argument("reports", type=Path, nargs="+")
    arguments = told.parse_args()
    seeds = [read(path) for path in arguments.reports]
    arguments.out.mkdir(parents=True, exist_ok=True)
    draw(seeds, arguments.out / "shares.png")
    runs = [(sweep, share) for sweep in SWEEPS for share in shares(seeds[0], sweep)]
    page = Page(
        name="fig4b",
        title=f"The share of general data, {len(seeds)} seed(s)",
        lead="How large a share of general data is enough, and is it they that keep the rest, or"
        " that fewer samples of the target are seen?",
        scale=arguments.scale,
        findings=findings(seeds),
        tables=[Table("Shares", HEAD, [row(seeds, *run) for run in runs])],
        pictures={"Change of each quadrant by share": "shares.png"},
        notes=NOTES,
    )
    write(page, arguments.out, {f"{a}-{b:g}": deltas(seeds, a, b) for a, b in runs})


def shares(results: Results, sweep: str) -> list[float]:
    """The shares of a sweep; the largest of both is one run."""
    labels = [row.label for row in results.others]
    own = [float(label.removeprefix(f"{sweep}-")) for label in labels if label.startswith(sweep)]
    return sorted(own) if sweep == "general" else [*sorted(own), max(shares(results, "general"))]


def label_of(results: Results, sweep: str, share: float) -> str:
    """The checkpoint of a share."""
    return f"{'general' if share == max(shares(results, 'general')) else sweep}-{share:g}"


def deltas(seeds: Sequence[Results], sweep: str, share: float) -> dict[str, list[Estimate]]:
    """Every quadrant on every seed."""
    label = label_of(seeds[0], sweep, share)
    return {name: [delta(seed, label, name) for seed in seeds] for name in (NEW, *OLD)}


def row(seeds: Sequence[Results], sweep: str, share: float) -> list[str]:
    """A share's row of the table."""
    label = label_of(seeds[0], sweep, share)
    told = [spread(values) for values in deltas(seeds, sweep, share).values()]
    named = [mischoice(seed, label) for seed in seeds]
    return [SWEEPS[sweep], f"{share:.0%}", *told, spread(named, "")]


def findings(seeds: Sequence[Results]) -> list[Finding]:
    """The paper's claims about the share, and the control's."""

    def more(sweep: str, first: float, second: float, name: str) -> tuple[Estimate, str]:
        one, two = deltas(seeds, sweep, first), deltas(seeds, sweep, second)
        return compared(one[name], two[name])

    claims = [
        (
            "Half of general data repairs OOD text on ID images",
            more("general", HALF, 0, FAILING),
            0.0,
            "fixed",
        ),
        ("Half of them gains as much to 1 point", more("general", HALF, 0, NEW), -0.01, "within 1"),
        (
            "A share of 70 % repairs it no more than half does",
            more("general", HALF, MOST, FAILING),
            -MARGIN,
            "adds nothing",
        ),
        (
            "Half repairs it where the target's samples are held",
            more("iso", HALF, 0, FAILING),
            0.0,
            "",
        ),
        ("Half gains as much to 1 point where they are held", more("iso", HALF, 0, NEW), -0.01, ""),
    ]
    return [Finding(claim, *figure, least, paper) for claim, figure, least, paper in claims]


def draw(seeds: Sequence[Results], path: Path) -> None:
    """A line a quadrant and sweep over the shares, with the span of the seeds."""
    figure = Figure(figsize=(7.5, 4.2), layout="constrained")
    axes = figure.subplots()
    for sweep, style in STYLES.items():
        found = shares(seeds[0], sweep)
        for place, name in enumerate((NEW, *OLD)):
            told = [deltas(seeds, sweep, share)[name] for share in found]
            points = 100 * np.array([[one.value for one in values] for values in told])
            label = f"{'new task' if name == NEW else quadrant(name)}, {SWEEPS[sweep]}"
            axes.plot(found, points.mean(1), style, color=f"C{place}", ms=4, label=label)
            axes.fill_between(found, points.min(1), points.max(1), color=f"C{place}", alpha=0.12)
    axes.axhline(0, color="#66727f", lw=0.8)
    axes.set_xlabel("share of general data")
    axes.set_ylabel("change against the base, points")
    figure.legend(loc="outside lower center", frameon=False, fontsize=7.5, ncols=2)
    axes.spines[["top", "right"]].set_visible(False)
    save_png(figure, path, dpi=160)


if __name__ == "__main__":
    main()
