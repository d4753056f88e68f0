"""Whether checkpoints line up, name by name and shape by shape."""

from collections.abc import Sequence

from mllmtool.checkpoints.reader import Checkpoint
from mllmtool.errors import MismatchError, some


def check_aligned(base: Checkpoint, others: Sequence[Checkpoint]) -> None:
    """Headers only, before any work. Dtypes may differ, weights among weights.

    Raises:
        MismatchError: a tensor is missing, extra, of another shape, or weights in one checkpoint
            and integers in the other.
    """
    for other in others:
        missing = sorted(set(base.names) - set(other.names))
        extra = sorted(set(other.names) - set(base.names))
        if missing or extra:
            parts = [f"lacks {some(missing)}"] if missing else []
            parts += [f"has {some(extra)} besides"] if extra else []
            raise MismatchError(
                f"{other.path}: {' and '.join(parts)}, against {base.path};"
                " both must come from the same base"
            )
        for name in base.names:
            ours, theirs = base.info(name), other.info(name)
            if ours.shape != theirs.shape:
                raise MismatchError(
                    f"{name}: shape {theirs.shape} in {other.path}, {ours.shape} in {base.path}"
                )
            if ours.dtype != theirs.dtype and not (ours.floating and theirs.floating):
                raise MismatchError(
                    f"{name}: {theirs.dtype} in {other.path}, {ours.dtype} in {base.path}"
                )
