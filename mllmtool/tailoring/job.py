"""What `tailor` reads, checked before any model is loaded."""

from dataclasses import dataclass
from pathlib import Path

import torch

from mllmtool.checkpoints import Checkpoint, check_aligned
from mllmtool.checkpoints.adapter import AdaptedCheckpoint, open_tuned
from mllmtool.configs.tailor import TailorConfig
from mllmtool.context import Context
from mllmtool.errors import ConfigError, MismatchError
from mllmtool.models.parts import part_of
from mllmtool.tailoring.calibration import Data, given_samples, report_of, training_samples
from mllmtool.tailoring.presets import block_of
from mllmtool.tailoring.store import MomentsReader
from mllmtool.tailoring.vocabulary import with_added_rows


@dataclass(frozen=True)
class Task:
    """A tuned checkpoint, the names of the tensors that differ in it, its calibration samples.

    There are none where moments were recorded before. `held_out`: of the same file, for errors.
    """

    checkpoint: Checkpoint
    tuned: frozenset[str]
    data: Data | None
    held_out: Data | None = None


@dataclass(frozen=True)
class Job:
    """The base, the tuned checkpoints, and the samples of the old tasks.

    The base has the vocabulary rows of a tuned checkpoint that adds tokens.
    """

    pre: Checkpoint
    tasks: list[Task]
    anchor: Data | None

    @property
    def tuned(self) -> frozenset[str]:
        """Every tensor that some task changed."""
        return frozenset().union(*(task.tuned for task in self.tasks))


def open_job(config: TailorConfig, context: Context) -> Job:
    """Open everything that the config names; reads every tensor once.

    Raises:
        ConfigError: there are no calibration samples, or no such blocks.
        InputError: a checkpoint or a sample file is wrong, or a tuned checkpoint equals the base.
    """
    if config.moments is not None:
        MomentsReader.open(config.moments)
    pre = Checkpoint.open(config.pre)
    tuned = [open_tuned(path, pre) for path in config.sft]
    for sft in tuned:
        if sft.path.samefile(pre.path):
            raise MismatchError(f"{sft.path}: is both --pre and --sft; nothing to tailor")
    pre = _with_vocabulary(config, pre, tuned)
    check_aligned(pre, tuned)
    _check_blocks(config, pre)
    data = [_calibration(config, context, place) for place in range(len(tuned))]
    anchor = None
    if config.anchor:
        file = given_samples(config.anchor, config.images)
        anchor = Data(file, file.draw(config.num_samples, context.rng("anchor")))
    tasks = [
        Task(sft, _changed(pre, sft), drawn, drawn and _beside(config, context, drawn))
        for sft, drawn in zip(tuned, data, strict=True)
    ]
    return Job(pre, tasks, anchor)


def needs_no_samples(config: TailorConfig) -> bool:
    """Whether salience alone decides what is kept: no decoration, and no samples are named."""
    named = config.calibration or config.anchor or config.save_moments or config.moments
    reports = [report_of(Path(path)) for path in config.sft]
    return config.solver == "none" and not named and not any(reports)


def _with_vocabulary(config: TailorConfig, pre: Checkpoint, tuned: list[Checkpoint]) -> Checkpoint:
    """The base, with the vocabulary rows that one tuned checkpoint adds."""
    grown = [each for each in (with_added_rows(pre, sft) for sft in tuned) if each is not pre]
    if not grown:
        return pre
    if len(tuned) > 1:
        raise MismatchError(
            f"{grown[0].folder}: adds tokens to {pre.path}; tailor it alone, as several --sft must"
            " have one vocabulary"
        )
    if config.format == "patch" or config.sweep:
        flag = "--sweep" if config.sweep else "--format patch"
        raise ConfigError(
            f"{flag}: a patch cannot hold the tokens that {grown[0].folder} adds; write a"
            " checkpoint"
        )
    return grown[0]


def _check_blocks(config: TailorConfig, pre: Checkpoint) -> None:
    for part, numbers in config.block_numbers.items():
        blocks = [block for n in pre.names if (block := block_of(n)) and part_of(n) == part]
        there = {number for _, number in blocks}
        if not numbers <= there:
            raise ConfigError(
                f"--blocks: {pre.path} has {len(there)} blocks in its {part} part, and"
                f" {min(numbers - there)} is asked for; they count from 0"
            )


def _calibration(config: TailorConfig, context: Context, place: int) -> Data | None:
    if config.moments or needs_no_samples(config):
        return None
    if config.calibration:
        file = given_samples(config.calibration[place], config.images)
    else:
        file = training_samples(Path(config.sft[place]), config.images)
    return Data(file, file.draw(config.num_samples, context.rng(f"calibration/{place}")))


def _beside(config: TailorConfig, context: Context, data: Data) -> Data | None:
    rng = context.rng(f"held-out/{data.file.path.name}")
    samples = data.file.draw_beside(data.samples, config.held_out, rng) if config.held_out else []
    return Data(data.file, samples) if samples else None


def _changed(pre: Checkpoint, sft: Checkpoint) -> frozenset[str]:
    names = sft.adapted if isinstance(sft, AdaptedCheckpoint) else pre.names
    changed = frozenset(name for name in names if not torch.equal(pre[name], sft[name]))
    if not changed:
        raise MismatchError(f"{sft.path}: equals {pre.path} in every tensor; nothing to tailor")
    return changed
