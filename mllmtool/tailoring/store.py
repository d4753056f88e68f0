"""Moments on disk: what later runs tailor from, at any density and weight, without a forward pass.

A directory of `moments.json` and a safetensors file for each unit that was run. Of the tuned
tensors it holds all, whatever the run that recorded them tailored. Moments are of the tuned model,
whose inputs do not depend on what is made of it.
"""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

import torch
from pydantic import TypeAdapter
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from mllmtool.checkpoints.moments import INDEX_NAME, Index, Stored, StoredMap, read_index
from mllmtool.checkpoints.saving import save_tensors
from mllmtool.errors import CheckpointError, MismatchError, NumericError, OutputError, some
from mllmtool.reports import Artifact
from mllmtool.tailoring.learning import Learned, Map
from mllmtool.tailoring.moments import Moment
from mllmtool.tailoring.sites import Site

SAVED = "moments.safetensors"  # of a step
MAPS = TypeAdapter(list[StoredMap])


class MomentsWriter:
    """Writes moments into the folders of the steps, and gathers them at `path` in the end."""

    def __init__(self, path: Path, folders: Sequence[Path]) -> None:
        """Make the hidden directory; `folders` are of the first steps, which are written.

        Raises:
            OutputError: `path` exists, or cannot be written.
        """
        self.path = path
        self._hidden = path.with_name(f".{path.name}.{os.getpid()}")
        self._folders = list(folders)
        if os.path.lexists(path):
            raise OutputError(f"{path}: exists; choose another --save-moments, or remove it")
        try:
            self._hidden.mkdir(parents=True)
        except OSError as error:
            raise OutputError(f"{path}: cannot be written: {error}") from error

    def add(self, folder: Path, maps: Sequence[Mapping[str, Map]]) -> None:
        """Write the maps of a step, those of each model, into its folder."""
        tensors: dict[int, Tensor] = {}  # by identity: layers with one input have one matrix
        stored = [
            StoredMap(
                model=model,
                names=found.names,
                part=found.part,
                has_rows=found.has_rows,
                file=_file(len(self._folders)),
                moments=tuple(_stored(moment, tensors) for moment in found.moments),
            )
            for model, each in enumerate(maps)
            for found in each.values()
        ]
        named = {str(place): tensor.float() for place, tensor in enumerate(tensors.values())}
        save_tensors(named, folder / SAVED)
        (folder / INDEX_NAME).write_bytes(MAPS.dump_json(stored))
        self._folders.append(folder)

    def finish(self, models: Sequence[str], samples: Sequence[Artifact], *, anchored: bool) -> None:
        """Gather the steps' files, write the index and let the directory appear."""
        maps: list[StoredMap] = []
        for number, folder in enumerate(self._folders):
            if here := _maps_in(folder):
                _link(folder / SAVED, self._hidden / _file(number))
                maps += here
        index = Index(
            schema="mllmtool.moments/1",
            models=tuple(models),
            samples=tuple(samples),
            anchored=anchored,
            maps=tuple(maps),
        )
        text = index.model_dump_json(by_alias=True, indent=1) + "\n"
        (self._hidden / INDEX_NAME).write_text(text, encoding="utf-8")
        self._hidden.rename(self.path)

    def discard(self) -> None:
        """Remove what is not finished."""
        shutil.rmtree(self._hidden, ignore_errors=True)


def leads_in(folder: Path) -> set[str]:
    """The first tensors of the maps that were written into a step's folder."""
    return {found.names[0] for found in _maps_in(folder)}


def _maps_in(folder: Path) -> list[StoredMap]:
    return MAPS.validate_json((folder / INDEX_NAME).read_bytes())


def _file(number: int) -> str:
    return f"{number:05d}.safetensors"


def _link(source: Path, target: Path) -> None:
    """Give a file a second name; on another disk, copy it."""
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)


def _stored(moment: Moment, tensors: dict[int, Tensor]) -> Stored:
    def key(tensor: Tensor) -> str:
        tensors.setdefault(id(tensor), tensor)
        return str(list(tensors).index(id(tensor)))

    full = None if moment.full is None else key(moment.full)
    return Stored(diagonal=key(moment.diagonal), full=full, tokens=moment.tokens)


class MomentsReader:
    """Moments that a run kept."""

    def __init__(self, path: Path, index: Index) -> None:
        self.path = path
        self.index = index

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Read the index.

        Raises:
            CheckpointError: it is missing, or no index.
        """
        return cls(Path(path), read_index(Path(path)))

    def check(self, models: Sequence[Artifact], learned: Sequence[Learned]) -> None:
        """See that these are the moments of these tuned models, and of all that is to tailor.

        Raises:
            MismatchError: they are of other checkpoints, or lack a tensor.
        """
        if len(models) != len(self.index.models):
            raise MismatchError(
                f"{self.path}: holds the moments of {len(self.index.models)} tuned models, not of"
                f" {len(models)}"
            )
        for ours, theirs in zip(models, self.index.models, strict=True):
            if ours.sha256 != theirs:
                raise MismatchError(
                    f"{self.path}: holds the moments of a model {theirs[:12]}, and {ours.path} is"
                    f" {ours.sha256[:12]}; record its own with --save-moments"
                )
        for model, each in enumerate(learned):
            there = {n for found in self.index.maps if found.model == model for n in found.names}
            wanted = {name for site in each.sites for name in site.names}
            if missing := sorted(wanted - there):
                raise MismatchError(
                    f"{self.path}: holds no moments of {some(missing)}, which differ from the base;"
                    " record them with --save-moments"
                )

    def maps(self, learned: Sequence[Learned]) -> Iterator[list[dict[str, Map]]]:
        """The maps to tailor, file by file, of each model by their first tensor.

        Raises:
            CheckpointError: a file is missing or not what the index says.
            NumericError: a moment is NaN or Inf.
        """
        for file in sorted({found.file for found in self.index.maps}):
            tensors = self._load(file)
            here: list[dict[str, Map]] = [{} for _ in learned]
            for found in self.index.maps:
                if found.file == file:
                    here[found.model][found.names[0]] = self._map(found, tensors)
            yield restrict(here, learned)

    def _load(self, file: str) -> dict[str, Tensor]:
        try:
            return load_file(self.path / file)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(
                f"{self.path / file}: is not a whole safetensors file ({error})"
            ) from error

    def _map(self, found: StoredMap, tensors: Mapping[str, Tensor]) -> Map:
        moments = []
        for stored in found.moments:
            for key in (stored.diagonal, stored.full):
                if key is not None and key not in tensors:
                    raise CheckpointError(f"{self.path / found.file}: lacks the tensor {key}")
                if key is not None and not torch.isfinite(tensors[key]).all():
                    raise NumericError(f"{found.names[0]}: its moment in {self.path} is NaN or Inf")
            full = None if stored.full is None else tensors[stored.full]
            moments.append(Moment(tensors[stored.diagonal], full, stored.tokens))
        return Map(found.names, found.part, found.has_rows, *moments)


def restrict(maps: Sequence[Mapping[str, Map]], learned: Sequence[Learned]) -> list[dict[str, Map]]:
    """Of maps of all tuned tensors, those of the sites to tailor."""
    restricted = []
    for found, each in zip(maps, learned, strict=True):
        by_name = {name: one for one in found.values() for name in one.names}
        sites = [site for site in each.sites if site.names[0] in by_name]
        restricted.append({s.names[0]: _of_site(s, by_name[s.names[0]]) for s in sites})
    return restricted


def _of_site(site: Site, found: Map) -> Map:
    """A map as it is, or of a weight without its bias, or of a bias without its weight."""
    if site.names == found.names:
        return found
    alone = site.names[0] == found.names[1]
    moments = [_bias(m) if alone else _weight(m) for m in found.moments]
    return Map(site.names, found.part, site.has_rows, *moments)


def _weight(moment: Moment) -> Moment:
    if moment.full is None:
        return moment
    return Moment(moment.diagonal, moment.full[:-1, :-1].contiguous(), moment.tokens)


def _bias(moment: Moment) -> Moment:
    """The constant 1."""
    if moment.full is None:
        return moment
    return Moment(torch.ones(1, 1), tokens=moment.tokens)
