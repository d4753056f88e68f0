"""The moments of a job, step by step."""

import os
from collections.abc import Generator
from functools import partial
from pathlib import Path

import torch

from mllmtool.configs.tailor import TailorConfig
from mllmtool.errors import ConfigError
from mllmtool.models.encoding import Encoder
from mllmtool.models.skeleton import Skeleton
from mllmtool.tailoring.calibration import batches
from mllmtool.tailoring.job import Job, Task
from mllmtool.tailoring.learning import Learned, learn
from mllmtool.tailoring.presets import treatment_of
from mllmtool.tailoring.stream import Place, Step, Stream, steps


def learn_tasks(config: TailorConfig, job: Job) -> list[Learned]:
    """What becomes of each tuned tensor of each task."""
    dtype = getattr(torch, config.dtype)
    return [
        learn(Skeleton(task.checkpoint, dtype), task.tuned, partial(treatment_of, config))
        for task in job.tasks
    ]


def gather(config: TailorConfig, job: Job, learned: list[Learned]) -> Generator[Step]:
    """Run the tuned models on their samples, unit by unit.

    Raises:
        ConfigError: the device is not there, or activations cannot be kept where they should.
        DataError: a sample is wrong.
        NumericError: a weight or an activation is NaN or Inf.
    """
    place = place_of(config)
    streams = []
    for task, each in zip(job.tasks, learned, strict=True):
        streams.append(_stream(config, job, task, each, place))
    yield from steps(streams, follow=config.inputs == "tailored")


def place_of(config: TailorConfig) -> Place:
    """Where the config says to compute.

    Raises:
        ConfigError: there is no such device, or no such folder.
    """
    device = config.device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise ConfigError(f"--device: {device} is not to be had here: {reason}") from error
    folder = Path(config.cache_dir) if config.cache_dir else None
    if folder is not None and not (folder.is_dir() and os.access(folder, os.W_OK)):
        raise ConfigError(f"--cache-dir: {folder} is no folder that can be written to")
    return Place(device, folder)


def _stream(config: TailorConfig, job: Job, task: Task, learned: Learned, place: Place) -> Stream:
    encoder = Encoder.load(task.checkpoint.path)
    samples = [
        () if data is None else batches(encoder, data.samples, data.file.root, config.batch)
        for data in (task.data, job.anchor)
    ]
    return Stream(learned, job.pre, samples, place)
