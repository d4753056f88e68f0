"""The moments of a job, step by step."""

import os
from collections.abc import Generator, Sequence
from functools import partial
from pathlib import Path

import torch

from mllmtool.configs.tailor import TailorConfig
from mllmtool.context import is_main_process
from mllmtool.errors import ConfigError, MismatchError
from mllmtool.models.devices import chosen_device
from mllmtool.models.encoding import Encoder
from mllmtool.models.skeleton import Skeleton
from mllmtool.reports import Artifact
from mllmtool.tailoring.calibration import batches
from mllmtool.tailoring.job import Job, Task, needs_no_samples
from mllmtool.tailoring.kept import Kept
from mllmtool.tailoring.learning import Learned, Map, learn
from mllmtool.tailoring.moments import Moment
from mllmtool.tailoring.presets import treatment_of
from mllmtool.tailoring.store import MomentsReader, MomentsWriter, leads_in, restrict
from mllmtool.tailoring.stream import Place, Step, Stream, steps


def learn_tasks(config: TailorConfig, job: Job) -> list[Learned]:
    """What becomes of each tuned tensor of each task."""
    dtype = getattr(torch, config.dtype)
    return [
        learn(Skeleton(task.checkpoint, dtype), task.tuned, partial(treatment_of, config))
        for task in job.tasks
    ]


def gather(
    config: TailorConfig, work: tuple[Job, list[Learned], Kept], inputs: Sequence[Artifact]
) -> Generator[Step]:
    """Run the tuned models on their samples, unit by unit; or read what such a run saved.

    Moments of steps that are `kept` are not recorded again.

    Raises:
        CheckpointError: saved moments cannot be read.
        ConfigError: the device is not there, or activations cannot be kept where they should.
        DataError: a sample is wrong.
        MismatchError: saved moments are of other models.
        NumericError: a weight or an activation is NaN or Inf.
        OutputError: moments cannot be saved where they should.
    """
    job, learned, kept = work
    if config.moments is not None:
        return _read(config, Path(config.moments), learned, inputs)
    if config.save_moments is not None:
        return _save(config, work, inputs)
    if needs_no_samples(config):
        return _alike(learned)
    return steps(_streams(config, job, learned), follow=config.follows, known=kept.leads)


def place_of(config: TailorConfig) -> Place:
    """Where the config says to compute.

    Raises:
        ConfigError: there is no such device, or no such folder.
    """
    device = chosen_device(config.device)
    folder = Path(config.cache_dir) if config.cache_dir else None
    if folder is not None and not (folder.is_dir() and os.access(folder, os.W_OK)):
        raise ConfigError(f"--cache-dir: {folder} is no folder that can be written to")
    return Place(device, folder)


def _read(
    config: TailorConfig, path: Path, learned: list[Learned], inputs: Sequence[Artifact]
) -> Generator[Step]:
    saved = MomentsReader.open(path)
    if config.named_preset == "anchored" and not saved.index.anchored:
        raise MismatchError(f"{path}: holds no moments of anchors; record them with --anchor")
    saved.check([each for each in inputs if each.role == "sft"], learned)
    for maps in saved.maps(learned):
        yield Step(maps)


def _alike(learned: list[Learned]) -> Generator[Step]:
    """Moments by which all entries weigh the same, so that the largest changes are kept."""
    one, nothing = (Moment(torch.full((1, 1), n), tokens=n) for n in (1.0, 0.0))
    yield Step(
        [
            {s.names[0]: Map(s.names, s.uses[0].part, s.has_rows, one, nothing) for s in each.sites}
            for each in learned
        ]
    )


def _save(
    config: TailorConfig, work: tuple[Job, list[Learned], Kept], inputs: Sequence[Artifact]
) -> Generator[Step]:
    """Save the moments of all tuned tensors, and hand on those that are to tailor."""
    job, learned, kept = work
    path = Path(str(config.save_moments))
    writer = MomentsWriter(path, kept.states) if is_main_process() else None
    pairs = zip(job.tasks, learned, strict=True)
    whole = [learn(each.skeleton, task.tuned, lambda *_: "tailor") for task, each in pairs]
    known = [leads_in(state) for state in kept.states]
    try:
        passes = steps(_streams(config, job, whole), follow=False, known=known)
        for number, step in enumerate(passes):
            if writer and number >= len(kept.states):
                writer.add(kept.begun(number), step.maps)
            yield Step(restrict(step.maps, learned))
        samples = [each for each in inputs if each.role in ("calibration", "anchor")]
        models = [each.sha256 for each in inputs if each.role == "sft"]
        if writer:
            writer.finish(models, samples, anchored=job.anchor is not None)
    finally:
        if writer:
            writer.discard()


def _streams(config: TailorConfig, job: Job, learned: list[Learned]) -> list[Stream]:
    place = place_of(config)
    return [
        _stream(config, job, task, each, place)
        for task, each in zip(job.tasks, learned, strict=True)
    ]


def _stream(config: TailorConfig, job: Job, task: Task, learned: Learned, place: Place) -> Stream:
    encoder = Encoder.load(task.checkpoint.folder)
    text = learned.skeleton.model.config.get_text_config()
    positions = getattr(text, "max_position_embeddings", None)
    samples = [
        () if data is None else batches(encoder, data, config.batch, positions)
        for data in (task.data, job.anchor, task.held_out)
    ]
    return Stream(learned, job.pre, samples, place)
