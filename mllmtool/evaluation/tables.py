"""The results as tables in Markdown and LaTeX, and the notes that say how figures were reckoned."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mllmtool.evaluation.results import Delta, Results
from mllmtool.evaluation.scoring import QUADRANTS
from mllmtool.evaluation.wording import SYMBOLS, percent, points, quadrant, signed, span
from mllmtool.metrics.scores import METRICS

SPECIAL = {
    **{mark: rf"\{mark}" for mark in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "−": "$-$",
    "–": "--",
    "·": r"$\cdot$",
    "✓": r"$\checkmark$",
    "✗": r"$\times$",
}


@dataclass(frozen=True)
class Table:
    """Cells of text; the first column is to the left, the others to the right."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


def markdown(results: Results, title: str) -> str:
    """The whole report as Markdown."""
    lines = [f"# {title}", "", *_findings(results)]
    for table in tables(results):
        lines += [f"## {table.title}", "", _line(table.columns), _rule(table)]
        lines += [*map(_line, table.rows), ""]
    lines += ["## Notes", "", *(f"- {note}" for note in notes(results))]
    return "\n".join(lines) + "\n"


def latex(results: Results) -> str:
    """The tables as LaTeX, each a `tabular` with its title above; needs amssymb."""
    return "\n".join(_tabular(table) for table in tables(results))


def tables(results: Results) -> list[Table]:
    """The tables that the results have figures for."""
    found = [_balance(results), _tasks(results)]
    if results.others:
        found.insert(0, _matrix(results))
    return found + list(_stages(results))


def notes(results: Results) -> Iterator[str]:
    """How the figures were reckoned, in one sentence each."""
    margin = points(results.margin).removeprefix("+")
    yield (
        "A delta is the checkpoint's score minus the base's on the same items, in percentage points"
        " (pp); a quadrant's is the unweighted mean over its tasks (macro)."
    )
    yield (
        f"Verdicts are of non-inferiority at a margin of {margin}: {SYMBOLS['kept']} kept, the"
        f" lower one-sided 95 % bound of the delta is above −{margin}; {SYMBOLS['forgot']} forgot,"
        f" the upper is below it; {SYMBOLS['undecided']} undecided, neither. No significant loss is"
        " not the same as kept. A copy of the base is kept."
    )
    yield (
        f"Intervals in brackets are two-sided, 95 %, from {results.resamples} paired resamples by"
        " image (Bayesian bootstrap, Rubin 1981): d* = (Σ w·d ∓ w′·m) / (Σ w·n + w′·m), w and w′"
        " exponential, and one unseen image of the mean size m lost (lower end) or gained (upper"
        " end), so that no change among few items does not pass for certainty; for losses alone"
        " it is the exact interval of Clopper and Pearson. Intervals of scores are Wilson's, or of"
        " the resamples where items do not score 0 or 1."
    )
    yield (
        "p is McNemar's mid-p on the items lost (1→0) and gained (0→1), 2·P(X ≤ min) − P(X = min),"
        " X ~ Bin(lost + gained, ½), and where items do not score 0 or 1 that of flipping the signs"
        " of the images' differences; p (Holm) is adjusted for every cell of the report."
    )
    yield (
        "The detectable difference, (1.96 + 0.84)·√(share of items that changed / n), is the"
        " smallest |delta| that would be found at 80 % power."
    )
    yield (
        "H-score is 2·O·N/(O + N) of the mean scores of original (O) and new tasks (N); retention"
        " is the mean over original tasks of score / score of the base."
    )
    for name in dict.fromkeys(name for cell in results.cells for name in cell.metrics):
        yield f"{name}: {METRICS[name].sentence}."
    if any(cell.agreement is not None for cell in results.cells):
        yield (
            "Agreement: share of items whose response chooses the likeliest option. Where the delta"
            " by likelihood is small and the delta is not, the answer format was forgotten rather"
            " than the knowledge."
        )
    if results.stages is not None:
        yield (
            "A[i][j] is the score on task j after stage i of T, row 0 the base's: "
            + "; ".join(f"{one.name} = {one.formula}" for one in results.stages.figures)
            + "."
        )


def _findings(results: Results) -> Iterator[str]:
    for place, finding in enumerate(results.findings):
        yield from ("- " + finding.text + ".",) if place else (f"**{finding.text}.**", "")
    if results.findings[1:]:
        yield ""


def _matrix(results: Results) -> Table:
    base = results.matrix(results.base.label)
    names = [cell.name for cell in QUADRANTS if cell.name in base]
    rows = [[results.base.label, *(percent(base[name].mean) for name in names)]]
    for row in results.others:
        cells = results.matrix(row.label)
        rows.append([row.label, *(_delta(cells[name]) for name in names)])
    title = "The 2x2 matrix against the base"
    return Table(title, ["checkpoint", *(quadrant(name) for name in names)], rows)


def _balance(results: Results) -> Table:
    columns = ["original", "new", "gain", "mean delta", "worst delta", "H-score", "retention"]
    rows = [
        [
            row.checkpoint,
            *(percent(share) for share in (row.original, row.new)),
            *(points(delta) for delta in (row.gain, row.mean_delta, row.worst_delta)),
            percent(row.h_score),
            percent(row.retention),
        ]
        for row in results.original_new
    ]
    return Table("Original and new tasks", ["checkpoint", *columns], rows)


def _tasks(results: Results) -> Table:
    names = [row.label for row in results.others]
    rows = []
    for task in results.tasks:
        base = results.cell(results.base.label, task.name).metrics[task.primary]
        deltas = [_delta(results.cell(name, task.name).vs_base) for name in names]
        about = [quadrant(task.quadrant.name), task.role, str(task.n), percent(base.value)]
        rows.append([task.name, *about, *deltas])
    return Table("Tasks", ["task", "quadrant", "role", "n", "base", *names], rows)


def _stages(results: Results) -> Iterator[Table]:
    stages = results.stages
    if stages is not None:
        rows = [
            [label, *map(percent, row)]
            for label, row in zip(stages.checkpoints, stages.scores, strict=True)
        ]
        yield Table("Stages", ["after", *stages.tasks], rows)
        figures = [[one.name, points(one.value), one.formula] for one in stages.figures]
        yield Table("Figures of the stages", ["figure", "value", "formula"], figures)


def _delta(delta: Delta | None) -> str:
    if delta is None:
        return "–"
    return f"{SYMBOLS[delta.verdict]} {signed(delta.delta)} {span(delta.ci)}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _rule(table: Table) -> str:
    return "|---|" + "---:|" * (len(table.columns) - 1)


def _tabular(table: Table) -> str:
    aligned = "l" + "r" * (len(table.columns) - 1)
    rows = [" & ".join(map(_escaped, row)) + r" \\" for row in (table.columns, *table.rows)]
    body = "\n".join([rows[0], r"\hline", *rows[1:]])
    title = _escaped(table.title)
    return f"% {title}\n\\begin{{tabular}}{{{aligned}}}\n{body}\n\\end{{tabular}}\n"


def _escaped(text: str) -> str:
    return "".join(SPECIAL.get(mark, mark) for mark in text)
