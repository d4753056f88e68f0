"""The index of moments on disk: `tailor` writes and reads them, `fuse` reads them."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from mllmtool.configs.base import Part
from mllmtool.errors import CheckpointError
from mllmtool.reports import Artifact

INDEX_NAME = "moments.json"


class Stored(BaseModel):
    """A moment: the names of its tensors in its file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    diagonal: str
    full: str | None
    tokens: float = Field(ge=0)


class StoredMap(BaseModel):
    """The moments of a map of one tuned model, and the file that holds them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: int = Field(ge=0)
    names: tuple[str, ...] = Field(min_length=1, max_length=2)
    part: Part
    has_rows: bool
    file: str = Field(pattern=r"^\d{5}\.safetensors$")
    moments: tuple[Stored, ...] = Field(min_length=2, max_length=3)  # the task's first


class Index(BaseModel):
    """What `moments.json` holds. `models` are the tuned checkpoints' fingerprints, in order."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_: Literal["mllmtool.moments/1"] = Field(alias="schema")
    models: tuple[str, ...]
    samples: tuple[Artifact, ...]
    anchored: bool
    maps: tuple[StoredMap, ...]


def read_index(path: Path) -> Index:
    """The index of a directory of moments.

    Raises:
        CheckpointError: it is missing, or no index.
    """
    try:
        return Index.model_validate_json((path / INDEX_NAME).read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(
            f"{path}: holds no {INDEX_NAME}; make it with tailor --save-moments"
        ) from error
    except ValueError as error:
        raise CheckpointError(f"{path / INDEX_NAME}: is not an index of moments") from error
