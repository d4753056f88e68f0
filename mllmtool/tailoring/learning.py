"""What becomes of each tuned tensor of a model, and where in it they act."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mllmtool.configs.base import Part
from mllmtool.configs.tailor import Others
from mllmtool.errors import InputError, MismatchError, some
from mllmtool.models.parts import partition
from mllmtool.models.skeleton import Skeleton
from mllmtool.tailoring.moments import Moment
from mllmtool.tailoring.sites import Site, find_sites

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
    anchor: Moment
    held_out: Moment | None = None

    @property
    def moments(self) -> tuple[Moment, ...]:
        """All, in the order of the fields."""
        known = (self.task, self.anchor)
        return known if self.held_out is None else (*known, self.held_out)


@dataclass(frozen=True)
class Learned:
    """A tuned model: the sites to tailor, and what becomes of each tuned tensor."""

    skeleton: Skeleton
    sites: list[Site]
    treatments: dict[str, Others]
    parts: dict[str, Part]


def learn(skeleton: Skeleton, tuned: frozenset[str], treat: Treat) -> Learned:
    """Decide what becomes of each tuned tensor, and find the sites of those to tailor.

    Raises:
        InputError: a convolution to tailor has padding, dilation or groups.
        MismatchError: a tuned tensor on disk is no parameter of the model.
    """
    names, parts = skeleton.names, partition(skeleton.model)
    treatments: dict[str, Others] = {}
    part_of: dict[str, Part] = {}
    for site in find_sites(skeleton.model, names, parts, tuned):
        for place, name in enumerate(site.names):
            part_of[name] = site.uses[0].part
            treatments[name] = treat(name, part_of[name], site.is_linear and place == 0)
    if strange := sorted(tuned - set(treatments)):
        path = skeleton.checkpoint.path
        raise MismatchError(f"{path}: {some(strange)} changed, but is no parameter of the model")
    wanted = frozenset(name for name in tuned if treatments[name] == "tailor")
    sites = find_sites(skeleton.model, names, parts, wanted)
    for site in sites:
        check_convolution(site)
    return Learned(skeleton, sites, {name: treatments[name] for name in tuned}, part_of)


def check_convolution(site: Site) -> None:
    """Refuse a convolution whose patches, side by side, are not all that its kernel meets.

    Raises:
        InputError: it has padding, dilation or groups.
    """
    module: Any = site.uses[0].module
    if site.uses[0].kind != "convolution":
        return
    plain = module.groups == 1 and set(module.dilation) == {1}
    if not plain or (module.padding != "valid" and any(module.padding)):
        raise InputError(
            f"{site.names[0]}: a convolution with padding, dilation or groups cannot be tailored;"
            " pass --others pre or --others sft"
        )
