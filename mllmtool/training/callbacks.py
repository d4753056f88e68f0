"""What happens between steps: progress is shown, a probe run, a run that forgets stopped."""

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations import TensorBoardCallback

from mllmtool.configs.finetune import Probe
from mllmtool.context import Context, is_main_process
from mllmtool.errors import ConfigError
from mllmtool.training.keeping import evaluating

log = logging.getLogger(__name__)
Measure = Callable[[nn.Module], dict[str, Any]]  # a model's scores, with `original` among them


def tensorboard(folder: Path) -> TrainerCallback:
    """What writes every logged figure as TensorBoard's events.

    Raises:
        ConfigError: the package is missing.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ConfigError(
            "--tensorboard: needs a package; pip install 'mllmtool[tensorboard]'"
        ) from error
    return TensorBoardCallback(SummaryWriter(str(folder)))


class Owner(Protocol):
    """What the prober needs of the trainer."""

    model: nn.Module

    def compute_loss_context_manager(self) -> AbstractContextManager[Any]:
        """Autocast, if the run has it."""

    def summed(self, mine: Tensor) -> Tensor:
        """A tensor's sum over all processes."""


class Prober(TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
    """Evaluates at step 0, every so many steps and at the end; stops a run that forgets.

    `points` is the curve; `forgetting` in it is the loss since step 0 of the mean score over the
    quadrants' original tasks.
    """

    def __init__(
        self, owner: Owner, probe: Probe | None, measure: Measure | None, context: Context
    ) -> None:
        self.points: list[dict[str, Any]] = []
        self.stopped_at: int | None = None
        self._owner, self._probe = owner, probe
        self._measure, self._context = measure, context

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """The base's own scores."""
        if self._probe and state.global_step == 0:
            self._visit(0, control)
        del args

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Evaluate when it is time."""
        step, every = state.global_step, self._probe and self._probe.every
        if self._probe and (step == state.max_steps or (every and step % every == 0)):
            self._visit(step, control)
        del args

    def _visit(self, step: int, control: TrainerControl) -> None:
        forgetting = torch.zeros(1, dtype=torch.float64)
        if is_main_process() and self._measure:
            point = self._evaluated(self._measure)
            before = self.points[0]["original"] if self.points else point["original"]
            point["forgetting"] = None if before is None else before - point["original"]
            self.points.append({"step": step, **point})
            forgetting += point["forgetting"] or 0.0
        lost = self._owner.summed(forgetting).item()
        ceiling = self._probe.ceiling if self._probe else None
        log.info("step %d: forgetting %.3f", step, lost)
        if ceiling is not None and lost > ceiling:
            self._context.warn(f"stopped at step {step}: forgetting {lost:.3f} is over {ceiling:g}")
            self.stopped_at, control.should_training_stop = step, True

    def _evaluated(self, measure: Measure) -> dict[str, Any]:
        with evaluating(self._owner.model), self._owner.compute_loss_context_manager():
            return measure(self._owner.model)


class Progress(TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
    """Shows how far it is, and sees that the last step is logged."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._ticks: Iterator[int] = iter(())

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Start the line at the step that a state left off at."""
        del args, control
        ahead = range(state.global_step, state.max_steps)
        self._ticks = self._context.track(ahead, "training steps", total=len(ahead))
        next(self._ticks, None)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """One step on."""
        del args
        next(self._ticks, None)
        if state.global_step == state.max_steps or control.should_training_stop:
            control.should_log = True
