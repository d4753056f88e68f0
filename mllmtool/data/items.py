"""Items of evaluation tasks: what is asked once, and what is right."""

import string
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from mllmtool.data.samples import IMAGE_MARK

LETTERS = string.ascii_uppercase
NO_OPTION = -1  # the answer's index where there are no options


class Item(BaseModel):
    """One question: with options, and the index or letter of the right one; or with answers.

    `answers` are references: any of them is right, and a caption is compared with all. They may be
    written as `references`, or one of them as `answer`. `class_option` is the index of the option
    that names the image's class, where that is wrong: what a model says that ignores the question.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    id: Annotated[str, Field(min_length=1)]
    images: tuple[str, ...] = ()
    question: str = ""
    options: Annotated[tuple[str, ...], Field(min_length=2)] = ()
    answer: Annotated[int, Field(strict=True, ge=0)] = NO_OPTION
    answers: tuple[str, ...] = ()
    class_name: str | None = None
    class_option: Annotated[int | None, Field(ge=0)] = None

    @model_validator(mode="before")
    @classmethod
    def _spellings(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        if values.get("options") == []:
            values = {key: value for key, value in values.items() if key != "options"}
        if "references" in values and "answers" not in values:
            values = {**values, "answers": values["references"]}
            del values["references"]
        answer = values.get("answer")
        if not isinstance(answer, str):
            return values
        if values.get("options"):
            place = LETTERS.find(answer.strip()) if len(answer.strip()) == 1 else NO_OPTION
            if place == NO_OPTION:
                raise ValueError(
                    f"answer: {answer!r} is no letter from A to Z; write that, or the index"
                )
            return {**values, "answer": place}
        return {"answers": [answer], **{k: v for k, v in values.items() if k != "answer"}}

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.options and self.answer != NO_OPTION:
            raise ValueError(f"answer: {self.answer} is an index, without options; write a text")
        if bool(self.options) == bool(self.answers):
            raise ValueError(
                "has no options and no answers"
                if not self.options
                else "has both options and answers"
            )
        if self.options and self.answer == NO_OPTION:
            raise ValueError("answer: is required with options")
        for key in ("answer", "class_option"):
            if (getattr(self, key) or 0) >= max(1, len(self.options)):
                raise ValueError(
                    f"{key} {getattr(self, key)} is not among {len(self.options)} options"
                )
        if any(IMAGE_MARK in text for text in (self.question, *self.options)):
            raise ValueError(f"the text holds {IMAGE_MARK}; images are put in front by the task")
        if not all(text.strip() for text in (*self.options, *self.answers)):
            raise ValueError(f"an {'option' if self.options else 'answer'} is empty")
        return self

    @property
    def distractor(self) -> int | None:
        """The index of the wrong option that names the image's class."""
        place = self.class_option
        if place is None and self.class_name in self.options:
            place = self.options.index(self.class_name)
        return None if place == self.answer else place
