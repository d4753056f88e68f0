"""A sweep: many patches from one pass over the moments."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mllmtool.checkpoints import PatchBuilder
from mllmtool.checkpoints.patch import PATCH_NAME
from mllmtool.configs.tailor import TailorConfig
from mllmtool.tailoring.job import Job
from mllmtool.tailoring.kept import Kept
from mllmtool.tailoring.learning import Learned
from mllmtool.tailoring.matrix import Choices
from mllmtool.tailoring.patching import Patched, tailored_maps, tuned_tensors
from mllmtool.tailoring.presets import choices_of
from mllmtool.tailoring.stream import Step


@dataclass
class Point:
    """One combination of a sweep's values, the patch that it makes and its rows of the report."""

    name: str
    choices: Choices
    builder: PatchBuilder
    rows: list[dict[str, Any]] = field(default_factory=list)

    def take(self, patches: Iterable[Patched], row: dict[str, Any]) -> None:
        """Hold what became of a map or of a tensor."""
        self.rows.append(row)
        for patched in patches:
            self.builder.add(patched.name, patched.mask, patched.stored)

    def write(self, into: Path, origin: tuple[str, dict[str, Any]]) -> None:
        """Write the patch into a folder of its name; `origin`: the base's hash, how it was made."""
        (into / self.name).mkdir()
        self.builder.write(into / self.name / PATCH_NAME, *origin)


def sweep_points(
    config: TailorConfig, work: tuple[Job, Sequence[Learned], Kept], steps: Iterable[Step]
) -> Iterator[list[Point]]:
    """Yield the points after each step, the last time complete."""
    job, learned, kept = work
    base, tuned = job.pre, [task.checkpoint for task in job.tasks]
    points = [
        Point(name, choices_of(each), PatchBuilder(base)) for name, each in config.points().items()
    ]
    for step in kept.steps(steps):
        for point in points:
            made = tailored_maps(base, tuned, step.maps, point.choices)
            for result in kept.results(made, point.name):
                point.take(result.patched, result.row)
        yield points
    for point in points:
        for patched, row in tuned_tensors(base, tuned, learned, point.choices):
            point.take(patched, row)
    yield points
