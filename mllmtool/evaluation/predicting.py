"""Predictions of checkpoints on a suite, by one process or several; what needs a model."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from mllmtool.configs.eval_matrix import EvalMatrixConfig
from mllmtool.context import Context
from mllmtool.data.suites import Suite
from mllmtool.errors import ConfigError, OutputError
from mllmtool.evaluation import runs
from mllmtool.evaluation.evaluations import read_limited
from mllmtool.evaluation.labelled import Labelled, open_labelled
from mllmtool.evaluation.parallel import helpers
from mllmtool.evaluation.predictions import predictions_path, write_predictions
from mllmtool.evaluation.store import Store, opened, wait_for
from mllmtool.models.devices import chosen_device


def predict(
    config: EvalMatrixConfig,
    context: Context,
    what: tuple[Suite, Sequence[Labelled]],
    into: Path,
) -> dict[str, Any]:
    """Write predictions, and return what may differ in another run of the same.

    They are kept as they are made, so that a killed run goes on from them.
    """
    suite, checkpoints = what
    helping = helpers(config.workers - 1, assist, config, context)
    with opened(_kept(config, context)) as store, helping:
        for task in suite.tasks:
            _ = task.image_digests  # what is missing is told before any work
        settings = _settings(config, store)
        for label, predictions in runs.run(checkpoints, suite.tasks, settings, context):
            for task in suite.tasks:
                write_predictions(predictions_path(into, label, task), predictions[task.name])
    return {
        "torch": torch.__version__,
        "device": str(chosen_device(config.device)),
        "workers": config.workers,
        "batch": [config.batch, *settings.halved][-1],
        "threads": torch.get_num_threads(),
    }


def assist(config: EvalMatrixConfig, context: Context) -> None:
    """Help the main process as long as it is at work."""
    folder = _kept(config, context)
    if not wait_for(folder):
        return
    suite = read_limited(config, context)
    checkpoints = open_labelled(config.base or "", config.checkpoint)
    settings = replace(context, quiet=True)
    try:
        with closing(Store(folder)) as store:
            runs.assist(checkpoints, suite.tasks, _settings(config, store), settings)
    except (OSError, OutputError):
        if folder.is_dir():
            raise


def _kept(config: EvalMatrixConfig, context: Context) -> Path:
    """Where predictions are kept until the output is whole, or for later runs."""
    if config.cache is not None:
        return Path(config.cache)
    if context.work is None:
        raise ConfigError("--cache: is required where there is no output")
    return context.work / "predictions"


def _settings(config: EvalMatrixConfig, store: Store) -> runs.Settings:
    return runs.Settings(
        store=store,
        batch=config.batch,
        device=chosen_device(config.device),
        dtype=getattr(torch, config.dtype),
    )
