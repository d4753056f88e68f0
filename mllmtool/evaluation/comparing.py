"""Any two checkpoints of an evaluation against each other, task by task."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from mllmtool.errors import ConfigError, some
from mllmtool.evaluation.results import Comparison, Results
from mllmtool.evaluation.scoring import Settings, TaskAnswers, score
from mllmtool.evaluation.wording import SYMBOLS, listed, percent, points, signed, span

COLUMNS = ("n", "A", "B", "delta, pp", "95 %", "lost", "gained", "p", "p (Holm)", "detectable")


def compare(
    results: Results, tasks: Sequence[TaskAnswers], pair: tuple[str, str], settings: Settings
) -> Results:
    """The results of the second checkpoint with the first in the place of the base.

    Raises:
        ConfigError: there is no such checkpoint, or it is the same one.
    """
    if pair[0] == pair[1]:
        raise ConfigError(f"compare: {pair[0]} is named twice; name two checkpoints")
    rows = {row.label: row for row in results.checkpoints}
    for label in pair:
        if label not in rows:
            raise ConfigError(f"compare: {label} is not among the checkpoints {some(list(rows))}")
    first, second = (rows[label] for label in pair)
    same = first.fingerprint == second.fingerprint or (first.same_as_base and second.same_as_base)
    chosen = [first, second.model_copy(update={"same_as_base": same})]
    answered = [
        replace(one, answers={label: one.answers[label] for label in pair}) for one in tasks
    ]
    return score(chosen, answered, settings)


def table(results: Results) -> str:
    """Every task as a row of Markdown, and what the verdicts mean."""
    base, other = (row.label for row in results.checkpoints)
    margin = points(results.margin).removeprefix("+")
    lines = [
        f"A is {base}, B is {other}; kept: a loss of B beyond {margin} is ruled out.",
        "",
        f"| task | {' | '.join(COLUMNS)} |",
        "|---|" + "---:|" * len(COLUMNS),
        *_rows(results, base, other),
        "",
        *_summary(results),
    ]
    return "\n".join(lines) + "\n"


def _rows(results: Results, base: str, other: str) -> Iterator[str]:
    for task in results.tasks:
        compared = results.cell(other, task.name).vs_base
        values = [results.cell(label, task.name).metrics[task.primary] for label in (base, other)]
        if compared is not None:
            shown = [str(task.n), *(percent(value.value) for value in values), *_shown(compared)]
            yield f"| {task.name} | {' | '.join(shown)} |"


def _shown(compared: Comparison) -> list[str]:
    return [
        f"{SYMBOLS[compared.verdict]} {signed(compared.delta)}",
        span(compared.ci),
        str(compared.lost),
        str(compared.gained),
        f"{compared.p:.2g}",
        f"{compared.p_holm:.2g}",
        points(compared.detectable),
    ]


def _summary(results: Results) -> Iterator[str]:
    cells = [cell for cell in results.cells if cell.vs_base]
    for verdict in ("kept", "forgot", "undecided"):
        names = [cell.task for cell in cells if cell.vs_base and cell.vs_base.verdict == verdict]
        if names:
            yield f"{SYMBOLS[verdict]} {verdict}: {listed(names)}"
