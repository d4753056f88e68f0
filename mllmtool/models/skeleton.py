"""A model without its weights: they stay on disk, and are read module by module."""

import re

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    PreTrainedModel,
)
from transformers.initialization import no_init_weights

from mllmtool.checkpoints import Checkpoint
from mllmtool.errors import CheckpointError, some
from mllmtool.models.families import family_of
from mllmtool.models.loading import disk_names


class Skeleton:
    """A live model whose parameters are one NaN each, spread over their shape.

    They have device, dtype and shape as if they were there, which a model's own code asks for; and
    whatever would compute with one is found out. Buffers that are not on disk are real. `names` are
    the names on disk by the names in memory.
    """

    def __init__(self, checkpoint: Checkpoint, dtype: torch.dtype = torch.float32) -> None:
        """Build it and line its names up with the checkpoint's.

        Raises:
            CheckpointError: the config is of no known family, or names or shapes do not fit it.
            MismatchError: a tensor has no name on disk, or is made of several.
        """
        self.checkpoint = checkpoint
        self.model = _build(checkpoint, dtype)
        self.names = disk_names(self.model, checkpoint)
        state = self.model.state_dict()
        others = [n for n, d in self.names.items() if state[n].shape != checkpoint.info(d).shape]
        if others:
            raise CheckpointError(
                f"{checkpoint.path}: other shapes of {some(sorted(others))}, against its"
                " config.json"
            )
        self._check_besides()

    def tensors(self, path: str, module: nn.Module) -> dict[str, str]:
        """Names on disk of a module's parameters and saved buffers, by their names in it."""
        return {name: self.names[f"{path}.{name}"] for name in module.state_dict()}

    def _check_besides(self) -> None:
        patterns = self.model._keys_to_ignore_on_load_unexpected or ()
        besides = [
            name
            for name in sorted(set(self.checkpoint.names) - set(self.names.values()))
            if not any(re.search(pattern, name) for pattern in patterns)
        ]
        if besides:
            raise CheckpointError(
                f"{self.checkpoint.path}: has besides {some(besides)}, against its config.json"
            )


def _build(checkpoint: Checkpoint, dtype: torch.dtype) -> PreTrainedModel:
    path = checkpoint.folder
    family = family_of(checkpoint.config, f"{path}/config.json")
    auto = AutoModelForImageTextToText if family.images else AutoModelForCausalLM
    try:
        config = AutoConfig.from_pretrained(
            str(path), local_files_only=True, trust_remote_code=False
        )
        with no_init_weights(), init_empty_weights(include_buffers=False):
            model: PreTrainedModel = auto.from_config(config, dtype=dtype, trust_remote_code=False)
    except Exception as error:  # a hostile config makes transformers raise anything
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{path}: transformers cannot build it: {reason}") from error
    for module in model.modules():
        if "use_cache" in vars(getattr(module, "config", None) or object):
            module.config.use_cache = False  # keys and values of every block would pile up
        for name, parameter in module.named_parameters(recurse=False):
            module._parameters[name] = nn.Parameter(_stub(parameter), requires_grad=False)
    return model.eval()


def _stub(parameter: Tensor) -> Tensor:
    return torch.full((), torch.nan, dtype=parameter.dtype).expand(parameter.shape)
