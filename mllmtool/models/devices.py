"""Which device to compute on."""

import os

import torch

from mllmtool.errors import ConfigError


def chosen_device(name: str) -> torch.device:
    """The device of a name; `auto` is this process's own GPU, or the CPU where there is none.

    Raises:
        ConfigError: there is no such device.
    """
    if name == "auto" and torch.cuda.is_available():
        local = int(os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", "0")))
        return torch.device("cuda", local % torch.cuda.device_count())
    try:
        device = torch.device("cpu" if name == "auto" else name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"--device: {name} cannot be used: {reason}") from error
    return device
