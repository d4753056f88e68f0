"""A thin subclass of `transformers.Trainer` that closes its traps.

The loss is our own, so that it can be told by source and checked; a state holds what learns by its
name in memory, because Trainer's own resume of LLaVA-like models leaves the weights at the base
(huggingface/transformers#43701).
"""

import time
from collections.abc import Mapping
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import save_fsdp_optimizer
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel, PrinterCallback, Trainer, TrainerState
from transformers.trainer import SCHEDULER_NAME

from mllmtool.checkpoints.states import read_marker, write_marker
from mllmtool.configs.base import PARTS
from mllmtool.context import Context, is_main_process
from mllmtool.errors import CheckpointError, NumericError, OutputError
from mllmtool.models.loading import load_model
from mllmtool.models.parts import part_of
from mllmtool.training.arguments import arguments
from mllmtool.training.callbacks import Measure, Prober, Progress
from mllmtool.training.examples import Collator
from mllmtool.training.job import Job, frozen_dtype, load_again
from mllmtool.training.keeping import Keeper, Logits, evaluating, needs_copy, without_adapters
from mllmtool.training.losses import Ledger, learning_places, token_losses
from mllmtool.training.selection import trainable
from mllmtool.training.sharding import fill, fill_from_masters, own, whole

WEIGHTS = "trainable.safetensors"


class PartsTrainer(Trainer):  # type: ignore[misc]  # transformers is untyped here
    """Trains what the job let learn; its states lie under `states`."""

    def __init__(
        self, job: Job, context: Context, states: Path, measure: Measure | None = None
    ) -> None:
        args = arguments(job, states, context.stream_seed("dropout"))
        super().__init__(
            model=job.model,
            args=args,
            train_dataset=range(len(job.stream.order)),
            data_collator=Collator(job.stream, job.anchors, job.encoder),
        )
        self.remove_callback(PrinterCallback)  # it prints on stdout
        self.prober = Prober(self, job.config.probe, measure, context)
        self.add_callback(self.prober)
        self.add_callback(Progress(context))
        self.ledger = Ledger(job.examples.sources, args.device)
        self.keeper = _keeper(job, args.device)
        self.model_accepts_loss_kwargs = True  # so that the learnt tokens of a batch are counted
        self.loss_is_scaled_for_ga = True  # by that count, in `compute_loss`
        self._job, self._context = job, context

    def go_on(self, state: Path | None) -> None:
        """Train, from the start or from a state; not at all from one where a probe had stopped."""
        if state is None or read_marker(state)["stopped_at"] is None:
            self.train(resume_from_checkpoint=str(state) if state else None)
            return
        self._load_from_checkpoint(str(state))
        self.state = TrainerState.load_from_json(str(state / "trainer_state.json"))

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """AdamW with each part's learning rate; biases and norms do not decay."""
        if getattr(self, "optimizer", None) is None:
            learner = model or self.model
            kind, options = self.get_optimizer_cls_and_kwargs(self.args, learner)
            self.optimizer: torch.optim.Optimizer = kind(self._groups(learner), **options)
        return self.optimizer

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Mean cross-entropy over the learnt tokens of the optimizer step's whole batch.

        What `keep` asks for is added.

        Raises:
            NumericError: it is NaN or Inf.
        """
        labels, sources = inputs.pop("labels"), inputs.pop("sources")
        anchors = inputs.pop("anchors", None)
        places = learning_places(labels)
        logits = logits_at(model, inputs, places)
        targets = labels[:, places + 1]
        losses = token_losses(logits, targets)
        # every process counts the tokens of all, and DDP averages over processes
        loss = losses.sum() / num_items_in_batch * self.accelerator.num_processes
        if self.keeper:
            own = None if anchors else logits
            anchored = anchors or {**inputs, "labels": labels}
            loss = loss + self._held(self.keeper, partial(_student, model, own), anchored)
        data_parallel = self.args.world_size > 1 and not self.is_fsdp_enabled
        if data_parallel or not loss.requires_grad:
            loss = loss + self._nothing()
        if not torch.isfinite(loss):
            raise NumericError(
                f"step {self.state.global_step + 1}: the loss is {loss.item()};"
                " lower --lr, or lengthen --warmup"
            )
        self.ledger.count(inputs["attention_mask"], targets)
        # the last quarter counts, or all steps of a run that a probe stops before
        self.ledger.begin(self.state.global_step, self.state.max_steps * 3 // 4)
        self.ledger.add(sources, losses.detach(), targets)
        return (loss, {"logits": logits}) if return_outputs else loss

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:  # noqa: ARG002 (Trainer's name)
        """Not counted: it walks the whole model each step."""
        return 0

    def summed(self, mine: Tensor) -> Tensor:
        """A tensor's sum over all processes."""
        total: Tensor = self.accelerator.reduce(mine.to(self.args.device), reduction="sum")
        return total.cpu()

    def leave(self) -> PreTrainedModel:
        """Leave the group of processes; the main one goes on alone with the whole model on the CPU.

        A thread of gloo may still hold the tensor of the last reduction, and needs Python's lock to
        let go of it. The group's destructor waits for that thread with the lock in hand (torch
        2.13), so the lock must be free for a moment before.
        """
        model: PreTrainedModel = self._gathered() if self.is_fsdp_enabled else self.model
        if self.is_deepspeed_enabled:
            fill_from_masters(trainable(model).values())
        if self.args.world_size > 1:
            self.accelerator.wait_for_everyone()
            time.sleep(0.2)
        self.accelerator.unwrap_model(model, keep_fp32_wrapper=False)
        self.accelerator.end_training()
        if is_main_process():
            model.cpu()
        return model

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write what learns, and nothing else, into a state."""
        weights = {}
        for name, parameter in trainable(self.model).items():
            value = whole(parameter)
            if self.args.should_save:
                weights[name] = value.cpu().contiguous()
        if self.args.should_save:
            folder = Path(output_dir or self.args.output_dir)
            folder.mkdir(parents=True, exist_ok=True)
            save_file(weights, folder / WEIGHTS)

    def _groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """Parameters by rate and decay, as `Trainer` would have them with one rate."""
        decaying, config = set(self.get_decay_parameter_names(model)), self._job.config
        parts = [part for part in PARTS if config.how(part) != "frozen"]
        groups = [
            {
                "params": [
                    parameter
                    for name, parameter in trainable(model).items()
                    if config.rate(part_of(name)) == rate and (name in decaying) == decays
                ],
                "lr": rate,
                "weight_decay": config.weight_decay if decays else 0.0,
            }
            for rate in dict.fromkeys(config.rate(part) for part in parts)
            for decays in (True, False)
        ]
        return [group for group in groups if group["params"]]

    def _nothing(self) -> Tensor:
        """Zero, of all that a text does not use: DDP waits for every parameter's gradient."""
        learning = trainable(self.model).items()
        spared = (p for name, p in learning if part_of(name) != "language")
        return sum((0 * own(p).flatten()[:1].sum() for p in spared), torch.tensor(0.0))

    def _held(self, keeper: Keeper, student: Logits, anchors: dict[str, Any]) -> Tensor:
        """What `keep` adds to the loss of a micro-batch."""
        processes, labels = self.accelerator.num_processes, anchors.pop("labels")

        distance, divergence = keeper.distance(), keeper.divergence(anchors, labels, student)
        values = {}
        if distance is not None:
            values["l2"] = distance / self._job.length.accumulation / processes
        if divergence is not None:
            values["kl"] = divergence / self._job.config.batch
        keeper.note(self.state.global_step, values)
        held = [keeper.weights[name] * value * processes for name, value in values.items()]
        return torch.stack(held).sum()

    def _gathered(self) -> PreTrainedModel:
        """All shards as a model that the main process can run alone; the others have none."""
        made = load_again(self._job, self._context) if is_main_process() else None
        for name, parameter in self.model.named_parameters():
            value = whole(parameter)
            if made:
                fill(made.get_parameter(name), value.cpu())
        return made or self.model

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        """Trainer would write the whole model besides where it is in shards."""
        if not self.is_fsdp_enabled:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        save_fsdp_optimizer(
            self.accelerator.state.fsdp_plugin,
            self.accelerator,
            self.optimizer,
            self.model,
            output_dir,
        )
        if self.args.should_save:
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / SCHEDULER_NAME)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        state = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        try:
            super()._save_checkpoint(model, trial)
        except (OSError, RuntimeError, SafetensorError) as error:  # torch says RuntimeError
            reason = " ".join(str(error).split())
            raise OutputError(f"{state}: cannot be written: {reason}") from error
        sums = self.summed(self.ledger.sums)  # waits for every process to have written its share
        noted = self.summed(self.keeper.noted) if self.keeper else torch.zeros(0)
        if self.args.should_save:
            values: dict[str, Any] = {"sources": sums.tolist(), "keep": noted.tolist()}
            values |= {"probe": self.prober.points, "stopped_at": self.prober.stopped_at}
            write_marker(state, {"job": self._job.identity, **values})

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        state = Path(resume_from_checkpoint)
        restore(model or self.model, state)
        marker = read_marker(state)
        self.prober.points, self.prober.stopped_at = marker["probe"], marker["stopped_at"]
        if self.is_world_process_zero():
            self.ledger.sums.copy_(torch.tensor(marker["sources"], dtype=torch.float64))
            if self.keeper:
                self.keeper.noted.copy_(torch.tensor(marker["keep"], dtype=torch.float64))


def restore(model: nn.Module, state: Path) -> None:
    """Give what learns the values that a state holds.

    Raises:
        CheckpointError: they are of other tensors.
    """
    learning, saved = trainable(model), load_file(state / WEIGHTS)
    if set(saved) != set(learning):
        raise CheckpointError(f"{state}: its tensors are not those that learn; remove it")
    for name, tensor in saved.items():
        fill(learning[name], tensor)


def _student(
    model: nn.Module, own: Tensor | None, inputs: Mapping[str, Tensor], places: Tensor
) -> Tensor:
    """The tuned model's logits; `own` are those of the training samples, made already."""
    return logits_at(model, inputs, places) if own is None else own


def logits_at(model: nn.Module, inputs: Mapping[str, Tensor], places: Tensor) -> Tensor:
    """Logits (rows, places, words) at places (places,) of every row."""
    inner = getattr(model, "module", model)
    if "logits_to_keep" in signature(type(inner).forward).parameters:
        kept: Tensor = model(**inputs, logits_to_keep=places, use_cache=False).logits
        return kept
    every: Tensor = model(**inputs, use_cache=False).logits
    return every[:, places]


def _keeper(job: Job, device: torch.device) -> Keeper | None:
    """What holds the model to its base: itself without adapters, or a second copy."""
    keep = job.config.keep
    if keep is None or not (keep.l2 or keep.kl):
        return None
    base, learning = job.model, trainable(job.model)
    if needs_copy(keep, learning):
        base = load_model(job.config.model, frozen_dtype(job.base, job.config)).to(device)
        base.requires_grad_(False)

    def teacher(inputs: Mapping[str, Tensor], places: Tensor) -> Tensor:
        with without_adapters(base), evaluating(base):
            return logits_at(base, inputs, places)

    return Keeper(keep, learning, teacher)
