"""Whether two checkpoints mean the same by a token, and the rows of tokens that one adds."""

from mllmtool.checkpoints import Checkpoint
from mllmtool.checkpoints.grown import GrownBase
from mllmtool.checkpoints.naming import EMBEDDINGS, by_canonical
from mllmtool.errors import MismatchError
from mllmtool.models.processors import vocabulary


def with_added_rows(pre: Checkpoint, sft: Checkpoint) -> Checkpoint:
    """The base; where the tuned checkpoint has more tokens or rows, with these as tuned.

    Raises:
        CheckpointError: a tokenizer cannot be read.
        MismatchError: a token of the base has another id in the tuned checkpoint.
    """
    if pre.folder == sft.folder:
        return pre
    ours, theirs = vocabulary(pre.folder), vocabulary(sft.folder)
    for token, place in sorted(ours.items(), key=lambda item: item[1]):
        if theirs.get(token) != place:
            there = f"the id {theirs[token]}" if token in theirs else "no id"
            raise MismatchError(
                f"{sft.path}: its tokenizer gives {token!r} {there}, that of {pre.path} the id"
                f" {place}; both must come from the same base"
            )
    name = by_canonical(pre.names, pre.path).get(EMBEDDINGS, "")
    if name not in pre or name not in sft:
        return pre
    rows, more = pre.info(name).shape[0], sft.info(name).shape[0]
    if len(theirs) == len(ours) and more <= rows:
        return pre
    return GrownBase(pre, sft, min(rows, max(ours.values()) + 1))
