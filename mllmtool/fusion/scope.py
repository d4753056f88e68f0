"""Which tensors are fused, and how strongly each."""

import re
from collections.abc import Callable, Sequence

from mllmtool.checkpoints import Checkpoint
from mllmtool.configs.fuse import FuseConfig
from mllmtool.errors import ConfigError


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


def _check_matches(names: Sequence[str], config: FuseConfig) -> None:
    for flag, expressions in (("only", config.only), ("except", config.except_)):
        for expression in expressions:
            if not any(re.search(expression, name) for name in names):
                raise ConfigError(
                    f"--{flag}: {expression!r} matches no tensor; they are named like {names[0]}"
                )


def _matches(name: str, expressions: Sequence[str]) -> bool:
    return any(re.search(expression, name) for expression in expressions)
