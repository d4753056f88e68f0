"""Figure 4a of arXiv 2603.14493: which auxiliary data, as half of the mix, keep the rest.

    python recipes/figures/fig4a.py SCALE OUT EVAL/report.json [EVAL/report.json ...]

One report a seed. Checkpoints are `SET-SHARE`: `general-0` saw the target alone, `general-0.5`,
`same-text-0.5`, `one-task-0.5` and `fake-0.5` as many samples, half of them of the set.
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

ALONE = "general-0"
SETS = {
    ALONE: "target only",
    "general-0.5": "general: other images, other texts of many kinds (LLaVA-665K)",
    "one-task-0.5": "one task: other images, other texts of one kind (OCR-VQA)",
    "same-text-0.5": "same text: other images, the task's question (Flowers102-VQA)",
    "fake-0.5": "fake: the task's images, texts that need none (the authors' control)",
}
MARGIN = 0.02  # the suite's
HEAD = ("half of the samples", "new task", *map(quadrant, OLD), "mis-choice")
NOTES = (
    "In brackets the paper's set that each stands for. Its figures for them are not public text;"
    " third-party notes say that text-diverse mixtures repair what fails, OOD text on ID images.",
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
    draw(seeds, arguments.out / "sets.png")
    figures = {label: deltas(seeds, label) for label in SETS}
    page = Page(
        name="fig4a",
        title=f"Auxiliary data as half of the mix, {len(seeds)} seed(s)",
        lead="What keeps a model from forgetting: other images, other texts, or many of them?",
        scale=arguments.scale,
        findings=findings(seeds),
        tables=[Table("Sets", HEAD, [row(seeds, label) for label in SETS])],
        pictures={"Change of each quadrant by auxiliary set": "sets.png"},
        notes=NOTES,
    )
    write(page, arguments.out, figures)


def deltas(seeds: Sequence[Results], label: str) -> dict[str, list[Estimate]]:
    """Every quadrant on every seed."""
    return {name: [delta(seed, label, name) for seed in seeds] for name in (NEW, *OLD)}


def row(seeds: Sequence[Results], label: str) -> list[str]:
    """A set's row of the table."""
    told = [spread(values) for values in deltas(seeds, label).values()]
    named = [mischoice(seed, label) for seed in seeds]
    return [SETS[label], *told, spread(named, "")]


def findings(seeds: Sequence[Results]) -> list[Finding]:
    """The paper's claims about auxiliary sets, in the quadrant that fails."""

    def more(first: str, second: str, name: str = FAILING) -> tuple[Estimate, str]:
        return compared(deltas(seeds, first)[name], deltas(seeds, second)[name])

    general, same = "general-0.5", "same-text-0.5"
    claims = [
        ("General data repair OOD text on ID images", more(general, ALONE), 0.0, "repaired"),
        ("General data gain as much to 1 point", more(general, ALONE, NEW), -0.01, "within 1"),
        ("Other images with the task's text do not repair it", more(ALONE, same), -MARGIN, ""),
        ("General data repair it more than the task's text does", more(general, same), 0.0, ""),
        (
            "General data repair it more than one other task does",
            more(general, "one-task-0.5"),
            0.0,
            "",
        ),
        (
            "General data repair it more than the fake control does",
            more(general, "fake-0.5"),
            0.0,
            "",
        ),
    ]
    return [Finding(claim, *figure, least, paper) for claim, figure, least, paper in claims]


def draw(seeds: Sequence[Results], path: Path) -> None:
    """A group of bars a quadrant, a bar a set, a dot a seed."""
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(SETS)
    for index, label in enumerate(SETS):
        for place, values in enumerate(deltas(seeds, label).values()):
            points = [100 * estimate.value for estimate in values]
            there = place + (index - (len(SETS) - 1) / 2) * width
            name = SETS[label].partition(":")[0] if place == 0 else None
            axes.bar(there, np.mean(points), width, color=f"C{index}", label=name)
            axes.plot([there] * len(points), points, ".", color="#1f2933", ms=4)
    axes.axhline(0, color="#66727f", lw=0.8)
    axes.set_xticks(range(1 + len(OLD)), ["new task", *map(quadrant, OLD)])
    axes.set_ylabel("change against the base, points")
    figure.legend(loc="outside lower center", frameon=False, fontsize=8, ncols=len(SETS))
    axes.spines[["top", "right"]].set_visible(False)
    save_png(figure, path, dpi=160)


if __name__ == "__main__":
    main()
