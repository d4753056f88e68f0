"""The metrics of a task: their rows, what is resampled of them, and the scores of a cell."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from mllmtool.data.task_types import MetricName
from mllmtool.evaluation.results import Score
from mllmtool.metrics.scores import METRICS, Answered, Rows
from mllmtool.metrics.statistics import Array, Interval, clustered_se, resampled, wilson


def metric_rows(
    names: Sequence[MetricName], answered: Sequence[Answered]
) -> dict[MetricName, Array]:
    """The rows of every metric that some item is of the kind for; made once where shared."""
    made: dict[Rows, Array] = {}
    found = {}
    for name in names:
        metric = METRICS[name]
        if metric.rows not in made:
            made[metric.rows] = metric.rows(answered)
        if metric.of_rows(made[metric.rows]) is not None:
            found[name] = made[metric.rows]
    return found


def drawn_values(
    rows: Mapping[str, Mapping[MetricName, Array]],
    clusters: Sequence[str],
    stream_seed: Callable[[str], int],
    resamples: int,
) -> dict[tuple[str, MetricName], Array]:
    """Resampled values, by checkpoint and metric, of what does not score 0 or 1."""
    kept = {
        (label, name): part
        for label, parts in rows.items()
        for name, part in parts.items()
        if not METRICS[name].binary
    }
    if not kept:
        return {}
    top, bottom = resampled(np.hstack(list(kept.values())), clusters, stream_seed, resamples)
    ends = np.cumsum([part.shape[1] for part in kept.values()])
    pieces = np.split(top, ends[:-1], axis=1)
    with np.errstate(invalid="ignore"):
        return {
            (label, name): METRICS[name].value(piece, bottom)
            for (label, name), piece in zip(kept, pieces, strict=True)
        }


def metric_score(
    name: MetricName, rows: Array, clusters: Sequence[str], drawn: Array | None
) -> Score:
    """The value with its interval: Wilson's where nothing was drawn."""
    metric = METRICS[name]
    value = metric.of_rows(rows) or 0.0
    spread = clustered_se(rows[:, 0], clusters) if metric.is_mean else None
    if drawn is None:
        return Score(value=value, ci=wilson(float(rows.sum()), len(rows)), se_clustered=spread)
    low, high = np.nanquantile(drawn, (0.025, 0.975))
    return Score(
        value=value,
        ci=Interval(float(low), float(high)),
        ci_method="cluster_bayesian_bootstrap",
        se_clustered=spread,
        scale=metric.scale,
    )
