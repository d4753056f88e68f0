"""Which tensors are fused, and how strongly each."""

import re
from collections.abc import Callable, Sequence

import numpy as np

from mllmtool.checkpoints import Checkpoint
from mllmtool.configs.fuse import FuseConfig
from mllmtool.errors import ConfigError

BLOCK = re.compile(r"\.(?:layers?|blocks)\.(\d+)\.")


def chosen(base: Checkpoint, part_of: Callable[[str], str], config: FuseConfig) -> list[str]:
    """Names of the tensors to fuse: of `--parts`, matched by `--only`, not by `--except`.

    Raises:
        ConfigError: none is left, or an expression matches no tensor.
    """
    names = [name for name in base.names if part_of(name) in config.parts]
    if not names:
        there = sorted({part_of(name) for name in base.names})
        raise ConfigError(
            f"--parts: {base.path} has no {', '.join(config.parts)}, only {', '.join(there)}"
        )
    _check_matches(names, config)
    kept = [
        name
        for name in names
        if (not config.only or _matches(name, config.only)) and not _matches(name, config.except_)
    ]
    if not kept:
        raise ConfigError(f"--only, --except: leave no tensor of {base.path}")
    return kept


def factors(
    base: Checkpoint, names: Sequence[str], part_of: Callable[[str], str], config: FuseConfig
) -> dict[str, float]:
    """The factor of the scale of each tensor by `--scale-by`: of its part, and of its depth.

    Several numbers of a part are spread evenly from its first block to its last, and interpolated
    between; what comes before the blocks has the first, what comes after them the last.
    """
    depth = dict.fromkeys(config.scale_by, 0)
    for name in base.names:
        if (part := part_of(name)) in depth and (block := _block(name)) is not None:
            depth[part] = max(depth[part], block)
    found = {}
    for name in names:
        if (part := part_of(name)) in depth:
            values = config.scale_by[part]
            block = _block(name)
            if block is None:
                block = 0 if "embed" in name else depth[part]
            places = np.linspace(0, max(1, depth[part]), len(values))
            found[name] = float(np.interp(block, places, values))
    return found


def _block(name: str) -> int | None:
    number = BLOCK.search(name)
    return int(number[1]) if number else None


def _check_matches(names: Sequence[str], config: FuseConfig) -> None:
    for flag, expressions in (("only", config.only), ("except", config.except_)):
        for expression in expressions:
            if not any(re.search(expression, name) for name in names):
                raise ConfigError(
                    f"--{flag}: {expression!r} matches no tensor; they are named like {names[0]}"
                )


def _matches(name: str, expressions: Sequence[str]) -> bool:
    return any(re.search(expression, name) for expression in expressions)
