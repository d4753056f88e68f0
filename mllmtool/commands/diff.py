"""`diff`: which parts and tensors differ between two checkpoints, and by how much."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mllmtool.checkpoints import Checkpoint
from mllmtool.checkpoints.adapter import open_tuned
from mllmtool.checkpoints.difference import Difference, compare, total
from mllmtool.checkpoints.workers import in_order
from mllmtool.configs.base import PARTS
from mllmtool.configs.diff import DiffConfig
from mllmtool.errors import CheckpointError, OutputError
from mllmtool.fusion.places import by_block
from mllmtool.models.parts import part_of
from mllmtool.runner import Shown

HEADINGS = {"entries": ",d", "changed": ".2%", "relative_l2": ".3g", "max": ".3g"}
UNKNOWN = "other"  # tensors of no known part
DIFFERENT = 1  # exit status, as of diff(1)


def show(config: DiffConfig) -> Shown:
    """A table, or the same as JSON. A change is measured from A.

    Raises:
        OutputError: the picture's file exists, or cannot be written.
    """
    if config.plot and os.path.lexists(config.plot):
        raise OutputError(f"{config.plot}: exists; choose another --plot, or remove it")
    a = Checkpoint.open(config.a)
    found = _findings(a, open_tuned(config.b, a), config.workers)
    if config.plot:
        _draw(found["blocks"], Path(config.plot))
    text = json.dumps(found, indent=1, ensure_ascii=False) + "\n"
    return Shown(text if config.json_output else _text(found), 0 if found["equal"] else DIFFERENT)


def _findings(a: Checkpoint, b: Checkpoint, workers: int) -> dict[str, Any]:
    common = [name for name in a.names if name in b]
    same_shape = [name for name in common if a.info(name).shape == b.info(name).shape]
    compared = in_order(lambda name: compare(a, b, name), same_shape, workers)
    differences = dict(zip(same_shape, compared, strict=True))
    differing = {name: found for name, found in differences.items() if found.changed}
    odd = {
        "only_in_a": [name for name in a.names if name not in b],
        "only_in_b": [name for name in b.names if name not in a],
        "shapes": _pairs(a, b, common, "shape"),
        "dtypes": _pairs(a, b, common, "dtype"),
    }
    return {
        "a": str(a.path),
        "b": str(b.path),
        "equal": not differing and not any(odd.values()),
        **odd,
        "parts": _by_part(differences),
        "blocks": by_block(differences, total, _part),
        "tensors": {name: found.describe() for name, found in differing.items()},
    }


def _draw(blocks: Sequence[dict[str, Any]], path: Path) -> None:
    from mllmtool.fusion.plots import draw_depth  # slow to import

    hidden = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draw_depth(blocks, hidden)
        hidden.rename(path)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from error
    finally:
        hidden.unlink(missing_ok=True)


def _pairs(a: Checkpoint, b: Checkpoint, names: Sequence[str], field: str) -> dict[str, list[Any]]:
    """What the headers of A and B say of a tensor, where they disagree."""
    pairs = {name: [getattr(side.info(name), field) for side in (a, b)] for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _by_part(differences: dict[str, Difference]) -> dict[str, Any]:
    found = {}
    for part in (*PARTS, UNKNOWN):
        members = [each for name, each in differences.items() if _part(name) == part]
        if members:
            differing = sum(1 for each in members if each.changed)
            counts = {"tensors": len(members), "differing": differing}
            found[part] = {**counts, **total(members).describe()}
    return found


def _part(name: str) -> str:
    try:
        return part_of(name)
    except CheckpointError:
        return UNKNOWN


def _text(found: dict[str, Any]) -> str:
    lines = [f"A  {found['a']}", f"B  {found['b']}", ""]
    lines += [f"only in A: {name}" for name in found["only_in_a"]]
    lines += [f"only in B: {name}" for name in found["only_in_b"]]
    for field in ("shapes", "dtypes"):
        for name, (ours, theirs) in found[field].items():
            lines.append(f"{name}: {field.removesuffix('s')} {ours} in A, {theirs} in B")
    if found["equal"]:
        tensors = sum(part["tensors"] for part in found["parts"].values())
        return "\n".join([*lines, f"equal: all {tensors} tensors, bit for bit", ""])
    parts = [
        (part, f"{row['differing']} of {row['tensors']}", *_cells(row))
        for part, row in found["parts"].items()
    ]
    lines += _table(("part", "differ", *HEADINGS), parts)
    tensors = [(name, *_cells(row)) for name, row in found["tensors"].items()]
    if tensors:
        lines += ["", *_table(("tensor", *HEADINGS), tensors)]
    return "\n".join([*lines, ""])


def _cells(row: dict[str, Any]) -> list[str]:
    values = [(row[heading], form) for heading, form in HEADINGS.items()]
    return ["-" if value is None else format(value, form) for value, form in values]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The first column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    return [
        "  ".join(
            [row[0].ljust(widths[0])]
            + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        )
        for row in (head, *rows)
    ]
