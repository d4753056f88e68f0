"""Which tensors are fused, and how strongly each."""

import re
from collections.abc import Callable, Sequence

from mllmtool.checkpoints import Checkpoint
from mllmtool.configs.base import PARTS
from mllmtool.configs.fuse import FuseConfig
from mllmtool.configs.weights import Weight
from mllmtool.errors import ConfigError

BLOCK = re.compile(r"\.(?:layers?|blocks)\.(\d+)\.")
BEFORE = re.compile(r"embed|\.pre_layr?norm\.")  # what comes before the blocks


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
    """The factor of the scale of each tensor by `--scale-by`: of its part, and of its depth."""
    depth = depth_of(base, part_of, config)
    return {
        name: interpolated(config.scale_by[part], depth(name))
        for name in names
        if (part := part_of(name)) in config.scale_by
    }


def weights(
    base: Checkpoint, names: Sequence[str], part_of: Callable[[str], str], config: FuseConfig
) -> dict[str, tuple[float, ...]]:
    """The models' weights at each tensor, if one of them is not a number; by default 1.

    Raises:
        ConfigError: a key is no part and matches no tensor.
    """
    if all(isinstance(weight, float) for weight in config.weight):
        return {}
    depth = depth_of(base, part_of, config)

    def weight_at(name: str, weight: Weight) -> float:
        if isinstance(weight, float):
            return weight
        fits = (v for key, v in weight.items() if part_of(name) == key or _fits(name, key))
        return interpolated(next(fits, (1.0,)), depth(name))

    if config.compat is None:  # another tool's recipes may name what is not there
        _check_keys(names, part_of, config.weight)
    return {name: tuple(weight_at(name, each) for each in config.weight) for name in names}


def depth_of(
    base: Checkpoint, part_of: Callable[[str], str], config: FuseConfig
) -> Callable[[str], float]:
    """How deep in its part a tensor is: 0 in the first block and before it, 1 in the last and on.

    In mergekit's words all outside of the blocks is at 0, and a single block at 1.
    """
    last: dict[str, int] = {}
    for name in base.names:
        if (block := _block(name)) is not None:
            last[part_of(name)] = max(last.get(part_of(name), 0), block)

    def depth(name: str) -> float:
        block, end = _block(name), last.get(part_of(name))
        if end is None or (block is None and (config.compat or BEFORE.search(name))):
            return 0.0
        if block is None or (config.compat and not end):
            return 1.0
        return block / max(1, end)

    return depth


def interpolated(values: Sequence[float], share: float) -> float:
    """Between numbers that are spread evenly from 0 to 1."""
    place = share * (len(values) - 1)
    before = int(place)
    after = min(len(values) - 1, before + 1)
    return (1 - (place - before)) * values[before] + (place - before) * values[after]


def _block(name: str) -> int | None:
    number = BLOCK.search(name)
    return int(number[1]) if number else None


def _check_keys(
    names: Sequence[str], part_of: Callable[[str], str], given: Sequence[Weight]
) -> None:
    parts = set(map(part_of, names))
    for key in {key for weight in given if not isinstance(weight, float) for key in weight}:
        if key not in parts and not any(_fits(name, key) for name in names):
            raise ConfigError(
                f"--weight: {key!r} is no part that is fused ({', '.join(sorted(parts))}) and"
                f" matches no tensor; they are named like {names[0]}"
            )


def _fits(name: str, key: str) -> bool:
    return key not in PARTS and re.search(key, name) is not None


def _check_matches(names: Sequence[str], config: FuseConfig) -> None:
    for flag, expressions in (("only", config.only), ("except", config.except_)):
        for expression in expressions:
            if not any(re.search(expression, name) for name in names):
                raise ConfigError(
                    f"--{flag}: {expression!r} matches no tensor; they are named like {names[0]}"
                )


def _matches(name: str, expressions: Sequence[str]) -> bool:
    return any(re.search(expression, name) for expression in expressions)
