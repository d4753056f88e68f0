"""Expected failures. The class decides the exit status.

    MllmtoolError
    ├── ConfigError          2   a flag or a recipe asks for something that cannot be
    ├── InputError           3   what was read is wrong
    │   ├── CheckpointError      a checkpoint directory or a patch file
    │   ├── MismatchError        two checkpoints that do not belong together
    │   └── DataError            samples, items, suites, images
    ├── OutputError          4   what was to be written cannot be
    └── NumericError         5   a computation gave NaN, Inf or no solution

1 is a bug and keeps its traceback, 130 an interrupt.

A message is one line: what it is about (flag, file, `file:line` or tensor), what is wrong with both
values when two disagree, and what to do.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager


class MllmtoolError(Exception):
    """Any failure that the user can mend."""

    status = 1


class ConfigError(MllmtoolError):
    """A flag or a recipe key is wrong."""

    status = 2


class InputError(MllmtoolError):
    """Something read from disk is wrong."""

    status = 3


class CheckpointError(InputError):
    """A checkpoint or patch is missing, truncated, pickled or otherwise unreadable."""


class MismatchError(InputError):
    """Two checkpoints do not line up."""


class DataError(InputError):
    """Samples, items, a suite or an image are wrong."""


class OutputError(MllmtoolError):
    """The output cannot be written."""

    status = 4


class NumericError(MllmtoolError):
    """A computation gave NaN, Inf or no solution."""

    status = 5


def some(names: Sequence[str]) -> str:
    """At most three names and how many there are: `a, b, c and 4 more`."""
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


@contextmanager
def noting(problems: list[MllmtoolError]) -> Iterator[None]:
    """Note a failure and go on, so that `raise_all` tells of every one at once."""
    try:
        yield
    except MllmtoolError as error:
        problems.append(error)


def raise_all(problems: Sequence[MllmtoolError]) -> None:
    """Raise what was noted, as one error of the first one's class, or nothing."""
    if problems:
        raise type(problems[0])("; ".join(str(problem) for problem in problems))
