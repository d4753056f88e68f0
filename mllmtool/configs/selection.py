"""How a part is trained: `frozen`, `full`, `bitfit`, `norm`, or adapters.

On the command line `full`, `lora`, `lora:RANK`, `full:q_proj,v_proj`, or the YAML of a recipe:
`{full: {last: 12}}`, `{lora: {rank: 8, dora: true}}`.
"""

from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from mllmtool.configs.yaml_text import load_yaml

Names = Annotated[tuple[str, ...], Field(min_length=1)]


class Chosen(BaseModel):
    """Which layers of a part: those of the `last` blocks, those under one of the named modules."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    modules: Names | None = None
    last: Annotated[int | None, Field(ge=1)] = None


class Full(Chosen):
    """Weights and biases themselves."""


class Lora(Chosen):
    """Low-rank adapters on Linear layers (Hu et al. 2022); merged into the output checkpoint.

    `alpha` is twice the rank unless given. `dora` learns magnitudes besides (Liu et al. 2024);
    `rslora` scales by alpha / sqrt(rank) instead of alpha / rank (Kalajdzievski 2023).
    """

    rank: Annotated[int, Field(ge=1, strict=True)] = 8
    alpha: Annotated[float, Field(gt=0)] = 16.0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    dora: bool = False
    rslora: bool = False

    @model_validator(mode="before")
    @classmethod
    def _alpha(cls, values: Any) -> Any:
        if isinstance(values, dict) and isinstance(values.get("rank"), int):
            return {"alpha": 2 * values["rank"], **values}
        return values


class Choice(BaseModel):
    """`{full: {...}}` or `{lora: {...}}`, as recipes and reports spell it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    full: Full | None = None
    lora: Lora | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.full is None) == (self.lora is None):
            raise ValueError("is neither full nor lora, or both")
        return self


Word = Literal["frozen", "full", "bitfit", "norm"]
How = Annotated[
    Annotated[Word, Tag("word")] | Annotated[Choice, Tag("choice")],
    Discriminator(lambda how: "word" if isinstance(how, str) else "choice"),
]


def parse_pairs(value: Any) -> Any:
    """`["language=full", ...]` as a mapping; anything else as it is.

    Raises:
        ValueError: a text is not `PART=...`.
    """
    if not isinstance(value, list | tuple):
        return value
    pairs = [str(item).partition("=") for item in value]
    for part, sign, how in pairs:
        if not sign:
            raise ValueError(f"{part + how!r} is not PART=VALUE")
        if [name for name, _, _ in pairs].count(part) > 1:
            raise ValueError(f"{part} is given twice")
    return {part: how for part, _, how in pairs}


def parse_mapping(value: Any) -> Any:
    """The YAML of a mapping, as a flag gives it; anything else as it is.

    Raises:
        ValueError: a text is not YAML.
    """
    if not isinstance(value, str):
        return value
    try:
        return load_yaml(value)
    except ValueError as error:
        raise ValueError(f"{value!r} is not YAML: {error}") from error


def parse_how(how: Any) -> Any:
    """Spell one way of training as pydantic reads it.

    Raises:
        ValueError: it is not of a form that the command line knows.
    """
    if isinstance(how, str) and not how.startswith("{"):
        return _short(how)
    how = parse_mapping(how)
    if isinstance(how, dict) and len(how) > 1:  # a report spells out the one that is absent
        return {key: value for key, value in how.items() if value is not None}
    return {key: value or {} for key, value in how.items()} if isinstance(how, dict) else how


def _short(how: str) -> Any:
    name, colon, rest = how.partition(":")
    if name == "lora":
        rank = rest if colon else "8"
        if not rank.isdecimal():
            raise ValueError(f"{how!r} is not lora:RANK")
        return {"lora": {"rank": int(rank)}}
    if name == "full" and colon:
        if not all(rest.split(",")):
            raise ValueError(f"{how!r} is not full:MODULE,MODULE")
        return {"full": {"modules": rest.split(",")}}
    if how not in get_args(Word):
        words = ", ".join(get_args(Word))
        raise ValueError(f"{how!r} is none of {words}, full:MODULE, lora and lora:RANK")
    return how
