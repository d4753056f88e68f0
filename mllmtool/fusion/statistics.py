"""What is known of the tuned models' data: Fisher diagonals, and moments of layers' inputs."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mllmtool.checkpoints import Checkpoint
from mllmtool.checkpoints.align import lined_up
from mllmtool.checkpoints.dtypes import Array, widen
from mllmtool.checkpoints.moments import read_index
from mllmtool.checkpoints.reader import Place, places_in
from mllmtool.errors import CheckpointError, MismatchError


def open_diagonal(path: str, base: Checkpoint, names: Iterable[str]) -> Checkpoint:
    """A safetensors file of a Fisher diagonal: an entry for each entry of each tensor `names`.

    Raises:
        CheckpointError: it is missing, or not whole.
        MismatchError: it lacks a tensor, or has one of another shape.
    """
    if not Path(path).is_file():
        raise CheckpointError(f"{path}: no such file; a Fisher diagonal is a safetensors file")
    return lined_up(base, Checkpoint(Path(path), places_in(Path(path))), names, allow_extra=True)


@dataclass(frozen=True)
class Gram:
    """Where the mean of $x^T x$ over the inputs x of a linear layer lies."""

    key: str
    place: Place

    def read(self, columns: int) -> Array:
        """It, (columns, columns), float64; the column of ones of a bias is left out.

        Raises:
            MismatchError: it is of another layer.
            NumericError: it holds NaN or Inf.
        """
        file, shape = self.place.path, self.place.info.shape
        if shape not in ((columns, columns), (columns + 1, columns + 1)):
            raise MismatchError(f"{file}: a moment of shape {shape} is of no {columns} inputs")
        entries = Checkpoint(file, {self.key: self.place}).read(self.key)
        gram = widen(entries, self.place.info.dtype, np.float64)
        return gram.reshape(shape)[:columns, :columns]


class Moments:
    """Directories that `tailor --save-moments` made, of one tuned model or several."""

    def __init__(self, paths: Sequence[str]) -> None:
        """Read the indexes.

        Raises:
            CheckpointError: one is missing, or no index.
        """
        self._indexes = {Path(path): read_index(Path(path)) for path in paths}

    @property
    def given(self) -> bool:
        """Whether there are any."""
        return bool(self._indexes)

    def of(self, fingerprint: str) -> Mapping[str, Gram]:
        """The moments of a model's linear layers, by the name of the weight.

        Raises:
            CheckpointError: a file is missing or not what the index says.
            MismatchError: there are none of this model.
        """
        path = next((p for p, i in self._indexes.items() if fingerprint in i.models), None)
        if path is None:
            where = ", ".join(map(str, self._indexes))
            raise MismatchError(
                f"{where}: holds no moments of a model {fingerprint[:12]};"
                " record them with tailor --save-moments"
            )
        index = self._indexes[path]
        model, grams = index.models.index(fingerprint), dict[str, Gram]()
        files = {each.file: places_in(path / each.file) for each in index.maps}
        for found in index.maps:
            here, moment = files[found.file], found.moments[0]
            if found.model != model or moment.full is None:
                continue
            if missing := [key for key in (moment.full, moment.diagonal) if key not in here]:
                raise CheckpointError(f"{path / found.file}: lacks the tensor {missing[0]}")
            if here[moment.diagonal].info.size == 1:  # else its rows have moments of their own
                grams[found.names[0]] = Gram(moment.full, here[moment.full])
        return grams
