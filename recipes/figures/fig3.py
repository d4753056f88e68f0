"""Figure 3 of arXiv 2603.14493: the class-name distractor test before and after tuning.

    python recipes/figures/fig3.py SCALE OUT EVAL/report.json

Asked for a garment's kind, does a model that was tuned to name garments name it anyway, once its
name is among the options? Checkpoints are the demo's: base, unsafe, safe, hybrid.
"""

from __future__ import annotations

import sys
from pathlib import Path

from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).parents[1]))
from findings import Estimate, Finding, difference
from pages import Page, Table, parser, write
from readings import DISTRACTED, cell_delta, mischoice, read, score

from mllmtool.evaluation.results import Results
from mllmtool.reports.figures import save_png

PLAIN = "garment-kind-choice"
NOTES = (
    "The paper's figures are those that a public third-party note copied from it"
    " (kreuzhofer/dgx-manager, 2026): ImageWikiQA after tuning Qwen2.5-VL-3B on ImageNet-VQA.",
    "Intervals are over items. A difference of two checkpoints takes them for independent, which"
    " makes it too wide.",
    "The hybrid mix holds questions about kinds among its general ones; LLaVA-665K, which the paper"
    " mixes in, has none of ImageWikiQA's.",
)


def main() -> None:
    """Write the page and the picture."""
    told = parser(__doc__)
    told.add_argument("report", type=Path)
    arguments = told.parse_args()
    results = read(arguments.report)
    arguments.out.mkdir(parents=True, exist_ok=True)
    draw(results, arguments.out / "mischoice.png")
    page = Page(
        name="fig3",
        title="The class-name distractor test before and after tuning",
        lead="Asked for a garment's kind, does a tuned model name the garment instead?",
        scale=arguments.scale,
        findings=findings(results),
        tables=[
            Table(
                "Answers to “What kind is it?”, per cent (95 %)",
                HEAD,
                [*table_rows(results), PAPER],
            )
        ],
        pictures={"Choosing the class name": "mischoice.png"},
        notes=NOTES,
    )
    write(page, arguments.out, {label: figures(results, label) for label in labels(results)})


HEAD = (
    *("checkpoint", "right", "right, distracted", "the class name"),
    *("right, change", "right, distracted, change"),
)
PAPER = ("paper: target only, low rate", "", "", "", "-10.4", "-37.4")


def labels(results: Results) -> list[str]:
    """The checkpoints, the base first."""
    return [row.label for row in results.checkpoints]


def figures(results: Results, label: str) -> dict[str, Estimate]:
    """What the table has of one checkpoint."""
    return {
        "plain": score(results, label, PLAIN),
        "distracted": score(results, label, DISTRACTED),
        "mischoice": mischoice(results, label),
        "plain_delta": cell_delta(results, label, PLAIN),
        "distracted_delta": cell_delta(results, label, DISTRACTED),
    }


def table_rows(results: Results) -> list[list[str]]:
    """A row a checkpoint."""
    rows = []
    for label in labels(results):
        told = figures(results, label)
        shares = [told[name].shown("") for name in ("plain", "distracted", "mischoice")]
        rows.append([label, *shares, str(told["plain_delta"]), str(told["distracted_delta"])])
    return rows


def findings(results: Results) -> list[Finding]:
    """The paper's claims about the test."""
    told = {label: figures(results, label) for label in labels(results)}

    def more(name: str, first: str, second: str) -> Estimate:
        return difference(told[first][name], told[second][name])

    def widened(label: str) -> Estimate:
        return difference(told[label]["plain_delta"], told[label]["distracted_delta"])

    claims = [
        ("An unsafe recipe makes a model name the class", more("mischoice", "unsafe", "base"), ""),
        (
            "A safe recipe on the target alone does so too",
            more("mischoice", "safe", "base"),
            "rises",
        ),
        ("The distractor widens the unsafe recipe's loss", widened("unsafe"), ""),
        ("The distractor widens the safe recipe's loss", widened("safe"), "+27.0"),
        ("Hybrid data name the class less", more("mischoice", "unsafe", "hybrid"), "fixed"),
    ]
    return [Finding(claim, figure, "items", paper=paper) for claim, figure, paper in claims]


def draw(results: Results, path: Path) -> None:
    """A bar a checkpoint with its interval."""
    figure = Figure(figsize=(5.6, 3.6), layout="constrained")
    axes = figure.subplots()
    for place, label in enumerate(labels(results)):
        value, low, high = (100 * end for end in mischoice(results, label))
        span = [[value - low], [high - value]]
        axes.bar(place, value, yerr=span, color="#c2570c", capsize=4, width=0.6)
    axes.set_xticks(range(len(labels(results))), labels(results))
    axes.set_ylabel("answers that are the class name, %")
    axes.spines[["top", "right"]].set_visible(False)
    save_png(figure, path, dpi=160)


if __name__ == "__main__":
    main()
