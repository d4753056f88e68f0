"""Config of `mix-data`."""

import re
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from mllmtool.configs.base import Config, Share


class Source(BaseModel):
    """One file of the mix and its share of the instances."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: Annotated[str, Field(min_length=1)]
    file: str
    share: Share
    images: Annotated[str | None, Field(description="folder of its images, in a recipe")] = None


class MixDataConfig(Config):
    """Mix sample files in exact shares of instances, with the provenance of every row."""

    source: Annotated[tuple[Source, ...], Field(description="NAME=FILE:SHARE, repeated")]
    total: Annotated[int, Field(description="rows to write", ge=1)]
    images: Annotated[
        str | None,
        Field(
            description="folder of all images; default: each file's own, or what its report says"
        ),
    ] = None
    max_repeat: Annotated[
        int, Field(description="passes over a source that is too small, at most", ge=1)
    ] = 1

    @field_validator("source", mode="before")
    @classmethod
    def _sources(cls, value: Any) -> Any:
        if not isinstance(value, list | tuple):
            raise ValueError("is not a list of sources")  # noqa: TRY004 (pydantic reads it)
        return [_source(item) if isinstance(item, str) else item for item in value]

    @model_validator(mode="after")
    def _shares(self) -> Self:
        total = sum(source.share for source in self.source)
        if abs(total - 1) > 1e-9:
            raise ValueError(f"--source: the shares sum to {total:.10g}, not to 1")
        names = [source.name for source in self.source]
        if len(set(names)) < len(names):
            raise ValueError(f"--source: a name occurs twice in {', '.join(names)}")
        return self


def _source(text: str) -> dict[str, Any]:
    name, sign, rest = text.partition("=")
    file, colon, share = rest.rpartition(":")
    if not (sign and colon):
        raise ValueError(f"{text!r} is not NAME=FILE:SHARE")
    if not re.fullmatch(r"\d*\.?\d+|\d+\.", share) or float(share) > 1:
        raise ValueError(f"{text!r}: {share!r} is not a share, a number from 0 to 1")
    return {"name": name, "file": file, "share": share}
