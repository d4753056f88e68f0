"""`eval-matrix best`: the checkpoint to ship, and why."""

from mllmtool.configs.eval_matrix import EvalBestConfig
from mllmtool.evaluation.evaluations import Evaluation
from mllmtool.evaluation.shipping import best


def show(config: EvalBestConfig) -> str:
    """The label on a line of its own, then the reasons."""
    chosen = best(Evaluation.open(config.evals).results, config.loss)
    return "\n".join([chosen.label, *chosen.reasons]) + "\n"
