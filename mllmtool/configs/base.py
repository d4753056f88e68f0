"""What every config shares: frozen, strict about keys, errors in the words that the user typed."""

import difflib
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mllmtool.errors import ConfigError

Part = Literal["vision", "projector", "language"]
PARTS: tuple[Part, ...] = ("vision", "projector", "language")
Share = Annotated[float, Field(ge=0, le=1)]


def flag(name: str) -> str:
    """The flag of a field: `micro_batch` -> `--micro-batch`, `except_` -> `--except`."""
    return "--" + name.rstrip("_").replace("_", "-")


class Config(BaseModel):
    """A command's config. A wrong value never leaves the constructor."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    renamed: ClassVar[dict[str, str]] = {}  # keys of other tools, and what to write instead
    sections: ClassVar[tuple[str, ...]] = ()  # under which a recipe may group keys
    alternatives: ClassVar[tuple[str, ...]] = ()  # a flag of one sets aside a recipe's other

    @classmethod
    def parse(cls, values: Mapping[str, Any], origin: str = "") -> Self:
        """Validate flags or recipe keys; `origin` names the recipe file in messages.

        Raises:
            ConfigError: one line that names each flag or key that is wrong.
        """
        try:
            return cls.model_validate(cls.lifted(values))
        except ValidationError as error:
            prefix = f"{origin}: " if origin else ""
            lines = [_line(cls, issue) for issue in error.errors(include_url=False)]
            raise ConfigError(prefix + "; ".join(lines)) from error

    @classmethod
    def lifted(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """The values of a recipe, keys out of the sections that may group them, `except` too.

        Raises:
            ConfigError: a section is not a mapping, or a key is given twice.
        """
        flat = {key: value for key, value in values.items() if key not in cls.sections}
        for section in cls.sections:
            inner = values.get(section, {})
            if not isinstance(inner, Mapping):
                raise ConfigError(f"{section}: is not a mapping of keys")
            twice = sorted(set(inner) & set(flat))
            if twice:
                raise ConfigError(f"{section}: {twice[0]} is given twice")
            flat |= inner
        keywords = {key: f"{key}_" for key in flat if f"{key}_" in cls.model_fields}
        return {keywords.get(key, key): value for key, value in flat.items()}

    def default_out(self) -> str | None:
        """The output directory when `--out` is not given; None when it must be."""
        return None


class RunConfig(Config):
    """How a command is run; nothing here changes what it makes, except the seed."""

    out: Annotated[str | None, Field(description="directory to make; derived when absent")] = None
    overwrite: Annotated[bool, Field(description="replace an earlier output of mllmtool")] = False
    seed: Annotated[int, Field(description="seed of every random stream", ge=0)] = 0
    dry_run: Annotated[bool, Field(description="check everything, print the plan, stop")] = False
    quiet: Annotated[bool, Field(description="no progress and no log, errors only")] = False


def _line(config: type[Config], issue: Any) -> str:
    path = issue["loc"]
    name = flag(_spelt(config, str(path[0]))) if path else ""
    if len(path) > 1 and issue["type"] != "extra_forbidden":
        steps = [str(step) for step in path[1:] if step not in ("[key]", "word", "choice")]
        name += " (" + ".".join(steps) + ")"
    if issue["type"] == "extra_forbidden":
        outer, key = str(path[0]), str(path[-1])
        inside = f" of {outer}{_hint_inside(config, outer, key)}"
        return f"{key}: unknown key{_hint(config, key) if len(path) == 1 else inside}"
    if issue["type"] == "missing":
        return f"{name}: is required"
    reason = issue["msg"].removeprefix("Value error, ")
    if not path:  # a check of the whole config, which names its flags itself
        return str(reason)
    given = issue["input"]
    shown = f"{given!r}: " if isinstance(given, str | int | float) else ""
    return f"{name}: {shown}{reason[0].lower()}{reason[1:]}"


def _spelt(config: type[Config], key: str) -> str:
    """A key as its flag spells it."""
    field = config.model_fields.get(key)
    extra = field.json_schema_extra if field else None
    return str(extra.get("flag", key)) if isinstance(extra, dict) else key


def _hint(config: type[Config], key: str) -> str:
    if key in config.renamed:
        return f"; write {config.renamed[key]}"
    near = difflib.get_close_matches(key, list(config.model_fields), n=1, cutoff=0.5)
    if near:
        return f"; did you mean {near[0]}?"
    theirs = difflib.get_close_matches(key, list(config.renamed), n=1, cutoff=0.8)
    return f"; write {config.renamed[theirs[0]]}" if theirs else ""


def _hint_inside(config: type[Config], outer: str, key: str) -> str:
    """As `_hint`, of a key inside that of a config."""
    if f"{outer}.{key}" in config.renamed:
        return f"; write {config.renamed[f'{outer}.{key}']}"
    field = config.model_fields.get(outer)
    known = sorted(_keys_in(field.annotation)) if field else []
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else ""


def _keys_in(kind: Any) -> set[str]:
    """The keys of all the models that a type is made of."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        own = kind.model_fields
        return set(own).union(*(_keys_in(field.annotation) for field in own.values()))
    return set[str]().union(*map(_keys_in, get_args(kind)))
