"""Whether checkpoints line up, name by name and shape by shape."""

from collections.abc import Sequence

from mllmtool.checkpoints.reader import Checkpoint
from mllmtool.errors import MismatchError, some


def check_aligned(base: Checkpoint, others: Sequence[Checkpoint]) -> None:
    """Headers only, before any work.

    Raises:
        MismatchError: a tensor is missing, extra or of another shape.
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
            ours, theirs = base.info(name).shape, other.info(name).shape
            if ours != theirs:
                raise MismatchError(
                    f"{name}: shape {theirs} in {other.path}, {ours} in {base.path}"
                )
