"""Run tuned models unit by unit: weights, moments and solutions of one unit are in memory at once.

Where later units see tailored inputs, as in the paper's code, a unit runs twice: with the tuned
weights to record its moments, then with what was made of them to go on. Else it runs once.
"""

from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_map_only

from mllmtool.checkpoints import Checkpoint
from mllmtool.tailoring.capture import MASKS, Batch, Recorder, site_moment, use_moments
from mllmtool.tailoring.learning import Learned, Map
from mllmtool.tailoring.memory import trim
from mllmtool.tailoring.moments import Moment
from mllmtool.tailoring.passes import Pass, park, stop_at
from mllmtool.tailoring.sites import Site, Use, find_units
from mllmtool.tailoring.workers import add_up, everyone


@dataclass(frozen=True)
class Place:
    """Where to compute, and where activations that wait lie (None: in memory)."""

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    folder: Path | None = None


@dataclass
class Step:
    """The maps of every tuned model that are known once a unit was run, by their first tensor.

    `finals` are what was made of their tensors, of each model's alone where there are several:
    whoever makes them puts them here before asking for the next step, whose inputs they shape.
    """

    maps: list[dict[str, Map]]
    finals: list[dict[str, Tensor]] = field(default_factory=list)


@dataclass(frozen=True)
class _Running:
    masks: Batch
    forward: Pass


class Stream:
    """The passes of one tuned model over its samples and the anchors."""

    def __init__(
        self, learned: Learned, base: Checkpoint, samples: Sequence[Iterable[Batch]], place: Place
    ) -> None:
        """Begin every pass; `samples` are batches of the task and of the anchors."""
        model = learned.skeleton.model
        self.units = dict(find_units(model))
        self._head = model.get_output_embeddings()
        self._unread = _unread(model, list(self.units))
        self._skeleton, self._base, self._place = learned.skeleton, base, place
        self._reverted = {name for name, what in learned.treatments.items() if what == "pre"}
        self._sites = list(learned.sites)
        self._load_loose(model)
        self._leads = {use: site.names[0] for site in learned.sites for use in site.uses}
        self._known: list[dict[Use, Moment]] = [{} for _ in samples]
        stop_at(self.units)
        self._sets = [[self._begin(batch) for batch in batches] for batches in samples]

    @property
    def waiting(self) -> set[str]:
        """The units that its passes wait for, while there is a site to learn of in one."""
        if not any(use.unit for site in self._sites for use in site.uses):
            return set()
        return {one.forward.call.unit for one in self._running()} - {""}

    def record(self, unit: str, before: Collection[str], *, and_go_on: bool) -> dict[str, Map]:
        """Run a unit with the tuned weights; the maps that are known by now.

        A unit that a pass calls again is recorded again, if it may go on. Maps that were known
        `before`, named by their first tensors, are left out.

        Raises:
            NumericError: an input is NaN or Inf, or a weight is.
        """
        self._leave_out(before)
        uses = [use for site in self._sites for use in site.uses if use.unit == unit]
        if uses or and_go_on:
            weights = self._weights(unit)
            for known, some in zip(self._known, self._sets, strict=True):
                recorder = Recorder(uses)
                while waiting := self._at(unit, some):
                    for one in waiting:
                        with recorder.watching(one.masks):
                            output = self._run(one, weights, inputs_only=not and_go_on)
                        if and_go_on:
                            self._answer(one, output)
                    if not and_go_on:
                        break
                add_up(recorder)
                known.update(use_moments(recorder, self._leads))
        return self._ready()

    def go_on(self, unit: str, finals: Mapping[str, Tensor]) -> None:
        """Run a unit with the weights that will be stored; these, where there are no others."""
        weights = self._weights(unit, finals)
        while waiting := self._at(unit, self._running()):
            for one in waiting:
                self._answer(one, self._run(one, weights))

    def rest(self, before: Collection[str]) -> dict[str, Map]:
        """The maps outside of all units, and those of units that no pass reached."""
        self._leave_out(before)
        for known, some in zip(self._known, self._sets, strict=True):
            missing = [use for site in self._sites for use in site.uses if use not in known]
            recorder = Recorder(missing)
            for use in missing:
                for _ in some if not use.unit else ():
                    recorder.count(use)
            add_up(recorder)
            known.update(use_moments(recorder, self._leads))
        return self._ready()

    def close(self) -> None:
        """End all passes."""
        for one in self._running():
            one.forward.close()

    def _leave_out(self, leads: Collection[str]) -> None:
        self._sites = [site for site in self._sites if site.names[0] not in leads]

    def _load_loose(self, model: nn.Module) -> None:
        """Read the few parameters outside of all units; they stay."""
        inside = {inner for unit in self.units.values() for inner in unit.modules()}
        for path, module in model.named_modules():
            for name, stub in (
                module.named_parameters(recurse=False) if module not in inside else ()
            ):
                disk = self._skeleton.names[f"{path}.{name}" if path else name]
                tensor = self._skeleton.checkpoint[disk].to(stub.dtype)
                module._parameters[name] = nn.Parameter(tensor, requires_grad=False)

    def _begin(self, batch: Batch) -> _Running:
        inputs = {key: value for key, value in batch.items() if key != "labels"}
        if self._place.folder is not None:
            park(inputs, self._place.folder)
        forward = Pass(partial(self._skeleton.model, **inputs), self._place.folder)
        forward.begin()
        return _Running({key: batch[key] for key in MASKS.values() if key in batch}, forward)

    def _running(self) -> list[_Running]:
        return [one for some in self._sets for one in some]

    def _at(self, unit: str, some: Sequence[_Running]) -> list[_Running]:
        return [one for one in some if one.forward.call.unit == unit]

    def _weights(self, unit: str, finals: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """A unit's tensors on the device: tuned, or as they will be stored."""
        module = self.units[unit]
        weights = {**dict(module.named_parameters()), **dict(module.named_buffers())}
        for name, disk in self._skeleton.tensors(unit, module).items():
            weights[name] = self._stored(disk, finals).to(weights[name].dtype)
        return {name: tensor.to(self._place.device) for name, tensor in weights.items()}

    def _stored(self, name: str, finals: Mapping[str, Tensor] | None) -> Tensor:
        if finals is not None and name in finals:
            return finals[name]
        back = finals is not None and name in self._reverted
        return self._base[name] if back else self._skeleton.checkpoint[name]

    def _run(self, one: _Running, weights: dict[str, Tensor], *, inputs_only: bool = False) -> Any:
        """What the unit that a pass waits for puts out; nothing from the head, which is the end."""
        call, device, output = one.forward.call, self._place.device, None
        module = self.units[call.unit]
        args, kwargs = tree_map_only(Tensor, lambda t: t.to(device), (call.args, call.kwargs))
        with torch.no_grad(), _inputs_only(module, inputs_only or module is self._head):
            output = functional_call(module, weights, args, kwargs)
        return tree_map_only(Tensor, Tensor.cpu, output)

    def _answer(self, one: _Running, output: Any) -> None:
        call = one.forward.call
        if self.units[call.unit] is self._head:
            one.forward.close()
            return
        one.forward.answer(output)
        if call.unit in self._unread:
            call.args[0].set_()

    def _ready(self) -> dict[str, Map]:
        """Take the sites out whose moments are all known."""
        ready = [s for s in self._sites if all(u in k for u in s.uses for k in self._known)]
        self._sites = [site for site in self._sites if site not in ready]
        return {site.names[0]: self._map(site) for site in ready}

    def _map(self, site: Site) -> Map:
        name, checkpoint = site.names[0], self._skeleton.checkpoint
        moments = [site_moment(site, known, lambda: checkpoint[name]) for known in self._known]
        for known in self._known:
            for use in site.uses:
                del known[use]
        return Map(site.names, site.uses[0].part, site.has_rows, *moments)


def steps(
    streams: Sequence[Stream], *, follow: bool, known: Sequence[Collection[str]] = ()
) -> Generator[Step]:
    """Run the tuned models side by side, unit by unit; `follow`: on what is made of them.

    Of the units that passes wait for, the first that the model defines is run: towers come before
    the language model, so that a pass without an image waits there for the others. `known`: the
    first tensors of the maps of each of the first steps, which then are not learnt again.
    """
    order, leads = list(streams[0].units), iter(known)
    try:
        while waiting := set().union(*everyone(set().union(*(s.waiting for s in streams)))):
            unit, before = min(waiting, key=order.index), next(leads, ())
            step = Step([stream.record(unit, before, and_go_on=not follow) for stream in streams])
            trim()
            yield step
            step.maps.clear()  # whoever asks for the next step still holds this one
            trim()
            if follow:
                for stream, finals in zip(streams, step.finals, strict=True):
                    stream.go_on(unit, finals)
            step.finals.clear()
        before = next(leads, ())
        yield Step([stream.rest(before) for stream in streams])
    finally:
        for stream in streams:
            stream.close()


def _unread(model: Any, units: Sequence[str]) -> set[str]:
    """The blocks of a LLaVA's tower whose inputs it collects, of all blocks, and never reads."""
    wanted = getattr(model.config, "vision_feature_layer", None)
    if wanted is None:
        return set()
    tower = set(model.get_encoder(modality="image").modules())
    blocks = [
        u for u in units if u.endswith(tuple("0123456789")) and model.get_submodule(u) in tower
    ]
    read = {n % (len(blocks) + 1) for n in ([wanted] if isinstance(wanted, int) else wanted)}
    return {unit for number, unit in enumerate(blocks) if number not in read}


class _SeenError(Exception):
    """A module's inputs were seen, and its outputs are not wanted."""


@contextmanager
def _inputs_only(module: nn.Module, wanted: bool) -> Iterator[None]:
    """Leave the module once its own hooks are done, if it is one without parts."""
    if not wanted or next(module.children(), None) is not None:
        yield
        return

    def leave(*_: object) -> None:
        raise _SeenError

    hook = module.register_forward_pre_hook(leave)
    try:
        with suppress(_SeenError):
            yield
    finally:
        hook.remove()
