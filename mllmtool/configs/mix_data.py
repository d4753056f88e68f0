"""Config of `mix-data`."""

import math
import re
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from mllmtool.configs.base import Config, Share

Format = Literal["messages", "llava", "sharegpt", "alpaca", "prompt-response"]
Control = Literal["other-text", "other-image", "other-both"]
Unit = Literal["instances", "tokens", "images"]
Reason = Literal["text", "image", "id"]
Mode = Literal["hybrid", "replay", "concat"]
Order = Literal["shuffle", "blocks", "source"]
REASONS: tuple[Reason, ...] = ("text", "image", "id")
SHARE = r"\d*\.?\d+|\d+\."


class Source(BaseModel):
    """Files of the mix under one name, and their share of it. `file` may be a pattern with `*`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: Annotated[str, Field(min_length=1)]
    file: str
    share: Share | None = None
    images: Annotated[str | None, Field(description="folder of its images, in a recipe")] = None
    format: Annotated[Format | None, Field(description="of its rows; default: detected")] = None
    max_repeat: Annotated[int | None, Field(description="instead of --max-repeat", ge=1)] = None
    control: Annotated[Control | None, Field(description="pair images and texts anew")] = None


class MixDataConfig(Config):
    """Mix sample files in exact shares of instances, with the provenance of every row."""

    source: Annotated[
        tuple[Source, ...],
        Field(description="NAME=FILE:SHARE, repeated; NAME=FILE where a mode takes no shares"),
    ]
    mode: Annotated[
        Mode,
        Field(
            description="hybrid: in shares; replay: all of the last source and --replay of each"
            " earlier one; concat: all of each"
        ),
    ] = "hybrid"
    total: Annotated[
        int | None, Field(description="rows to write, or what --unit counts", ge=1)
    ] = None
    all_of: Annotated[
        str | None, Field(description="every row of this source once, the others by their shares")
    ] = None
    keep_target: Annotated[
        int | None,
        Field(description="this many of the first source, the others by their shares", ge=1),
    ] = None
    replay: Annotated[
        int | None, Field(description="with --mode replay: of each earlier source", ge=1)
    ] = None
    unit: Annotated[Unit, Field(description="what shares, totals and --replay count")] = "instances"
    tokenizer: Annotated[
        str | None, Field(description="checkpoint or tokenizer.json that counts --unit tokens")
    ] = None
    normalize: Annotated[bool, Field(description="divide the shares by their sum")] = False
    max_repeat: Annotated[
        int, Field(description="passes over a source that is too small, at most", ge=1)
    ] = 1
    order: Annotated[
        Order | None,
        Field(
            description="of the rows; blocks: shuffled such that every --block rows have the"
            " shares; default: shuffle, or source with --mode concat"
        ),
    ] = None
    block: Annotated[int | None, Field(description="rows, with --order blocks", ge=1)] = None
    control: Annotated[
        tuple[str, ...],
        Field(description="NAME=other-text|other-image|other-both, repeated: pair it anew"),
    ] = ()
    images: Annotated[
        str | None,
        Field(
            description="folder of all images; default: each file's own, or what its report says"
        ),
    ] = None
    format: Annotated[Format | None, Field(description="of all sources; default: detected")] = None
    check_images: Annotated[bool, Field(description="decode every image")] = False
    on_invalid: Annotated[
        Literal["error", "drop"], Field(description="what to do with an invalid row")
    ] = "error"
    duplicates: Annotated[
        Literal["keep", "drop", "error"],
        Field(description="rows of equal text and images; keep does not look for them"),
    ] = "keep"
    exclude: Annotated[
        tuple[str, ...],
        Field(description="suite.yaml, items or samples to keep out, repeated"),
    ] = ()
    exclude_by: Annotated[
        tuple[Reason, ...], Field(description="what makes a row one of these, repeated")
    ] = REASONS
    write: Annotated[Literal["jsonl", "parquet"], Field(description="format of the output")] = (
        "jsonl"
    )
    shard: Annotated[
        str | None, Field(description="I/N: write part I, from 0, of N parts of the mix")
    ] = None
    workers: Annotated[
        int, Field(description="processes; they change no byte", ge=1, exclude=True)
    ] = 1

    @field_validator("source", mode="before")
    @classmethod
    def _sources(cls, value: Any) -> Any:
        if not isinstance(value, list | tuple):
            raise ValueError("is not a list of sources")  # noqa: TRY004 (pydantic reads it)
        return [_source(item) if isinstance(item, str) else item for item in value]

    @field_validator("shard")
    @classmethod
    def _shard(cls, value: str | None) -> str | None:
        if value is not None:
            found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", value)
            if not found or int(found[1]) >= int(found[2]):
                raise ValueError("is not I/N with I below N")
        return value

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = [source.name for source in self.source]
        if not names:
            raise ValueError("--source: is required")
        if len(set(names)) < len(names):
            raise ValueError(f"--source: a name occurs twice in {', '.join(names)}")
        if self.mode == "hybrid":
            self._check_shares()
        self._check_budget(names)
        self._check_controls(names)
        self._check_companions()
        return self

    def _check_shares(self) -> None:
        for source in self.source:
            if source.share is None:
                raise ValueError(f"--source: {source.name} has no share; write NAME=FILE:SHARE")
        total = sum(self.shares)
        if abs(total - 1) > 1e-9 and not self.normalize:
            raise ValueError(
                f"--source: the shares sum to {total:.10g}, not to 1; --normalize divides by it"
            )
        if not total:
            raise ValueError("--source: every share is 0")

    def _check_budget(self, names: list[str]) -> None:
        given = {
            "--total": self.total,
            "--all-of": self.all_of,
            "--keep-target": self.keep_target,
            "--replay": self.replay,
        }
        flags = [flag for flag, value in given.items() if value is not None]
        wanted = {"hybrid": ["--total", "--all-of", "--keep-target"], "replay": ["--replay"]}
        allowed = wanted.get(self.mode, [])
        if len(flags) != min(1, len(allowed)) or not set(flags) <= set(allowed):
            needs = f"one of {', '.join(allowed)}" if allowed else "no budget"
            raise ValueError(
                f"--mode {self.mode}: takes {needs}; given: {', '.join(flags) or 'none'}"
            )
        anchor = self.all_of if self.all_of is not None else names[0]
        if anchor not in names:
            raise ValueError(f"--all-of: {anchor} is not among the sources {', '.join(names)}")
        if self.total is None and self.mode == "hybrid" and not self.shares[names.index(anchor)]:
            raise ValueError(
                f"{flags[0]}: the share of {anchor} is 0, so no number follows from it"
            )

    def _check_controls(self, names: list[str]) -> None:
        for text in self.control:
            name, _, kind = text.partition("=")
            if name not in names or kind not in Control.__args__:  # type: ignore[attr-defined]
                raise ValueError(
                    f"--control: {text!r} is not NAME=other-text, other-image or other-both"
                    f" with a NAME among {', '.join(names)}"
                )

    def _check_companions(self) -> None:
        if (self.unit == "tokens") != (self.tokenizer is not None):
            raise ValueError("--tokenizer: goes with --unit tokens, and that needs it")
        if (self.order == "blocks") != (self.block is not None):
            raise ValueError("--block: goes with --order blocks, and that needs it")

    @property
    def shares(self) -> list[float]:
        """Of the sources, as given; where a mode has none, zeros."""
        return [source.share or 0 for source in self.source]

    @property
    def controls(self) -> dict[str, Control]:
        """The sources that are paired anew."""
        found = {source.name: source.control for source in self.source if source.control}
        found |= dict(text.split("=", 1) for text in self.control)  # type: ignore[arg-type]
        return found

    @property
    def arrangement(self) -> Order:
        """The order, with its default."""
        return self.order or ("source" if self.mode == "concat" else "shuffle")

    def part(self, rows: int) -> range:
        """The rows of the mix, of so many, that this run writes."""
        index, parts = map(int, (self.shard or "0/1").split("/"))
        return range(rows * index // parts, rows * (index + 1) // parts)


def _source(text: str) -> dict[str, Any]:
    name, sign, rest = text.partition("=")
    if not (sign and name and rest):
        raise ValueError(f"{text!r} is not NAME=FILE:SHARE")
    file, colon, share = rest.rpartition(":")
    if not colon or "/" in share:  # a file alone
        return {"name": name, "file": rest}
    if not re.fullmatch(SHARE, share) or not math.isfinite(float(share)) or float(share) > 1:
        raise ValueError(f"{text!r}: {share!r} is not a share, a number from 0 to 1")
    return {"name": name, "file": file, "share": share}
