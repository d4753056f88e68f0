"""What a fusion takes: memory, disk and time; and what is done when one of them is short."""

import shutil
from dataclasses import replace
from pathlib import Path

from mllmtool.errors import ConfigError, OutputError
from mllmtool.fusion.inputs import Inputs
from mllmtool.fusion.method import Method
from mllmtool.fusion.patched import PatchedBase

PROCESS = 60_000_000  # bytes of the process itself
WIDE = 8  # bytes of an entry that is computed with
PACE = 600_000_000  # bytes read and written in a second by task arithmetic on one core


def memory(inputs: Inputs) -> int:
    """Bytes of memory, at most: a few arrays of a piece for each model, in each worker."""
    longest = max(inputs.longest_piece(name) for name in inputs.names)
    arrays = 4 + 4 * len(inputs.models)
    largest = max(inputs.base.info(name).size for name in inputs.names)
    patches = sum(isinstance(model, PatchedBase) for model in inputs.models)
    each = longest * WIDE * arrays + largest * (1 + WIDE) * patches
    return PROCESS + inputs.workers * each


def within(inputs: Inputs, max_ram: int | None) -> Inputs:
    """The inputs with so many workers as memory allows.

    Raises:
        ConfigError: it does not allow one.
    """
    while max_ram is not None and memory(inputs) > max_ram:
        if inputs.workers == 1:
            raise ConfigError(
                f"--max-ram: {max_ram:,} bytes are less than the {memory(inputs):,} that it takes"
            )
        inputs = replace(inputs, workers=inputs.workers - 1)
    return inputs


def seconds(inputs: Inputs, method: Method) -> float:
    """About how long it takes on one core, from measured paces."""
    size = sum(inputs.base.info(name).num_bytes for name in inputs.names)
    return round(method.cost * size * (2 + len(inputs.models)) / PACE / inputs.workers, 1)


def check_disk(folder: Path, num_bytes: int) -> None:
    """Refuse to begin what the disk has no room for.

    Raises:
        OutputError: it has not.
    """
    free = shutil.disk_usage(folder).free
    if free < num_bytes:
        raise OutputError(f"{folder}: {num_bytes:,} bytes are to be written, {free:,} are free")
