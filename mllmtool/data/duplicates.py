"""Rows of a mix that say and show the same, whatever their ids, formats and image names."""

import os
from collections.abc import Mapping
from hashlib import sha256

import numpy as np

from mllmtool.data.checks import DUPLICATE, GOOD, Checks
from mllmtool.data.formats import to_sample
from mllmtool.data.rows import Rows
from mllmtool.data.samples import json_object
from mllmtool.data.texts import canonical
from mllmtool.errors import DataError


def mark_duplicates(rows: Mapping[str, Rows], checks: Mapping[str, Checks], drop: bool) -> None:
    """Let all but the first row of equal text and equal image files be duplicates.

    Only rows whose texts have one hash are read again, and only their images.

    Raises:
        DataError: there are some, and they are not to be dropped.
    """
    texts = np.concatenate([each.fields["text"] for each in rows.values()])
    good = np.concatenate([each.fields["state"] == GOOD for each in rows.values()])
    values, counts = np.unique(texts[good], return_counts=True)
    shared = values[counts > 1]
    seen: dict[bytes, tuple[str, int]] = {}
    for name, each in rows.items():
        fields = each.fields
        found = (fields["state"] == GOOD) & np.isin(fields["text"], shared)
        for index in np.flatnonzero(found).tolist():
            key = _key(each, index, checks[name])
            if key not in seen:
                seen[key] = name, index
            elif drop:
                fields["state"][index] = DUPLICATE
            else:
                first, number = seen[key]
                raise DataError(
                    f"{each.where(index)}: has the text and images of"
                    f" {rows[first].where(number)}; leave such rows out with --duplicates drop"
                )


def _key(rows: Rows, index: int, checks: Checks) -> bytes:
    part = rows.part_of(index)
    begin, length = (int(rows.fields[name][index]) for name in ("begin", "length"))
    with part.layout.path.open("rb") as file:
        values = json_object(os.pread(file.fileno(), length, begin))
    sample = to_sample(values, checks.form, "")
    images = b"".join(checks.folder.sha256(name) for name in sample.get("images", ()))
    return sha256(sha256(canonical(sample).encode()).digest() + images).digest()
