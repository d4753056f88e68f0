"""Figure 2 and Table 1 of arXiv 2603.14493: what learns, how, and at which rate.

    python recipes/figures/fig2.py SCALE OUT EVAL/report.json

Checkpoints are `PART-METHOD-RATE-STEP`; a run's last step is its row of the table, and all its
steps are its curve: the target's gain against the change of each other quadrant.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).parents[1]))
from findings import Estimate, Finding, difference
from pages import Page, Table, parser, write
from readings import NEW, OLD, delta, read, score

from mllmtool.evaluation.results import Results
from mllmtool.evaluation.wording import quadrant
from mllmtool.reports.figures import save_png

# Table 1's rows that a run stands for, by part, method and place of its rate from the highest on:
# setting, accuracy on the target, and the changes under its two heads.
PAPER = {
    ("language", "full", 0): ("language, full, 1e-5", "91.56", "-16.56", "-33.64"),
    ("language", "full", -1): ("language, full, 1e-6", "91.37", "+1.06", "-1.51"),
    ("language", "lora", -1): ("language, LoRA r=8, 1e-4", "91.08", "+0.46", "-2.97"),
    ("projector", "full", 0): ("projector, full, 1e-5", "89.68", "-0.64", "-0.26"),
    ("projector", "full", -1): ("projector, full, 1e-6", "86.86", "+0.26", "+0.05"),
}
HEAD = ("part", "method", "rate", "target", "gain", *map(quadrant, OLD))
PAPER_HEAD = ("paper's row", "target", "“OODT–IDI”", "“OODT–OODI”")
LINES = {"full": "-o", "lora": "--^"}
NOTES = (
    "The paper's figures are those of its Table 1 that a public third-party note copied from it"
    " (kreuzhofer/dgx-manager, 2026), Qwen2.5-VL-3B on ImageNet-VQA, under that note's heads, of"
    " which the first may stand for ID text on OOD images. Rates correspond by their place only:"
    " the highest and the lowest of each part and method. The findings take LoRA at its lowest.",
    "Intervals are over items, of one seed. A difference of two checkpoints takes them for"
    " independent, which makes it too wide. Changes are against the base, in points.",
)


class Run(NamedTuple):
    """One way to tune; a checkpoint of it is called after it and its step."""

    part: str
    method: str
    rate: str

    def at(self, step: int) -> str:
        """The label of a step."""
        return f"{'-'.join(self)}-{step}"


Runs = dict[Run, list[int]]  # to the steps that were saved


def main() -> None:
    """Write the page and the picture."""
    told = parser(__doc__)
    told.add_argument("report", type=Path)
    arguments = told.parse_args()
    results = read(arguments.report)
    runs = runs_of(results)
    arguments.out.mkdir(parents=True, exist_ok=True)
    draw(results, runs, arguments.out / "curves.png")
    rows = [row(results, runs, run) for run in runs]
    page = Page(
        name="fig2",
        title="What learns, how, and at which rate",
        lead="Does a low rate, or fewer weights that learn, keep what a model could do?",
        scale=arguments.scale,
        findings=findings(results, runs),
        tables=[Table("Table 1", [*HEAD, *PAPER_HEAD], rows)],
        pictures={"Gain on the target against each other quadrant, over the steps": "curves.png"},
        notes=NOTES,
    )
    figures = {run.at(step): deltas(results, run, step) for run in runs for step in runs[run]}
    write(page, arguments.out, figures)


def runs_of(results: Results) -> Runs:
    """The steps of every run, in order."""
    runs: Runs = {}
    for checkpoint in results.others:
        part, method, rate, step = checkpoint.label.rsplit("-", 3)
        runs.setdefault(Run(part, method, rate), []).append(int(step))
    return {run: sorted(steps) for run, steps in runs.items()}


def rates(runs: Runs, part: str, method: str) -> list[Run]:
    """The runs of a part and method, the highest rate first."""
    same = [run for run in runs if (run.part, run.method) == (part, method)]
    return sorted(same, key=lambda run: -float(run.rate))


def deltas(results: Results, run: Run, step: int) -> dict[str, Estimate]:
    """Every quadrant of a checkpoint."""
    return {name: delta(results, run.at(step), name) for name in (NEW, *OLD)}


def row(results: Results, runs: Runs, run: Run) -> list[str]:
    """A run's row of the table, and the paper's beside it."""
    step = runs[run][-1]
    target = next(task.name for task in results.tasks if task.role == "new")
    reached = f"{100 * score(results, run.at(step), target).value:.1f}"
    told = [str(estimate) for estimate in deltas(results, run, step).values()]
    return [*run, reached, *told, *paper(runs, run)]


def paper(runs: Runs, run: Run) -> tuple[str, ...]:
    """Table 1's row that a run stands for, blank where it has none."""
    same = rates(runs, run.part, run.method)
    found = [row for key, row in PAPER.items() if key[:2] == run[:2] and same[key[2]] == run]
    return found[0] if found else ("",) * len(PAPER_HEAD)


def findings(results: Results, runs: Runs) -> list[Finding]:
    """The paper's findings I to III, where the grid has the runs that they are about."""

    def of(part: str, method: str, place: int) -> dict[str, Estimate]:
        run = rates(runs, part, method)[place]
        return deltas(results, run, runs[run][-1])

    high, low = of("language", "full", 0), of("language", "full", -1)
    lora = of("language", "lora", -1)
    image, failing, both = OLD
    claims = [
        ("A low rate keeps more on OOD images", difference(low[image], high[image]), 0, "+17.62"),
        ("A low rate keeps more of what is OOD", difference(low[both], high[both]), 0, "+32.13"),
        ("A low rate gains as much to 1 point", difference(low[NEW], high[NEW]), -0.01, "-0.19"),
        ("A low rate loses at most 3 points on OOD images", low[image], -0.03, "+1.06"),
        ("LoRA keeps more of what is OOD", difference(lora[both], high[both]), 0, "+30.67"),
        ("LoRA loses at most 3 points on OOD images", lora[image], -0.03, "+0.46"),
        ("A low rate loses on OOD text of ID images", lost(low[failing]), 0, "+10.4"),
    ]
    if rates(runs, "projector", "full"):
        few = difference(of("projector", "full", 0)[both], high[both])
        claims.append(("The projector alone keeps more of what is OOD", few, 0, "+33.38"))
    return [Finding(claim, figure, "items", *rest) for claim, figure, *rest in claims]


def lost(change: Estimate) -> Estimate:
    """A change as a loss."""
    return Estimate(-change.value, -change.high, -change.low)


def draw(results: Results, runs: Runs, path: Path) -> None:
    """A panel a quadrant: a line a run from the base on, fainter at lower rates."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    panels = figure.subplots(1, len(OLD), sharey=True)
    parts = list(dict.fromkeys(run.part for run in runs))
    for axes, name in zip(panels, OLD, strict=True):
        for run, steps in runs.items():
            told = [deltas(results, run, step) for step in steps]
            gains = [0.0, *(100 * one[NEW].value for one in told)]
            kept = [0.0, *(100 * one[name].value for one in told)]
            place = rates(runs, run.part, run.method).index(run)
            style = {"color": f"C{parts.index(run.part)}", "alpha": (1, 0.65, 0.35)[min(place, 2)]}
            label = f"{run.part}, {run.method}" if place == 0 else None
            axes.plot(gains, kept, LINES[run.method], ms=4, lw=1.2, label=label, **style)
        axes.axhline(0, color="#66727f", lw=0.8)
        axes.set_title(quadrant(name), fontsize=9)
        axes.set_xlabel("gain on the target, points")
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("change against the base, points")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    save_png(figure, path, dpi=160)


if __name__ == "__main__":
    main()
