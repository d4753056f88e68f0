"""Config of `fuse`."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from mllmtool.configs.base import PARTS, Config, Part, Share
from mllmtool.configs.eval_matrix import Points
from mllmtool.configs.mergekit import from_mergekit, is_mergekit
from mllmtool.configs.selection import parse_pairs
from mllmtool.configs.sweep import parse_sweep, sweep_points
from mllmtool.configs.weights import Weight

FuseMethod = Literal[
    "linear",
    "wise-ft",
    "task-arithmetic",
    "ties",
    "dare",
    "dare-ties",
    "della",
    "slerp",
    "tailor",
    "model-stock",
    "breadcrumbs",
    "consensus",
    "pcb",
    "tsv-m",
    "iso-c",
    "iso-cts",
    "wudi",
    "optmerge",
    "fisher",
    "regmean",
    "knots",
]
Swept = Literal[
    "scale",
    "density",
    "epsilon",
    "gamma",
    "threshold",
    "votes",
    "common",
    "time",
    "rank",
    "alpha",
]
Dtype = Literal["float32", "float16", "bfloat16"]
Compat = Literal["mergekit"]
UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def num_bytes(size: str) -> int:
    """Of `300MB` or `1.5 GiB`.

    Raises:
        ValueError: it is no size.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", size)
    if not found or found[2].upper() not in UNITS:
        raise ValueError("is no size such as 300MB or 2GiB")
    return int(float(found[1]) * UNITS[found[2].upper()])


def _size(size: str) -> str:
    if not num_bytes(size):
        raise ValueError("is no size such as 300MB or 2GiB")
    return size


def _numbers(value: Any) -> Any:
    """`["language=0.2,1"]` as a mapping of parts to numbers; anything else as it is."""
    pairs = parse_pairs(value)
    if not isinstance(pairs, dict):
        return pairs
    return {part: x.split(",") if isinstance(x, str) else x for part, x in pairs.items()}


Size = Annotated[str, AfterValidator(_size)]


class FuseConfig(Config):
    """Fuse tuned checkpoints of one base, tensor by tensor, complete or not at all."""

    base: Annotated[str, Field(description="base checkpoint")]
    model: Annotated[
        tuple[str, ...],
        Field(description="tuned checkpoint, adapter or patch file, repeated", min_length=1),
    ]
    method: Annotated[FuseMethod, Field(description="how to fuse")]
    weight: Annotated[
        tuple[Weight, ...],
        Field(
            description="weight of each --model, repeated: X, over the depth X,Y, or by part or"
            " expression {language: [X, Y], mlp: X}, elsewhere 1"
        ),
    ] = ()
    density: Annotated[
        Share | None,
        Field(description="share of each task vector that is kept", gt=0),
    ] = None
    scale: Annotated[
        float | None, Field(description="factor of the fused task vector (lambda)")
    ] = None
    epsilon: Annotated[
        float | None, Field(description="how much the density varies with the rank (della)", ge=0)
    ] = None
    gamma: Annotated[
        Share | None,
        Field(description="share of the largest entries that is dropped (breadcrumbs)"),
    ] = None
    threshold: Annotated[
        float | None,
        Field(
            description="how many times the sum of the others an entry must be (consensus)",
            ge=0,
        ),
    ] = None
    votes: Annotated[
        int | None, Field(description="to how many tasks an entry must matter (consensus)", ge=1)
    ] = None
    common: Annotated[
        Share | None,
        Field(description="share of the singular vectors that are common to the tasks (iso-cts)"),
    ] = None
    time: Annotated[
        float | None,
        Field(description="how long gradient flow lasts; longer interferes less (wudi)", ge=0),
    ] = None
    rank: Annotated[
        Share | None,
        Field(description="share of the eigenvectors along which it goes (wudi)", gt=0),
    ] = None
    alpha: Annotated[
        Share | None,
        Field(description="factor of a moment's entries off the diagonal (regmean)"),
    ] = None
    fisher: Annotated[
        tuple[str, ...],
        Field(description="safetensors file of the Fisher diagonal of each --model, repeated"),
    ] = ()
    moments: Annotated[
        tuple[str, ...],
        Field(description="directory of tailor --save-moments, repeated (regmean)"),
    ] = ()
    workers: Annotated[
        int, Field(description="threads; they change no byte of what is made", ge=1, le=64)
    ] = 1
    parts: Annotated[
        tuple[Part, ...], Field(description="parts to fuse; the others stay as in the base")
    ] = PARTS
    max_ram: Annotated[
        Size | None,
        Field(description="memory that may be used, such as 300MB; fewer workers then"),
    ] = None
    shard_size: Annotated[
        Size | None,
        Field(description="bytes of a file, at most, such as 5GB; default: files as the base's"),
    ] = None
    scale_by: Annotated[
        dict[Part, tuple[float, ...]],
        BeforeValidator(_numbers),
        Field(description="factor of the scale in a part, PART=X, or over its depth, PART=X,Y"),
    ] = {}  # noqa: RUF012 (pydantic copies it)
    compat: Annotated[
        Compat | None, Field(description="the method as another tool defines it, in float32")
    ] = None
    dtype: Annotated[
        Dtype | None,
        Field(description="of the weights in the base, which are written so; others are refused"),
    ] = None
    rounding: Annotated[
        Literal["nearest", "stochastic"],
        Field(description="of fused 16-bit weights; stochastic: up or down by seeded chance"),
    ] = "nearest"
    only: Annotated[
        tuple[str, ...],
        Field(description="fuse only tensors whose names match a regular expression, repeated"),
    ] = ()
    except_: Annotated[
        tuple[str, ...],
        Field(
            description="leave tensors as in the base whose names match one, repeated",
            json_schema_extra={"flag": "except"},
        ),
    ] = ()
    sweep: Annotated[
        dict[Swept, Annotated[tuple[float, ...], Field(min_length=1)]],
        BeforeValidator(parse_sweep),
        Field(
            description="values to try, each combination a checkpoint, in one pass:"
            " scale=0.1:1.0:10 density=0.1,0.2",
            json_schema_extra={"words": True},
        ),
    ] = {}  # noqa: RUF012 (pydantic copies it)
    select: Annotated[
        str | None,
        Field(
            description="suite; of the sweep's checkpoints the one is kept that gains most on one"
            " half of its items and loses at most --max-loss; the other half scores it"
        ),
    ] = None
    max_loss: Annotated[
        Points,
        Field(description="loss allowed in each quadrant of the original tasks, with --select"),
    ] = "1pp"
    check_class: Annotated[
        bool,
        Field(
            description="line names and shapes up with transformers' model class first, without"
            " weights; takes seconds"
        ),
    ] = False
    allow_extra: Annotated[
        bool, Field(description="leave out tensors of the models that the base does not have")
    ] = False

    @classmethod
    def lifted(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """The values of a recipe, ours or mergekit's.

        Raises:
            ConfigError: mergekit's holds what is not served.
        """
        return from_mergekit(values) if is_mergekit(values) else super().lifted(values)

    @field_validator("only", "except_")
    @classmethod
    def _expressions(cls, expressions: tuple[str, ...]) -> tuple[str, ...]:
        for expression in expressions:
            try:
                re.compile(expression)
            except re.error as error:
                raise ValueError(f"{expression!r} is no regular expression: {error}") from error
        return expressions

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.weight and len(self.weight) != len(self.model):
            raise ValueError(f"--weight: {len(self.weight)} given for {len(self.model)} --model")
        if self.fisher and len(self.fisher) != len(self.model):
            raise ValueError(f"--fisher: {len(self.fisher)} given for {len(self.model)} --model")
        if self.select is not None and not self.sweep:
            raise ValueError("--select: chooses among the points of a --sweep, and there is none")
        if self.select is None and self.max_loss != "1pp":
            raise ValueError("--max-loss: goes with --select")
        if self.compat is not None and self.rounding != "nearest":
            raise ValueError(f"--rounding: {self.compat} rounds to the nearest")
        self.points()
        return self

    def points(self) -> dict[str, Self]:
        """What a sweep asks for, by a name that is fit for a folder; itself where there is none.

        Raises:
            ConfigError: a value is out of its range.
        """
        chosen_by = {"select": None, "max_loss": "1pp"}
        return sweep_points(self.model_copy(update=chosen_by), self.sweep, {})
