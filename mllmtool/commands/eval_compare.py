"""`eval-matrix compare`: any two checkpoints of an evaluation, from their predictions."""

from mllmtool.configs.eval_matrix import EvalCompareConfig
from mllmtool.context import Context
from mllmtool.errors import ConfigError, some
from mllmtool.evaluation.comparing import compare, table
from mllmtool.evaluation.evaluations import Evaluation, read_tasks, settings_of


def show(config: EvalCompareConfig) -> str:
    """A table of tasks, or the results as JSON."""
    evaluation = Evaluation.open(config.evals)
    suite = evaluation.suite(config.suite)
    known = [task.name for task in suite.tasks]
    for name in config.task:
        if name not in known:
            raise ConfigError(f"--task: {name} is not among the tasks {some(known)}")
    suite = suite.of(t for t in suite.tasks if t.name in (config.task or known))
    results = evaluation.results
    labels = [row.label for row in results.checkpoints if row.label in (config.a, config.b)]
    resamples, margin = config.bootstrap, config.margin or results.margin
    settings = settings_of(suite, margin, resamples, Context(seed=evaluation.report.seed))
    tasks = read_tasks(suite, labels, evaluation.folder)
    compared = compare(results, tasks, (config.a, config.b), settings)
    return compared.model_dump_json(indent=1) + "\n" if config.json_output else table(compared)
