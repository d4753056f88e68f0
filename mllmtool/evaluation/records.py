"""The results as CSV files: raw figures, one row a cell, a delta, a quadrant, a checkpoint."""

import csv
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from mllmtool.evaluation.results import Results

Record = dict[str, Any]


def write_records(results: Results, folder: Path) -> None:
    """Write a file for each kind of record that there is."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, records in _records(results).items():
        if records:
            _write(folder / f"{name}.csv", records)


def _records(results: Results) -> dict[str, list[Record]]:
    return {
        "cells": [
            {"checkpoint": cell.checkpoint, "task": cell.task, "metric": name, **_flat(found)}
            for cell in results.cells
            for name, found in cell.metrics.items()
        ],
        "deltas": [
            {"checkpoint": cell.checkpoint, "task": cell.task, **_flat(cell.vs_base)}
            for cell in results.cells
            if cell.vs_base
        ],
        "quadrants": [_flat(row) for row in results.quadrants],
        "original_new": [_flat(row) for row in results.original_new],
        "stages": list(_stages(results)),
    }


def _stages(results: Results) -> Iterator[Record]:
    if results.stages is not None:
        scores = zip(results.stages.checkpoints, results.stages.scores, strict=True)
        for label, row in scores:
            yield {"checkpoint": label, **dict(zip(results.stages.tasks, row, strict=True))}


def _flat(model: BaseModel) -> Record:
    """Nested records with joined names, intervals as two columns, lists as one."""
    return dict(_columns("", model.model_dump()))


def _columns(prefix: str, values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            yield from _columns(f"{name}_", value)
        elif key in ("ci", "bounds"):
            yield from zip((f"{name}_lower", f"{name}_upper"), value, strict=True)
        else:
            yield name, " ".join(value) if isinstance(value, tuple) else value


def _write(path: Path, records: Iterable[Record]) -> None:
    rows = list(records)
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
