"""Config of `build-vqa`."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from mllmtool.configs.base import Config, flag

Style = Literal["multiple-choice", "yes-no", "short", "brief", "detailed"]
Answer = Literal["letter", "text"]
READ_WITH = {"confusion": "confusion", "clip": "clip", "cache": "clip"}  # flag -> --distractors


class BuildVqaConfig(Config):
    """Turn labelled images into multiple-choice samples."""

    images: Annotated[
        str,
        Field(
            description="folder with one subfolder a class; or a table: JSONL, CSV, TSV, Parquet,"
            " or a folder that `datasets` saved"
        ),
    ]
    image_column: Annotated[
        str, Field(description="the table's column of paths, or of embedded images")
    ] = "image"
    label_column: Annotated[str, Field(description="the table's column of classes")] = "class_name"
    image_root: Annotated[
        str | None,
        Field(description="folder that the table's paths are relative to; default: its own"),
    ] = None
    question: Annotated[
        tuple[str, ...],
        Field(
            description="the question, repeated for several; {letters} and {COLUMN} are filled in",
            min_length=1,
        ),
    ] = ("What is the class of this image?",)
    templates: Annotated[
        str | None, Field(description="YAML of questions and answers for each style")
    ] = None
    style: Annotated[
        tuple[Style, ...], Field(description="form of the questions, repeated", min_length=1)
    ] = ("multiple-choice",)
    answer: Annotated[Answer, Field(description="how a multiple choice is answered")] = "letter"
    options: Annotated[int, Field(description="options a question", ge=2, le=26)] = 4
    fixed_options: Annotated[
        tuple[str, ...], Field(description="options that are always shown: A,B,C")
    ] = ()
    distractors: Annotated[
        Literal["random", "confusion", "clip"],
        Field(description="which classes the wrong options are drawn from"),
    ] = "random"
    confusion: Annotated[
        str | None,
        Field(
            description="JSON of {classes, matrix}: a row a true class, a column a predicted one"
        ),
    ] = None
    clip: Annotated[str | None, Field(description="checkpoint of a CLIP or SigLIP")] = None
    topk: Annotated[
        int, Field(description="classes, the most confused or nearest, that are drawn from", ge=1)
    ] = 5
    cache: Annotated[
        str | None, Field(description="folder of embeddings; default ~/.cache/mllmtool/embeddings")
    ] = None
    per_epoch: Annotated[
        int, Field(description="versions of each question, so that epochs differ", ge=1)
    ] = 1
    distract: Annotated[
        str | None,
        Field(description="with --images ITEMS.jsonl: put this field in place of a wrong option"),
    ] = None

    @field_validator("question", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("fixed_options", mode="before")
    @classmethod
    def _by_commas(cls, value: Any) -> Any:
        texts = [value] if isinstance(value, str) else value
        if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
            return value
        return [option.strip() for text in texts for option in text.split(",")]

    @field_validator("fixed_options", "style")
    @classmethod
    def _each_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        twice = next((text for text in value if value.count(text) > 1), None)
        if twice is not None:
            raise ValueError(f"{twice} occurs twice")
        if not all(value):
            raise ValueError("an option is empty")
        return value

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.distract is not None:
            for name in type(self).model_fields:
                if name not in ("images", "distract"):
                    self._check_unread(name, "--distract")
            return self
        for name, mode in READ_WITH.items():
            if mode != self.distractors:
                self._check_unread(name, f"--distractors {self.distractors}")
        if self.distractors == "random":
            self._check_unread("topk", "--distractors random")
        elif getattr(self, self.distractors) is None:
            raise ValueError(f"--{self.distractors}: is required by --distractors")
        self._check_options()
        self._check_templates()
        return self

    def _check_options(self) -> None:
        fixed, drawn = len(self.fixed_options), self.options - 1 - len(self.fixed_options)
        if drawn < 0:
            raise ValueError(
                f"--fixed-options: {fixed} and the right one are more than --options {self.options}"
            )
        if self.distractors != "random" and self.topk < drawn:
            raise ValueError(f"--topk: {drawn} wrong options are drawn from {self.topk} classes")

    def _check_templates(self) -> None:
        if self.templates is not None:
            self._check_unread("question", "--templates")
        if "multiple-choice" not in self.style:
            for name in ("question", "answer"):
                self._check_unread(name, f"--style {self.style[0]}")

    def _check_unread(self, name: str, other: str) -> None:
        if getattr(self, name) != type(self).model_fields[name].default:
            raise ValueError(f"{flag(name)}: is not read with {other}")
