"""`eval-matrix best`: the checkpoint to ship, and why."""

from mllmtool.configs.eval_matrix import EvalBestConfig
from mllmtool.evaluation.evaluations import read_results
from mllmtool.evaluation.shipping import best


def show(config: EvalBestConfig) -> str:
    """The label on a line of its own, then the reasons."""
    chosen = best(read_results(config.evals), config.loss)
    return "\n".join([chosen.label, *chosen.reasons]) + "\n"
