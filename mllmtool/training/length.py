"""How long a run is."""

import math
import os
from dataclasses import dataclass

from mllmtool.configs.finetune import FinetuneConfig
from mllmtool.errors import ConfigError


@dataclass(frozen=True)
class Length:
    """Optimizer steps, and micro-batches that each of the processes takes for one."""

    steps: int
    accumulation: int
    processes: int


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
