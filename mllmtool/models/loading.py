"""Load models whole or not at all, and line their names up with those on disk."""

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key
from transformers.utils import logging as transformers_logging

from mllmtool.checkpoints import Checkpoint
from mllmtool.errors import CheckpointError, MismatchError, NumericError, some
from mllmtool.models.families import family_of


def load_model(path: str | Path, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """Load a checkpoint for inference: safetensors only, no remote code, every key accounted for.

    Raises:
        CheckpointError: it is missing, of no known family, or keys or shapes do not fit its config.
        NumericError: a weight is NaN or Inf.
    """
    checkpoint = Checkpoint.open(path)
    family = family_of(checkpoint.config, f"{path}/config.json")
    auto = AutoModelForImageTextToText if family.images else AutoModelForCausalLM
    transformers_logging.disable_progress_bar()
    try:
        model, seen = auto.from_pretrained(
            str(path),
            dtype=dtype,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    except Exception as error:  # a hostile config makes transformers raise anything
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{path}: transformers cannot load it: {reason}") from error
    for key, what in (("missing", "lacks"), ("unexpected", "has besides"), ("mismatched", "other")):
        names = sorted(str(name) for name in seen[f"{key}_keys"])
        if names:
            kind = "shapes of " if key == "mismatched" else ""
            raise CheckpointError(f"{path}: {what} {kind}{some(names)}, against its config.json")
    for name, tensor in model.named_parameters():
        if not torch.isfinite(tensor).all():
            raise NumericError(f"{name}: holds NaN or Inf in {path}")
    loaded: PreTrainedModel = model.eval()
    return loaded


def disk_names(model: PreTrainedModel, checkpoint: Checkpoint) -> dict[str, str]:
    """The name on disk of every tensor of the model's state dict, by its name in memory.

    Renames as the loader of transformers does. Tied tensors may share one name on disk.

    Raises:
        MismatchError: a tensor has no name on disk, or is made of several.
    """
    state = model.state_dict()
    conversions = get_model_conversion_mapping(model)
    renamings = [entry for entry in conversions if isinstance(entry, WeightRenaming)]
    converters = [entry for entry in conversions if isinstance(entry, WeightConverter)]
    prefix = model.base_model_prefix
    found: dict[str, str] = {}
    for disk in checkpoint.names:
        memory, fused = rename_source_key(disk, renamings, converters, prefix, state)
        if memory not in state and disk in state:
            memory, fused = rename_source_key(disk, [], [], prefix, state)
        if memory in state and (fused is not None or memory in found):
            raise MismatchError(
                f"{disk}: is one of several tensors of {checkpoint.path} that make up {memory};"
                " such checkpoints are not served"
            )
        if memory in state:
            found[memory] = disk
    for target, source in model.all_tied_weights_keys.items():
        if target not in found and source in found:
            found[target] = found[source]
    missing = sorted(set(state) - set(found))
    if missing:
        raise MismatchError(f"{checkpoint.path}: no tensor on disk makes up {some(missing)}")
    return {memory: found[memory] for memory in state}
