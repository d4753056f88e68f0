"""What became of each step of a run, kept so that a killed run goes on after the last whole one.

A state is a folder `unit-NUMBER`. For each point of a sweep it holds a patch file on the base, and
one of each tuned model where there are several, whose own weights later units see; where moments
are saved, those of the step. The report's rows are in its marker.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mllmtool.checkpoints import PatchBuilder
from mllmtool.checkpoints.patch import Patch
from mllmtool.checkpoints.states import drop_states, read_marker, whole_states, write_marker
from mllmtool.context import is_main_process
from mllmtool.tailoring.job import Job
from mllmtool.tailoring.patching import Patched, Result
from mllmtool.tailoring.stream import Step
from mllmtool.tailoring.workers import everyone

log = logging.getLogger(__name__)
Rows = dict[str, list[dict[str, Any]]]  # by point


class Kept:
    """The states of a run; `states` are the whole ones that it began with, of its first steps."""

    def __init__(self, folder: Path, job: Job, identity: Mapping[str, Any], go_on: bool) -> None:
        """Find what a killed run left, or forget it.

        Raises:
            ConfigError: it is of another run.
        """
        self.folder = folder
        self._base, self._models = job.pre, len(job.tasks)
        self._identity, self._step, self._made = dict(identity), 0, Rows()
        states: list[Path] = []
        if is_main_process():
            if not go_on:
                drop_states(folder)
            states = whole_states(folder, self._identity)
        found = everyone([state for n, state in enumerate(states) if state == self.state(n)])[0]
        self.states = found
        self.resumed_from = found[-1].name if found else None
        self._rows: list[Rows] = [read_marker(state)["rows"] for state in found]
        if found:
            log.info("going on from %s", found[-1])

    def state(self, number: int) -> Path:
        """The folder of a step."""
        return self.folder / f"unit-{number}"

    @property
    def leads(self) -> list[set[str]]:
        """The first tensors of the maps that each step solved."""
        return [
            {row["tensors"][0] for rows in each.values() for row in rows} for each in self._rows
        ]

    def steps(self, steps: Iterable[Step]) -> Iterator[Step]:
        """Hand the steps on, and declare the state of each whole once the next is asked for."""
        for self._step, step in enumerate(steps):
            self._made = {}
            yield step
            if self._writes:
                marker = {"job": self._identity, "rows": self._made}
                write_marker(self.begun(self._step), marker)

    def begun(self, number: int) -> Path:
        """The folder of a step, made; what a kill left there is written over."""
        self.state(number).mkdir(parents=True, exist_ok=True)
        return self.state(number)

    def results(self, made: Iterator[Result], point: str = "") -> Iterator[Result]:
        """The step's results at a point: as they were kept, or as they are made, to be kept."""
        if self._step < len(self.states):
            return self._read(point)
        return self._write(made, point) if self._writes else made

    @property
    def _writes(self) -> bool:
        return is_main_process() and self._step >= len(self.states)

    def _read(self, point: str) -> Iterator[Result]:
        fused, *own = [Patch.open(path) for path in self._paths(point)]
        for row in self._rows[self._step][point]:
            before = {name: self._base[name] for name in row["tensors"]}
            after = {name: fused.apply(name, tensor) for name, tensor in before.items()}
            patched = [
                Patched(name, fused.mask(name), tensor, int((tensor != before[name]).sum()))
                for name, tensor in after.items()
            ]
            finals = [
                {name: each.apply(name, before[name]) for name in before if name in each}
                for each in own
            ]
            yield Result(patched, row, finals or [after])

    def _write(self, made: Iterator[Result], point: str) -> Iterator[Result]:
        paths, rows = self._paths(point), self._made.setdefault(point, [])
        fused, *own = [PatchBuilder(self._base) for _ in paths]
        for result in made:
            rows.append(result.row)
            for patched in result.patched:
                fused.add(patched.name, patched.mask, patched.stored)
            for builder, finals in zip(own, result.finals if own else (), strict=True):
                for name, final in finals.items():
                    builder.add(name, final != self._base[name], final)
            yield result
        self.begun(self._step)
        for path, builder in zip(paths, (fused, *own), strict=True):
            builder.write(path, "", {})

    def _paths(self, point: str) -> list[Path]:
        """The patch of all models, and those of each where there are several."""
        names = ["fused", *map(str, range(self._models))] if self._models > 1 else ["fused"]
        return [self.state(self._step) / f"{point or 'patch'}.{n}.safetensors" for n in names]
