"""Config of `fuse`."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from mllmtool.configs.base import PARTS, Config, Part, Share

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
]


class FuseConfig(Config):
    """Fuse tuned checkpoints of one base, tensor by tensor, complete or not at all."""

    base: Annotated[str, Field(description="base checkpoint")]
    model: Annotated[
        tuple[str, ...],
        Field(description="tuned checkpoint or patch file, repeated", min_length=1),
    ]
    method: Annotated[FuseMethod, Field(description="how to fuse")]
    weight: Annotated[tuple[float, ...], Field(description="weight of each --model, repeated")] = ()
    density: Annotated[
        Share | None,
        Field(description="share of each task vector that is kept (ties, dare, della)", gt=0),
    ] = None
    scale: Annotated[
        float | None, Field(description="factor of the fused task vector (lambda)")
    ] = None
    epsilon: Annotated[
        float | None, Field(description="how much the density varies with the rank (della)", ge=0)
    ] = None
    workers: Annotated[
        int, Field(description="threads; they change no byte of what is made", ge=1, le=64)
    ] = 1
    parts: Annotated[
        tuple[Part, ...], Field(description="parts to fuse; the others stay as in the base")
    ] = PARTS

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.weight and len(self.weight) != len(self.model):
            raise ValueError(f"--weight: {len(self.weight)} given for {len(self.model)} --model")
        return self
