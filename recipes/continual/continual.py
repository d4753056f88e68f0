"""Tasks one after another: what keeps the earlier ones? After arXiv 2603.14493, section 5.

    python recipes/continual/continual.py SCALE OUT JOINT/report.json METHOD/ORDER/report.json [...]

An order's report holds a checkpoint a stage and the figures of `eval-matrix --stages`, which are
taken from there with their formulas. JOINT learned all tasks at once.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "figures"))
from findings import Estimate, Finding, over_seeds
from pages import Page, Table, parser, write
from readings import read, score, spread

from mllmtool.evaluation.results import Results, Stages
from mllmtool.reports.figures import save_png

METHODS = {
    "full": "SeqFull: language part and projector in full, at a low rate",
    "lora": "IncLoRA: adapters, merged after each stage",
    "full-replay": "SeqFull with replay",
    "lora-replay": "IncLoRA with replay",
    "high": "in full, at five times the rate",
    "kl": "the same, held to the stage before by its divergence (Learning without Forgetting)",
    "wise-ft": "the same, fused half and half with the stage before (WiSE-FT)",
}
FIGURES = ("last", "mft", "maa", "bwt_gem", "bwt_all", "forgetting", "fwt")
SIGNED = ("bwt_gem", "bwt_all", "fwt", "original")
ORIGINAL = "original"  # beside the report's figures: the change of what the base could do before
PICTURED = ("last", "forgetting", ORIGINAL)
TOLERANCE = 0.02
NOTES = (
    "The paper's table was not seen. Third-party notes and the paper's reviews say that SeqFull and"
    " IncLoRA without replay beat all methods compared, O-LoRA and MoELoRA among them, on MLLM-CL"
    " with LLaVA-1.5-7B, and that both do better without replay than with. Here LwF and WiSE-FT"
    " stand for the methods; O-LoRA is left out, since finetune has no such term.",
    "Replay is 20 samples of each earlier task, as in the paper, added to the stage's own.",
    "Intervals are Student's over the orders, paired where methods are compared; each task is"
    " first, second and last once. Of several orders a cell is their mean, least and most.",
    "`original` is the change, after the last stage, of what the base could do before the first:"
    " the mean over the quadrants of its tasks. The formulas are of accuracy A[i][j] on task j"
    " after stage i of T, row 0 the base's; all in points.",
)

Chains = Mapping[str, Mapping[str, Results]]  # of a method and an order


def main() -> None:
    """Write the page and the pictures."""
    told = parser(__doc__)
    told.add_argument("joint", type=Path)
    told.add_argument("reports", type=Path, nargs="+")
    arguments = told.parse_args()
    chains = read_chains(arguments.reports)
    joint = read_joint(read(arguments.joint), chains)
    arguments.out.mkdir(parents=True, exist_ok=True)
    draw_figures(chains, arguments.out / "figures.png")
    draw_stages(chains, joint, arguments.out / "stages.png")
    orders = len(next(iter(chains.values())))
    page = Page(
        name="continual",
        title=f"Tasks one after another, {orders} order(s)",
        lead="Does learning one task after another forget the earlier ones, and what prevents it?",
        scale=arguments.scale,
        findings=findings(chains, joint),
        tables=tables(chains, joint),
        pictures={
            "After the last stage, by method": "figures.png",
            "Each task over the stages, by method": "stages.png",
        },
        notes=NOTES,
    )
    write(page, arguments.out, figures(chains, joint))


def read_chains(paths: Sequence[Path]) -> Chains:
    """Results by method and order, which the folders name."""
    chains: dict[str, dict[str, Results]] = {}
    for path in paths:
        chains.setdefault(path.parts[-3], {})[path.parts[-2]] = read(path)
    return {method: chains[method] for method in METHODS if method in chains}


def read_joint(results: Results, chains: Chains) -> dict[str, float]:
    """Of the checkpoint that learned all at once, the score on each task of the sequence."""
    tasks = stages(next(iter(next(iter(chains.values())).values()))).tasks
    return {task: score(results, results.others[-1].label, task).value for task in tasks}


def stages(results: Results) -> Stages:
    """What the report says of its stages."""
    if results.stages is None:
        raise SystemExit("a report has no stages; give eval-matrix --stages")
    return results.stages


def value(results: Results, figure: str) -> float:
    """A figure of one chain."""
    if figure == ORIGINAL:
        found = results.balance(stages(results).checkpoints[-1]).mean_delta
    else:
        found = next(one.value for one in stages(results).figures if one.name == figure)
    return np.nan if found is None else found


def values(chains: Chains, method: str, figure: str) -> list[float]:
    """A figure of every order."""
    return [value(results, figure) for results in chains[method].values()]


def findings(chains: Chains, joint: Mapping[str, float]) -> list[Finding]:
    """The paper's claims about sequences, as far as both methods are there."""
    claims = [
        ("SeqFull ends above Learning without Forgetting", "full", "kl", "last", 0.0, "beats"),
        ("IncLoRA ends above Learning without Forgetting", "lora", "kl", "last", 0.0, "beats"),
        ("SeqFull ends above WiSE-FT at each stage", "full", "wise-ft", "last", 0.0, ""),
        ("SeqFull ends above itself with replay", "full", "full-replay", "last", 0.0, "better"),
        ("IncLoRA ends above itself with replay", "lora", "lora-replay", "last", 0.0, "better"),
        ("A low rate forgets less than a high one", "high", "full", "forgetting", 0.0, ""),
        ("A low rate learns as much to 2 points", "full", "high", "mft", -TOLERANCE, ""),
        ("A low rate keeps more of the original tasks", "full", "high", ORIGINAL, 0.0, ""),
    ]
    found = [
        _finding(claim, less(chains, first, second, figure), least, paper)
        for claim, first, second, figure, least, paper in claims
        if {first, second} <= chains.keys()
    ]
    below = [last - np.mean(list(joint.values())) for last in values(chains, "full", "last")]
    return [*found, _finding("SeqFull ends as high as joint to 2 points", below, -TOLERANCE, "")]


def _finding(claim: str, differences: Sequence[float], least: float, paper: str) -> Finding:
    over = f"{len(differences)} order(s)"
    return Finding(claim, over_seeds(differences), over, least, paper)


def less(chains: Chains, first: str, second: str, figure: str) -> list[float]:
    """The first method's figure less the second's, in every order."""
    pairs = zip(values(chains, first, figure), values(chains, second, figure), strict=True)
    return [one - other for one, other in pairs]


def figures(chains: Chains, joint: Mapping[str, float]) -> dict[str, object]:
    """What the tables say, as shares."""
    told = {
        method: {
            order: {figure: value(results, figure) for figure in (*FIGURES, ORIGINAL)}
            for order, results in orders.items()
        }
        for method, orders in chains.items()
    }
    return {"joint": joint, "chains": told}


def tables(chains: Chains, joint: Mapping[str, float]) -> list[Table]:
    """Figures by method and by order, their formulas, and the stages of every method."""
    head = (*FIGURES, ORIGINAL)
    by_method = [
        [METHODS[method], *(spread_of(values(chains, method, figure), figure) for figure in head)]
        for method in chains
    ]
    together = spread_of([float(np.mean(list(joint.values())))], "last")
    by_method.append(["joint: all tasks at once", together, *[""] * (len(head) - 1)])
    by_order = [
        [method, order, *(spread_of([value(results, figure)], figure) for figure in head)]
        for method, orders in chains.items()
        for order, results in orders.items()
    ]
    some = stages(next(iter(chains["full"].values())))
    formulas = [[one.name, one.formula] for one in some.figures]
    return [
        Table("Figures by method", ("method", *head), by_method),
        Table("Figures of every order", ("method", "order", *head), by_order),
        Table("Formulas", ("figure", "formula"), formulas),
        *(stage_table(method, orders, joint) for method, orders in chains.items()),
    ]


def spread_of(numbers: Sequence[float], figure: str) -> str:
    """Of one order the figure, of several their mean, least and most."""
    sign = "+" if figure in SIGNED else ""
    if len(numbers) == 1:
        return Estimate(numbers[0]).shown(sign).partition(" ")[0]
    return spread([Estimate(number) for number in numbers], sign)


def stage_table(method: str, orders: Mapping[str, Results], joint: Mapping[str, float]) -> Table:
    """The score on every task after every stage of every order."""
    rows = []
    for order, results in orders.items():
        found = stages(results)
        for label, scores in zip(found.checkpoints, found.scores, strict=True):
            told = dict(zip(found.tasks, scores, strict=True))
            rows.append([order, label, *(f"{100 * told[task]:.1f}" for task in joint)])
    return Table(f"Stages of {method}", ("order", "after", *joint), rows)


def draw_figures(chains: Chains, path: Path) -> None:
    """A group of bars a figure, a bar a method with its interval, a dot an order."""
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(chains)
    for index, method in enumerate(chains):
        for place, name in enumerate(PICTURED):
            there = place + (index - (len(chains) - 1) / 2) * width
            _bar(axes, there, width, (values(chains, method, name), f"C{index}"))
        axes.bar(0, 0, width, color=f"C{index}", label=method)
    axes.axhline(0, color="#66727f", lw=0.8)
    axes.set_xticks(range(len(PICTURED)), PICTURED)
    axes.set_ylabel("points")
    figure.legend(loc="outside lower center", frameon=False, fontsize=8, ncols=len(chains))
    axes.spines[["top", "right"]].set_visible(False)
    save_png(figure, path, dpi=160)


def _bar(axes: Axes, there: float, width: float, told: tuple[Sequence[float], str]) -> None:
    numbers, color = told
    mean, low, high = over_seeds(numbers)
    axes.bar(there, 100 * mean, width, color=color)
    axes.plot([there] * len(numbers), [100 * one for one in numbers], ".", color="#1f2933", ms=3)
    if np.isfinite([low, high]).all():
        axes.plot([there, there], [100 * low, 100 * high], color="#1f2933", lw=0.8)


def draw_stages(chains: Chains, joint: Mapping[str, float], path: Path) -> None:
    """A panel a method, a line for the task of each stage: the mean over orders after every one."""
    figure = Figure(figsize=(2 * len(chains), 3), layout="constrained")
    panels = figure.subplots(1, len(chains), sharey=True, squeeze=False)[0]
    for axes, (method, orders) in zip(panels, chains.items(), strict=True):
        mean = 100 * np.mean([stages(results).scores for results in orders.values()], axis=0)
        for place, line in enumerate(mean.T):
            axes.plot(line, "-o", ms=3, color=f"C{place}", label=f"task of stage {place + 1}")
            axes.plot(place + 1, line[place + 1], "o", ms=7, mfc="none", color=f"C{place}")
        axes.axhline(100 * np.mean(list(joint.values())), color="#66727f", lw=0.8, ls=":")
        axes.set_title(method, fontsize=9)
        axes.set_xticks(range(len(mean)))
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("score, points")
    figure.supxlabel("after stage (0: the base); dotted: the mean of all at once", fontsize=8)
    labels = panels[0].get_legend_handles_labels()
    figure.legend(*labels, loc="outside upper center", frameon=False, fontsize=8, ncols=len(mean))
    save_png(figure, path, dpi=160)


if __name__ == "__main__":
    main()
