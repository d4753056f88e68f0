"""`eval-matrix check`: a suite before it is run."""

import json

from mllmtool.configs.eval_matrix import EvalCheckConfig
from mllmtool.data.suites import read_suite
from mllmtool.evaluation.suite_checks import check_apart, check_images, problems, tasks_of


def show(config: EvalCheckConfig) -> str:
    """Tasks and problems, as JSON; what makes the suite unusable is an error."""
    suite = read_suite(config.suite)
    tasks = tasks_of(suite)
    check_images(suite)
    check_apart(suite, config.samples)
    found = list(problems(suite, config.margin or suite.file.margin))
    shown = {"items": suite.num_items, "tasks": tasks, "problems": found}
    return json.dumps(shown, indent=1, ensure_ascii=False) + "\n"
