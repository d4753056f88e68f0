"""Whether checkpoints line up, name by name and shape by shape."""

from collections.abc import Iterable, Mapping, Sequence

from mllmtool.checkpoints.naming import EMBEDDINGS, HEAD, by_canonical, tied
from mllmtool.checkpoints.reader import Checkpoint, Place
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
            _check_alike(name, base, other)


class Renamed(Checkpoint):
    """A checkpoint read under the names of another; its fingerprint stays its own."""

    def __init__(self, checkpoint: Checkpoint, own: Mapping[str, str]) -> None:
        """`own`: the name here of each name that is asked for."""
        super().__init__(checkpoint.path, checkpoint.places)
        self._own = own

    def _place(self, name: str) -> Place:
        return super()._place(self._own.get(name, name))


def lined_up(
    base: Checkpoint, other: Checkpoint, names: Iterable[str], allow_extra: bool = False
) -> Checkpoint:
    """The other checkpoint under the base's names, whatever its layout; headers only.

    It must have the tensors `names` and, unless allowed, none that the base lacks. Where a config
    ties the head to the embeddings, one may stand for the other.

    Raises:
        MismatchError: a tensor is missing, extra, of another shape, or weights in one checkpoint
            and integers in the other.
    """
    ours, theirs = by_canonical(base.names, base.path), by_canonical(other.names, other.path)
    if HEAD in ours and HEAD not in theirs and EMBEDDINGS in theirs and tied(other.config):
        theirs[HEAD] = theirs[EMBEDDINGS]
    own = {name: theirs[key] for key, name in ours.items() if key in theirs}
    extra = {theirs[key] for key in theirs if key not in ours}
    pair = [theirs.get(key, "") for key in (HEAD, EMBEDDINGS)]
    if pair[0] in extra and tied(other.config) and len(set(map(other.blake3, pair))) == 1:
        extra.remove(pair[0])
    names = list(names)
    missing = [name for name in names if name not in own]
    if missing or (extra and not allow_extra):
        raise MismatchError(_odd(base, other, missing, [] if allow_extra else sorted(extra)))
    renamed = Renamed(other, own)
    for name in names:
        _check_alike(name, base, renamed)
    return renamed


def _odd(base: Checkpoint, other: Checkpoint, missing: list[str], extra: list[str]) -> str:
    parts = [f"lacks {some(missing)}"] if missing else []
    parts += [f"has {some(extra)} besides"] if extra else []
    way_out = "" if missing else ", or --allow-extra leaves the rest out"
    return (
        f"{other.path}: {' and '.join(parts)}, against {base.path};"
        f" both must come from the same base{way_out}"
    )


def _check_alike(name: str, base: Checkpoint, other: Checkpoint) -> None:
    ours, theirs = base.info(name), other.info(name)
    if ours.shape != theirs.shape:
        raise MismatchError(
            f"{name}: shape {theirs.shape} in {other.path}, {ours.shape} in {base.path}"
        )
    if ours.dtype != theirs.dtype and not (ours.floating and theirs.floating):
        raise MismatchError(f"{name}: {theirs.dtype} in {other.path}, {ours.dtype} in {base.path}")
