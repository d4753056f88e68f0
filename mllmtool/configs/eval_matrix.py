"""Configs of `eval-matrix` and of `eval-matrix best`."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from mllmtool.configs.base import Config


def _in_points(text: str) -> str:
    if not re.fullmatch(r"\d+(\.\d+)?pp", text):
        raise ValueError("is not in percentage points; write 1pp for a loss of 0.01")
    return text


class EvalMatrixConfig(Config):
    """Evaluate checkpoints on a suite: the 2x2 matrix against the base, with verdicts."""

    suite: Annotated[str, Field(description="suite of tasks, YAML")]
    base: Annotated[str, Field(description="checkpoint that the others are compared with")]
    checkpoint: Annotated[
        tuple[str, ...], Field(description="checkpoint, or LABEL=checkpoint, repeated")
    ] = ()
    batch: Annotated[int, Field(description="prompts a forward pass", ge=1)] = 32
    workers: Annotated[  # of the run, not of its result: in no report's config, as is the device
        int, Field(description="processes on this machine that share it", ge=1, exclude=True)
    ] = 1
    device: Annotated[str, Field(description="auto, cpu, cuda, cuda:1, ...", exclude=True)] = "auto"
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
    margin: Annotated[
        float | None,
        Field(
            description="loss that still counts as kept, a share; default: the suite's", gt=0, lt=1
        ),
    ] = None
    bootstrap: Annotated[int, Field(description="bootstrap resamples", ge=100)] = 10000


class EvalBestConfig(Config):
    """Name the checkpoint to ship: the most gain of those that lose no more than allowed."""

    evals: Annotated[str, Field(description="directory that eval-matrix made")]
    max_loss: Annotated[
        str,
        AfterValidator(_in_points),
        Field(description="loss allowed in each quadrant of the original tasks, such as 1pp"),
    ]

    @property
    def loss(self) -> float:
        """The loss allowed, a share."""
        return float(self.max_loss.removesuffix("pp")) / 100
