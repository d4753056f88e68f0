"""A fine-tuning job: everything read, checked and selected before the first step."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from mllmtool import __version__
from mllmtool.checkpoints import Checkpoint
from mllmtool.configs.base import Part
from mllmtool.configs.finetune import FinetuneConfig
from mllmtool.context import Context
from mllmtool.data.files import sha256_of
from mllmtool.data.samples import images_root
from mllmtool.errors import CheckpointError, MllmtoolError, noting, raise_all
from mllmtool.models.encoding import Encoder
from mllmtool.models.loading import disk_names, load_model
from mllmtool.models.parts import partition
from mllmtool.models.processors import limit_pixels
from mllmtool.training.examples import (
    Examples,
    Longest,
    Order,
    Stream,
    preload,
    read_examples,
)
from mllmtool.training.length import Length, run_length
from mllmtool.training.selection import Selection, select
from mllmtool.training.sharding import check_alike, check_sharding

# Keys that may differ between a run and the one that goes on from its states: paths whose contents
# are hashed, how states are kept, and who prepares batches.
UNIDENTIFYING = {"model", "samples", "save_every", "save_checkpoints", "resume"}
UNIDENTIFYING |= {"tensorboard", "workers"}
DTYPES = {"BF16": torch.bfloat16, "F16": torch.float16}


@dataclass(frozen=True)
class Job:
    """What a run needs.

    `names` are of tensors, in memory -> on disk; `anchors` are the samples on which `keep` holds
    the model to its base; `identity` is what a state must agree on to be gone on from.
    """

    config: FinetuneConfig
    base: Checkpoint
    encoder: Encoder
    model: PreTrainedModel
    names: dict[str, str]
    parts: dict[str, Part]
    selection: Selection
    length: Length
    stream: Stream
    anchors: Stream | None
    identity: dict[str, Any]

    @property
    def examples(self) -> Examples:
        """The training samples."""
        return self.stream.examples

    @property
    def moving(self) -> set[str]:
        """Names on disk of the tensors that may move; all others must not."""
        return {self.names[name] for name in self.selection.moving}


def prepare(config: FinetuneConfig, context: Context) -> Job:
    """Read and check everything, and let the chosen parameters learn.

    Raises:
        MllmtoolError: of the first problem's class, naming all: the processes, parts or length
            asked for cannot be, the base is unreadable or its files do not fit, samples are wrong.
    """
    check_sharding(config)
    base, encoder = Checkpoint.open(config.model), Encoder.load(config.model)
    if config.image_max_pixels:
        limit_pixels(encoder.processor, encoder.family, config.image_max_pixels)
    model = load_model(config.model, frozen_dtype(base, config))
    problems: list[MllmtoolError] = []
    names, parts = disk_names(model, base), partition(model)
    with noting(problems):
        selection = select(model, parts, config, context.stream_seed("lora"))
    with noting(problems):
        examples = _examples(config, model, encoder, context)
        length = run_length(config, len(examples.samples))
        if config.fsdp:
            check_alike(examples.samples, examples.places)
    with noting(problems):
        anchors = _anchors(config, model, encoder, context)
    raise_all(problems)
    seen = length.steps * config.batch
    stream = Stream(examples, Order(len(examples.samples), seen, context))
    kept = (
        Stream(anchors, Order(len(anchors.samples), seen, context, "anchors")) if anchors else None
    )
    for each in filter(None, (stream, kept)):
        preload(each.examples, encoder, each.order.visited())
    _check_forward(model, encoder, examples, config)
    return Job(
        config=config,
        base=base,
        encoder=encoder,
        model=model,
        names=names,
        parts=parts,
        selection=selection,
        length=length,
        stream=stream,
        anchors=kept,
        identity=_identity(config, base, context),
    )


def load_again(job: Job, context: Context) -> PreTrainedModel:
    """The job's model as it was before the first step."""
    model = load_model(job.config.model, frozen_dtype(job.base, job.config))
    select(model, job.parts, job.config, context.stream_seed("lora"))
    return model


def frozen_dtype(base: Checkpoint, config: FinetuneConfig) -> torch.dtype:
    """What the weights that stay frozen are held in: with bf16-mixed, the base's own dtype."""
    if config.precision == "float32":
        return torch.float32
    if config.precision == "bf16":
        return torch.bfloat16
    sizes = Counter[str]()
    for name in base.names:
        sizes[base.info(name).dtype] += base.info(name).size
    return DTYPES.get(max(sizes, key=lambda dtype: sizes[dtype]), torch.float32)


def _examples(
    config: FinetuneConfig, model: PreTrainedModel, encoder: Encoder, context: Context
) -> Examples:
    root = images_root(config.samples, config.images)
    return read_examples(config.samples, root, encoder, _longest(config, model), context)


def _anchors(
    config: FinetuneConfig, model: PreTrainedModel, encoder: Encoder, context: Context
) -> Examples | None:
    keep = config.keep
    if keep is None or not keep.kl or keep.samples is None:
        return None
    root = images_root(keep.samples, keep.images)
    return read_examples(keep.samples, root, encoder, _longest(config, model), context)


def _longest(config: FinetuneConfig, model: PreTrainedModel) -> Longest:
    text = model.config.get_text_config()
    positions = getattr(text, "max_position_embeddings", None)
    return Longest(config.max_length, positions, config.on_long == "drop")


def _identity(config: FinetuneConfig, base: Checkpoint, context: Context) -> dict[str, Any]:
    files = {"samples": config.samples}
    if config.keep and config.keep.samples:
        files["keep samples"] = config.keep.samples
    if config.probe:
        files["probe suite"] = config.probe.suite
    return {
        **config.model_dump(mode="json", exclude=UNIDENTIFYING),
        "version": __version__,
        "seed": context.seed,
        "base sha256": base.fingerprint(),
        **{f"{what} sha256": sha256_of(Path(file)) for what, file in files.items()},
    }


def _check_forward(
    model: PreTrainedModel, encoder: Encoder, examples: Examples, config: FinetuneConfig
) -> None:
    """Run the model on one sample, with an image if there is one, to see that the files fit."""
    index = next((n for n, sample in enumerate(examples.samples) if sample.images), 0)
    sample = examples.samples[index]
    batch = encoder.train_batch([sample], examples.root)
    del batch["labels"]
    mixed = config.precision == "bf16-mixed"
    try:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            model(**batch)
    except (ValueError, IndexError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(
            f"{examples.places[index]}: the model refuses sample {sample.id}: {reason};"
            " do its processor and its config.json belong together?"
        ) from error
