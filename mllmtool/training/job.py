"""A fine-tuning job: everything read, checked and selected before the first step."""

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from mllmtool.checkpoints import Checkpoint
from mllmtool.configs.base import PARTS, Part
from mllmtool.configs.finetune import FinetuneConfig
from mllmtool.context import Context
from mllmtool.errors import CheckpointError, ConfigError
from mllmtool.models.encoding import Encoder
from mllmtool.models.loading import disk_names, load_model
from mllmtool.models.parts import partition
from mllmtool.reports import file_sha256
from mllmtool.training.examples import Examples, Order, preload, read_examples
from mllmtool.training.selection import select

# Keys that may differ between a run and the one that goes on from its states: paths whose contents
# are hashed, and how states are kept.
UNIDENTIFYING = {"model", "samples", "save_every", "resume"}


@dataclass(frozen=True)
class Length:
    """How long a run is: optimizer steps, and micro-batches that a process takes for each."""

    steps: int
    accumulation: int
    processes: int


@dataclass(frozen=True)
class Job:
    """What a run needs.

    `names` are of tensors, in memory -> on disk; `targets` of adapted layers by part; `identity`
    is what a state must agree on to be gone on from.
    """

    config: FinetuneConfig
    base: Checkpoint
    encoder: Encoder
    examples: Examples
    model: PreTrainedModel
    names: dict[str, str]
    parts: dict[str, Part]
    targets: dict[Part, list[str]]
    length: Length
    order: Order
    identity: dict[str, Any]

    @property
    def frozen(self) -> list[Part]:
        """The parts that must not move."""
        return [part for part in PARTS if self.config.how(part) == "frozen"]


def prepare(config: FinetuneConfig, context: Context) -> Job:
    """Read and check everything, and let the chosen parameters learn.

    Raises:
        ConfigError: the processes, parts or length asked for cannot be.
        CheckpointError: the base is unreadable, or its files do not fit each other.
        DataError: samples are wrong.
    """
    base = Checkpoint.open(config.model)
    encoder = Encoder.load(config.model)
    model = load_model(config.model)
    text = model.config.get_text_config()
    positions = getattr(text, "max_position_embeddings", None)
    examples = read_examples(config, encoder, positions, context)
    length = run_length(config, len(examples.samples))
    order = Order(len(examples.samples), length.steps * config.batch, context)
    preload(examples, encoder, order.visited())
    names, parts = disk_names(model, base), partition(model)
    _check_forward(model, encoder, examples)
    return Job(
        config=config,
        base=base,
        encoder=encoder,
        examples=examples,
        model=model,
        names=names,
        parts=parts,
        targets=select(model, parts, config, context.stream_seed("lora")),
        length=length,
        order=order,
        identity={
            **config.model_dump(mode="json", exclude=UNIDENTIFYING),
            "seed": context.seed,
            "base sha256": base.fingerprint(),
            "samples sha256": file_sha256(Path(config.samples)),
        },
    )


def run_length(config: FinetuneConfig, num_samples: int) -> Length:
    """Steps as given, or enough whole ones for the epochs.

    Raises:
        ConfigError: a batch cannot be shared out evenly among the processes of `torchrun`.
    """
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if config.batch % (config.micro_batch * processes):
        raise ConfigError(
            f"--batch {config.batch}: is not a multiple of --micro-batch {config.micro_batch}"
            f" times {processes} processes"
        )
    epochs = config.epochs or 0.0
    steps = config.steps or math.ceil(epochs * num_samples / config.batch)
    return Length(steps, config.batch // (config.micro_batch * processes), processes)


def _check_forward(model: PreTrainedModel, encoder: Encoder, examples: Examples) -> None:
    """Run the model on one sample, with an image if there is one, to see that the files fit."""
    index = next((n for n, sample in enumerate(examples.samples) if sample.images), 0)
    sample = examples.samples[index]
    batch = encoder.train_batch([sample], examples.root)
    del batch["labels"]
    try:
        with torch.no_grad():
            model(**batch)
    except (ValueError, IndexError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(
            f"{examples.places[index]}: the model refuses sample {sample.id}: {reason};"
            " do its processor and its config.json belong together?"
        ) from error
