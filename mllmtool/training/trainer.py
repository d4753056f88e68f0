"""A thin subclass of `transformers.Trainer` that closes its traps.

The loss is our own, so that it can be told by source and checked; a state holds what learns by its
name in memory, because Trainer's own resume of LLaVA-like models leaves the weights at the base
(huggingface/transformers#43701).
"""

import math
import time
from collections.abc import Iterator
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from mllmtool.configs.finetune import FinetuneConfig
from mllmtool.context import Context
from mllmtool.errors import CheckpointError, NumericError
from mllmtool.training.examples import Collator
from mllmtool.training.job import Job, Length
from mllmtool.training.losses import Ledger, learning_places, token_losses
from mllmtool.training.selection import trainable
from mllmtool.training.states import read_marker, write_marker

WEIGHTS = "trainable.safetensors"
CURVE_POINTS = 200
SCHEDULES = {"cosine": "cosine", "linear": "linear", "constant": "constant_with_warmup"}


class PartsTrainer(Trainer):  # type: ignore[misc]  # transformers is untyped here
    """Trains what the job let learn; its states lie under `states`."""

    def __init__(self, job: Job, context: Context, states: Path) -> None:
        args = arguments(job.config, job.length, states, context.stream_seed("dropout"))
        super().__init__(
            model=job.model,
            args=args,
            train_dataset=job.order,
            data_collator=Collator(job.examples, job.encoder),
            callbacks=[Progress(context)],
        )
        self.remove_callback(PrinterCallback)  # it prints on stdout
        self.ledger = Ledger(job.examples.sources, args.device)
        self.model_accepts_loss_kwargs = True  # so that the learnt tokens of a batch are counted
        self.loss_is_scaled_for_ga = True  # by that count, in `compute_loss`
        self._keeps = "logits_to_keep" in signature(type(job.model).forward).parameters
        self._identity = job.identity

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Mean cross-entropy over the learnt tokens of the optimizer step's whole batch.

        Raises:
            NumericError: it is NaN or Inf.
        """
        labels, sources = inputs.pop("labels"), inputs.pop("sources")
        places = learning_places(labels)
        kept = {"logits_to_keep": places} if self._keeps else {}
        outputs = model(**inputs, **kept, use_cache=False)
        logits = outputs.logits if self._keeps else outputs.logits[:, places]
        targets = labels[:, places + 1]
        losses = token_losses(logits, targets)
        # every process counts the tokens of all, and DDP averages over processes
        loss = losses.sum() / num_items_in_batch * self.accelerator.num_processes
        if not torch.isfinite(loss):
            raise NumericError(
                f"step {self.state.global_step + 1}: the loss is {loss.item()};"
                " lower --lr, or lengthen --warmup"
            )
        self.ledger.count(inputs["attention_mask"], targets)
        if self.state.global_step >= self.state.max_steps * 3 // 4:
            self.ledger.add(sources, losses.detach(), targets)
        return (loss, outputs) if return_outputs else loss

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:  # noqa: ARG002 (Trainer's name)
        """Not counted: it walks the whole model each step."""
        return 0

    def totals(self) -> tuple[Tensor, Tensor]:
        """The ledger's sums (2, sources) and tokens (2,) over all processes."""
        return self._total(self.ledger.sums), self._total(self.ledger.tokens)

    def _total(self, mine: Tensor) -> Tensor:
        total: Tensor = self.accelerator.reduce(mine, reduction="sum")
        return total.cpu()

    def leave(self) -> None:
        """Leave the group of processes; the main one goes on alone.

        A thread of gloo may still hold the tensor of the last reduction, and needs Python's lock to
        let go of it. The group's destructor waits for that thread with the lock in hand (torch
        2.13), so the lock must be free for a moment before.
        """
        if self.args.world_size > 1:
            self.accelerator.wait_for_everyone()
            time.sleep(0.2)
        self.accelerator.end_training()

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write what learns, and nothing else, into a state."""
        if self.args.should_save:
            folder = Path(output_dir or self.args.output_dir)
            folder.mkdir(parents=True, exist_ok=True)
            weights = {n: p.detach().cpu().contiguous() for n, p in trainable(self.model).items()}
            save_file(weights, folder / WEIGHTS)

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        sums = self._total(self.ledger.sums)  # waits for every process to have written its share
        if self.args.should_save:
            state = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
            write_marker(state, {"job": self._identity, "sources": sums.tolist()})

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        state, learning = Path(resume_from_checkpoint), trainable(model or self.model)
        saved = load_file(state / WEIGHTS)
        if set(saved) != set(learning):
            raise CheckpointError(f"{state}: its tensors are not those that learn; remove it")
        with torch.no_grad():
            for name, tensor in saved.items():
                learning[name].copy_(tensor)
        if self.is_world_process_zero():
            self.ledger.sums.copy_(torch.tensor(read_marker(state)["sources"]))


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
        if state.global_step == state.max_steps:
            control.should_log = True


def arguments(config: FinetuneConfig, length: Length, states: Path, seed: int) -> TrainingArguments:
    """Trainer's arguments; states go under `states` when the config wants any."""
    cuda = torch.cuda.is_available()
    unused = config.how("vision") != "frozen" or config.how("projector") != "frozen"
    args = TrainingArguments(
        output_dir=str(states),
        per_device_train_batch_size=config.micro_batch,
        gradient_accumulation_steps=length.accumulation,
        max_steps=length.steps,
        learning_rate=config.lr,
        lr_scheduler_type=SCHEDULES[config.schedule],
        warmup_steps=math.floor(config.warmup * length.steps),
        weight_decay=config.weight_decay,
        bf16=config.precision == "bf16-mixed",
        logging_steps=max(1, length.steps // CURVE_POINTS),
        logging_first_step=True,
        logging_nan_inf_filter=False,
        save_strategy="steps" if config.save_every else "no",
        save_steps=config.save_every or length.steps,
        save_total_limit=2,
        seed=seed % 2**32,
        train_sampling_strategy="sequential",  # `Order` has shuffled already
        remove_unused_columns=False,
        average_tokens_across_devices=True,
        ddp_find_unused_parameters=unused,  # a tower's last layers may feed nothing
        dataloader_pin_memory=cuda,
        use_cpu=not cuda,
        report_to="none",
        disable_tqdm=True,
        log_level="error",
        log_level_replica="error",
    )
    _ = args.device
    args._n_gpu = min(args._n_gpu, 1)  # else several GPUs mean DataParallel and a larger batch
    return args
