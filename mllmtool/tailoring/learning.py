"""What a tuned model's forward passes tell about each of its tuned tensors."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from mllmtool.checkpoints import Checkpoint
from mllmtool.configs.base import Part
from mllmtool.configs.tailor import Others
from mllmtool.errors import MismatchError, some
from mllmtool.models.loading import disk_names, load_model
from mllmtool.models.parts import partition
from mllmtool.tailoring.capture import Batch, record_moments
from mllmtool.tailoring.moments import Moment
from mllmtool.tailoring.sites import find_sites

Treat = Callable[[str, Part, bool], Others]  # name, part, whether it is a Linear layer's weight


@dataclass(frozen=True)
class Map:
    """A linear map to tailor: its tensors' names on disk and the moments of its input.

    `has_rows`: the first axis of its tensors are rows; else all of a tensor is one row.
    """

    names: tuple[str, ...]
    part: Part
    has_rows: bool
    task: Moment
    anchor: Moment | None


@dataclass(frozen=True)
class Learned:
    """The maps of one tuned model by their first tensor's name, and what becomes of each tensor."""

    maps: dict[str, Map]
    treatments: dict[str, Others]
    parts: dict[str, Part]


def learn(
    path: Path,
    tuned: frozenset[str],
    treat: Treat,
    task: Iterable[Batch],
    anchor: Iterable[Batch],
) -> Learned:
    """Load the tuned model, decide what becomes of each tuned tensor, record the moments.

    Raises:
        MismatchError: a tuned tensor on disk is no parameter of the model.
    """
    model = load_model(path)
    names, parts = disk_names(model, Checkpoint.open(path)), partition(model)
    treatments: dict[str, Others] = {}
    part_of: dict[str, Part] = {}
    for site in find_sites(model, names, parts, tuned):
        for place, name in enumerate(site.names):
            part_of[name] = site.uses[0].part
            treatments[name] = treat(name, part_of[name], site.is_linear and place == 0)
    if strange := sorted(tuned - set(treatments)):
        raise MismatchError(f"{path}: {some(strange)} changed, but is no parameter of the model")
    wanted = frozenset(name for name in tuned if treatments[name] == "tailor")
    sites = find_sites(model, names, parts, wanted)
    task_moments = record_moments(model, sites, task)
    anchor_moments = record_moments(model, sites, anchor)
    maps = {
        site.names[0]: Map(
            site.names,
            site.uses[0].part,
            site.has_rows,
            task_moments[site.names[0]],
            anchor_moments[site.names[0]],
        )
        for site in sites
    }
    return Learned(maps, {name: treatments[name] for name in tuned}, part_of)
