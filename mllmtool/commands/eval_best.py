"""`eval-matrix best`: the checkpoint to ship, and why."""

from mllmtool.configs.eval_matrix import EvalBestConfig, as_share
from mllmtool.evaluation.evaluations import Evaluation
from mllmtool.evaluation.shipping import best


def show(config: EvalBestConfig) -> str:
    """The label on a line of its own, then the reasons."""
    chosen = best(Evaluation.open(config.evals).results, as_share(config.max_loss))
    return "\n".join([chosen.label, *chosen.reasons]) + "\n"
