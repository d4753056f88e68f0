"""Labelled images as questions: items to evaluate, samples to train on.

A question depends on the seed, its id and the classes alone (and on what its image is near to),
so that leaving images out or adding some changes no other question.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from mllmtool.configs.build_vqa import Answer, Style
from mllmtool.data.distractors import Pool
from mllmtool.data.items import LETTERS
from mllmtool.data.labelled import Labelled
from mllmtool.data.samples import IMAGE_MARK
from mllmtool.data.styles import CHOICE, Template, draw_facts
from mllmtool.errors import ConfigError


@dataclass(frozen=True)
class Questions:
    """Makes the items of an image: each style, each in `versions` versions.

    The multiple choice has the image's id, another style `#style` after it, and the versions of a
    question `#1`, `#2` after that. Versions of a multiple choice all differ.
    """

    templates: Mapping[Style, Sequence[Template]]
    pool: Pool
    versions: int
    rng: Callable[[str], Random]

    def items(self, labelled: Labelled) -> Iterator[dict[str, Any]]:
        """The items of an image.

        Raises:
            ConfigError: there are fewer ways to ask than versions.
        """
        for style in self.templates:
            yield from self._versions(style, labelled)

    def _versions(self, style: Style, labelled: Labelled) -> Iterator[dict[str, Any]]:
        templates = self.templates[style]
        if style == CHOICE and self.versions > 1:
            self._check_ways(labelled, len(set(templates)) * self.pool.ways(labelled))
        seen = []
        for number in range(1, self.versions + 1):
            key = labelled.key if style == CHOICE else f"{labelled.key}#{style}"
            name = f"{key}#{number}" if self.versions > 1 else key
            rng = self.rng(f"build-vqa/{name}")
            facts = draw_facts(style, labelled, templates, self.pool, rng)
            while style == CHOICE and facts in seen:
                facts = draw_facts(style, labelled, templates, self.pool, rng)
            seen.append(facts)
            yield {
                "id": name,
                "images": [labelled.image],
                **facts._asdict(),
                "class_name": labelled.class_name,
                "style": style,
            }

    def _check_ways(self, labelled: Labelled, ways: int) -> None:
        if ways < self.versions:
            raise ConfigError(
                f"--per-epoch: {labelled.class_name} can be asked in {ways} ways, fewer than"
                f" {self.versions}"
            )


def sample(item: Mapping[str, Any], answer: Answer) -> dict[str, Any]:
    """The item as a training sample; a multiple choice shows its options in lettered lines."""
    lines, told = [], item["options"][item["answer"]]
    if item["style"] == CHOICE:
        lines = [
            f"{letter}. {text}" for letter, text in zip(LETTERS, item["options"], strict=False)
        ]
        told = LETTERS[item["answer"]] if answer == "letter" else told
    prompt = "\n".join([IMAGE_MARK, item["question"], *lines])
    turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": told}]
    return {
        "id": item["id"],
        "images": item["images"],
        "messages": turns,
        "style": item["style"],
    }
