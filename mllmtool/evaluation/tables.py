"""The results as Markdown, and the notes that say how every figure was reckoned."""

from collections.abc import Iterator, Sequence

from mllmtool.evaluation.results import Delta, Results
from mllmtool.evaluation.scoring import QUADRANTS
from mllmtool.evaluation.wording import SYMBOLS, percent, points, quadrant, signed, span
from mllmtool.metrics.scores import METRICS


def markdown(results: Results, title: str) -> str:
    """The whole report as Markdown."""
    lines = [f"# {title}", "", *_findings(results)]
    if results.others:
        lines += ["## The 2x2 matrix against the base", "", *_matrix(results)]
    lines += ["## Original and new tasks", "", *_balance(results)]
    lines += ["## Tasks", "", *_tasks(results)]
    lines += ["## Notes", "", *(f"- {note}" for note in notes(results))]
    return "\n".join(lines) + "\n"


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
        " it is the exact interval of Clopper and Pearson. Intervals of scores are Wilson's."
    )
    yield (
        "p is McNemar's mid-p on the items lost (1→0) and gained (0→1), 2·P(X ≤ min) − P(X = min),"
        " X ~ Bin(lost + gained, ½); p (Holm) is adjusted for every cell of the report."
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
    yield (
        "Agreement: share of items whose response chooses the likeliest option. Where the delta by"
        " likelihood is small and the delta is not, the answer format was forgotten rather than the"
        " knowledge."
    )


def _findings(results: Results) -> Iterator[str]:
    for place, finding in enumerate(results.findings):
        yield from ("- " + finding.text + ".",) if place else (f"**{finding.text}.**", "")
    if results.findings[1:]:
        yield ""


def _matrix(results: Results) -> Iterator[str]:
    names = [cell.name for cell in QUADRANTS if cell.name in results.matrix(results.base.label)]
    yield from _head("checkpoint", [quadrant(name) for name in names])
    base = results.matrix(results.base.label)
    yield _row(results.base.label, [percent(base[name].mean) for name in names])
    for row in results.others:
        cells = results.matrix(row.label)
        yield _row(row.label, [_delta(cells[name]) for name in names])
    yield ""


def _balance(results: Results) -> Iterator[str]:
    columns = ["original", "new", "gain", "mean delta", "worst delta", "H-score", "retention"]
    yield from _head("checkpoint", columns)
    for row in results.original_new:
        shares = [percent(row.original), percent(row.new)]
        deltas = [points(row.gain), points(row.mean_delta), points(row.worst_delta)]
        yield _row(row.checkpoint, [*shares, *deltas, percent(row.h_score), percent(row.retention)])
    yield ""


def _tasks(results: Results) -> Iterator[str]:
    names = [row.label for row in results.others]
    yield from _head("task", ["quadrant", "role", "n", "base", *names])
    for task in results.tasks:
        base = results.cell(results.base.label, task.name).metrics[task.primary]
        deltas = [_delta(results.cell(name, task.name).vs_base) for name in names]
        about = [quadrant(task.quadrant.name), task.role, str(task.n), percent(base.value)]
        yield _row(task.name, [*about, *deltas])
    yield ""


def _delta(delta: Delta | None) -> str:
    if delta is None:
        return "–"
    return f"{SYMBOLS[delta.verdict]} {signed(delta.delta)} {span(delta.ci)}"


def _head(first: str, columns: Sequence[str]) -> Iterator[str]:
    yield _row(first, columns)
    yield "|---|" + "---:|" * len(columns)


def _row(first: str, values: Sequence[str]) -> str:
    return f"| {first} | {' | '.join(values)} |"
