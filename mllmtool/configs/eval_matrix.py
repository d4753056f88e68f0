"""Config of `eval-matrix`."""

from typing import Annotated

from pydantic import Field

from mllmtool.configs.base import Config


class EvalMatrixConfig(Config):
    """Evaluate checkpoints on a suite: the 2x2 matrix against the base, with verdicts."""

    suite: Annotated[str, Field(description="suite of tasks, YAML")]
    base: Annotated[str, Field(description="checkpoint that the others are compared with")]
    checkpoint: Annotated[
        tuple[str, ...], Field(description="checkpoint, or LABEL=checkpoint, repeated")
    ] = ()
    batch: Annotated[int, Field(description="prompts a forward pass", ge=1)] = 32
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
