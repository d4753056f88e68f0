"""Config of `build-vqa`."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from mllmtool.configs.base import Config


class BuildVqaConfig(Config):
    """Turn labelled images into multiple-choice samples."""

    images: Annotated[
        str, Field(description="folder with one subfolder a class, or JSONL of {image, class_name}")
    ]
    question: Annotated[str, Field(description="the question of every sample")] = (
        "What is the class of this image?"
    )
    options: Annotated[int, Field(description="options a question", ge=2, le=26)] = 4
    distractors: Annotated[
        Literal["random"], Field(description="how the wrong options are drawn")
    ] = "random"
    distract: Annotated[
        str | None,
        Field(description="with --images ITEMS.jsonl: put this field in place of a wrong option"),
    ] = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in ("question", "options", "distractors"):
            default = type(self).model_fields[name].default
            if self.distract is not None and getattr(self, name) != default:
                raise ValueError(f"--{name}: is not read with --distract")
        return self
