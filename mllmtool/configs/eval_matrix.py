"""Configs of `eval-matrix` and its commands."""

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from mllmtool.configs.base import Config

Margin = Annotated[
    float | None,
    Field(description="loss that still counts as kept, a share; default: the suite's", gt=0, lt=1),
]
Bootstrap = Annotated[int, Field(description="bootstrap resamples", ge=100)]


def _in_points(text: str) -> str:
    if not re.fullmatch(r"\d+(\.\d+)?pp", text):
        raise ValueError("is not in percentage points; write 1pp for a loss of 0.01")
    return text


Points = Annotated[str, AfterValidator(_in_points)]


def as_share(points: Points) -> float:
    """Of `1pp`: 0.01."""
    return float(points.removesuffix("pp")) / 100


class EvalMatrixConfig(Config):
    """Evaluate checkpoints on a suite: the 2x2 matrix against the base, with verdicts."""

    suite: Annotated[str | None, Field(description="suite of tasks, YAML")] = None
    base: Annotated[
        str | None, Field(description="checkpoint that the others are compared with")
    ] = None
    checkpoint: Annotated[
        tuple[str, ...],
        Field(
            description="checkpoint, LABEL=checkpoint, or a pattern such as 'runs/*/checkpoint-*';"
            " repeated"
        ),
    ] = ()
    batch: Annotated[int, Field(description="prompts a forward pass", ge=1)] = 32
    workers: Annotated[  # of the run, not of its result: in no report's config, as is the device
        int, Field(description="processes on this machine that share it", ge=1, exclude=True)
    ] = 1
    device: Annotated[str, Field(description="auto, cpu, cuda or cuda:N", exclude=True)] = "auto"
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"], Field(description="what is computed in")
    ] = "float32"
    cache: Annotated[
        str | None,
        Field(
            description="directory of predictions to take and to add to; default: one beside the"
            " output until that is whole"
        ),
    ] = None
    limit: Annotated[
        int | None, Field(description="items a task, drawn by the seed; default all", ge=1)
    ] = None
    margin: Margin = None
    bootstrap: Bootstrap = 10000
    stages: Annotated[
        tuple[str, ...],
        Field(
            description="LABEL or LABEL=TASK of each stage of a sequence of fine-tunings, in order;"
            " default tasks: the new ones"
        ),
    ] = ()
    only: Annotated[
        Literal["score", "report"] | None,
        Field(description="score the predictions of --evals again, or only write its report again"),
    ] = None
    evals: Annotated[
        str | None, Field(description="directory that eval-matrix made, with --only")
    ] = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.only is None) != (self.evals is None):
            raise ValueError("--only: goes with --evals, the directory of the predictions")
        if self.only is None:
            lacking = [flag for flag in ("suite", "base") if getattr(self, flag) is None]
            if lacking:
                raise ValueError("; ".join(f"--{flag}: is required" for flag in lacking))
        elif self.base is not None or self.checkpoint or self.limit is not None:
            raise ValueError("--only: runs no model; leave --base, --checkpoint and --limit away")
        elif self.only == "report" and (self.margin is not None or self.stages):
            raise ValueError(
                "--only: report judges nothing anew; take score for another --margin or --stages"
            )
        return self

    def default_out(self) -> str | None:
        """`eval` -> `eval-score`."""
        return f"{Path(self.evals)}-{self.only}" if self.evals else None


class EvalBestConfig(Config):
    """Name the checkpoint to ship: the most gain of those that lose no more than allowed."""

    evals: Annotated[str, Field(description="directory that eval-matrix made")]
    max_loss: Annotated[
        Points,
        Field(description="loss allowed in each quadrant of the original tasks, such as 1pp"),
    ]


class EvalCompareConfig(Config):
    """Compare any two checkpoints of an evaluation, task by task, with paired tests."""

    a: Annotated[str, Field(description="label", json_schema_extra={"argument": True})]
    b: Annotated[str, Field(description="label of the other", json_schema_extra={"argument": True})]
    evals: Annotated[str, Field(description="directory that eval-matrix made")]
    task: Annotated[tuple[str, ...], Field(description="task, repeated; default all")] = ()
    suite: Annotated[str | None, Field(description="the suite, where it lies elsewhere by now")] = (
        None
    )
    margin: Annotated[
        float | None,
        Field(
            description="loss that still counts as kept, a share; default: the evaluation's",
            gt=0,
            lt=1,
        ),
    ] = None
    bootstrap: Bootstrap = 10000
    json_output: Annotated[
        bool, Field(description="print JSON instead of a table", json_schema_extra={"flag": "json"})
    ] = False


class EvalCheckConfig(Config):
    """Check a suite: items, images, prompts, and what of it is in training samples too."""

    suite: Annotated[str, Field(description="suite of tasks, YAML")]
    samples: Annotated[
        tuple[str, ...], Field(description="training samples to look for its items in, repeated")
    ] = ()
    margin: Margin = None
