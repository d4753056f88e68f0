"""Questions: by hand, and laws that hold for any classes, pools and seeds."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from itertools import combinations, permutations
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mllmtool.configs.build_vqa import Style
from mllmtool.context import Context
from mllmtool.data.choices import Questions, sample
from mllmtool.data.class_distractor import distracted
from mllmtool.data.distractors import Near, Pool
from mllmtool.data.labelled import Labelled
from mllmtool.data.styles import DEFAULTS, STYLES, Template, draw_facts, make_templates


class Last(Random):
    """Draws the last of everything, backwards."""

    def sample(self, population: Any, k: int, **_: Any) -> list[Any]:
        return list(reversed(population))[:k]

    def choice(self, seq: Any) -> Any:
        return seq[-1]

    def random(self) -> float:
        return 0.9


B = Labelled(image="i", class_name="b", fields={"dye": "methylene"})
ABCD = ("a", "b", "c", "d")


def facts(style: Style, pool: Pool, *templates: str | Template) -> tuple[str, list[str], int]:
    return draw_facts(style, B, make_templates(style, templates, "label"), pool, Last())


def test_a_multiple_choice_by_hand() -> None:
    # without b the classes are a, c, d; the last two are d, c; of b, d, c backwards
    found = facts("multiple-choice", Pool(ABCD, 3), "x", "Say {letters} of {dye}.")
    assert found == ("Say A, B or C of methylene.", ["c", "d", "b"], 2)


def test_near_classes_by_hand() -> None:
    # the two nearest that are not b are c and a; the fixed option takes a's place in the four
    pool = Pool(ABCD, 4, ("none",), lambda _: ("c", "b", "a", "d"), topk=2)
    assert facts("multiple-choice", pool, "?") == ("?", ["c", "a", "none", "b"], 3)


def test_too_few_near_classes_are_made_up_from_the_others_by_hand() -> None:
    pool = Pool(ABCD, 4, (), lambda _: ("c",), topk=2)
    assert facts("multiple-choice", pool, "?") == ("?", ["a", "d", "c", "b"], 3)


def test_the_other_styles_by_hand() -> None:
    pool = Pool(ABCD, 3)
    assert facts("yes-no", pool, "{class_name}, in {dye}?") == (
        "d, in methylene?",
        ["yes", "no"],
        1,
    )
    assert facts("short", pool, "Name it.") == ("Name it.", ["c", "d", "b"], 2)
    brief = Template(question="?", answer="It is {class_name}, not {others}, in {dye}.")
    assert facts("brief", pool, brief) == (
        "?",
        [
            "It is c, not d or b, in methylene.",
            "It is d, not c or b, in methylene.",
            "It is b, not c or d, in methylene.",
        ],
        2,
    )


def test_a_sample_by_hand() -> None:
    item = {
        "id": "i",
        "images": ["i"],
        "question": "?",
        "options": ["a", "b"],
        "answer": 1,
        "class_name": "b",
        "style": "multiple-choice",
    }
    assert sample(item, "letter") == {
        "id": "i",
        "images": ["i"],
        "messages": [
            {"role": "user", "content": "<image>\n?\nA. a\nB. b"},
            {"role": "assistant", "content": "B"},
        ],
        "style": "multiple-choice",
    }
    assert sample(item, "text")["messages"][1]["content"] == "b"
    shown = sample({**item, "style": "short"}, "letter")["messages"]
    assert [turn["content"] for turn in shown] == ["<image>\n?", "b"]


@st.composite
def pools(draw: st.DrawFn) -> tuple[Labelled, Pool]:
    classes = tuple(f"c{n}" for n in range(draw(st.integers(2, 8))))
    outside = draw(st.lists(st.sampled_from([*classes, "none", "other"]), unique=True))
    number = draw(st.integers(2, len({*classes, *outside})))
    fixed = tuple(outside[: number - 1])
    number = min(number, len({*classes, *fixed}))
    ranked = draw(st.none() | st.permutations(classes))
    kept = draw(st.integers(0, len(classes)))
    near: Near | None = None if ranked is None else lambda _: ranked[:kept]
    labelled = Labelled(image="i", class_name=draw(st.sampled_from(classes)))
    return labelled, Pool(classes, number, fixed, near, draw(st.integers(1, 5)))


@given(pools(), st.integers(0, 99))
def test_options_are_right_once_unlike_and_of_the_pool(
    made: tuple[Labelled, Pool], seed: int
) -> None:
    labelled, pool = made
    options = pool.draw(labelled, Random(seed))
    assert options.count(labelled.class_name) == 1
    assert len(set(options)) == len(options) == pool.number
    assert set(pool.fixed) <= set(options) <= {*pool.classes, *pool.fixed}
    drawn = set(options) - {labelled.class_name, *pool.fixed}
    if pool.near is not None:
        ranked = [c for c in pool.near(labelled) if c not in {labelled.class_name, *pool.fixed}]
        allowed = set(ranked[: pool.topk])
        assert drawn <= allowed or allowed <= drawn
    assert pool.draw_wrong(labelled, Random(seed)) != labelled.class_name


@given(pools())
def test_the_ways_to_ask_are_counted(made: tuple[Labelled, Pool]) -> None:
    labelled, pool = made
    shown = {labelled.class_name, *pool.fixed}
    ranked = pool.classes if pool.near is None else pool.near(labelled)
    near = [c for c in ranked if c not in shown]
    near = near if pool.near is None else near[: pool.topk]
    missing = pool.number - len(shown)
    others = [c for c in pool.classes if c not in shown]
    sets = [
        drawn
        for drawn in combinations(others, missing)
        if set(drawn) <= set(near) or set(near) <= set(drawn)
    ]
    assert pool.ways(labelled) == len(sets) * sum(1 for _ in permutations(range(pool.number)))


def ask(
    pool: Pool, images: Sequence[Labelled], versions: int = 1, seed: int = 0
) -> list[dict[str, Any]]:
    templates = {
        style: make_templates(style, [DEFAULTS.get(style, Template(question="?"))], "label")
        for style in STYLES
    }
    questions = Questions(templates, pool, versions, Context(seed=seed).rng)
    return [item for image in images for item in questions.items(image)]


@given(pools(), st.integers(1, 4), st.integers(0, 9))
def test_versions_differ_and_each_is_valid(
    made: tuple[Labelled, Pool], versions: int, seed: int
) -> None:
    labelled, pool = made
    versions = min(versions, pool.ways(labelled))
    items = ask(pool, [labelled], versions, seed)
    assert len({item["id"] for item in items}) == len(items) == versions * len(STYLES)
    choices = [item for item in items if item["style"] == "multiple-choice"]
    assert len({tuple(item["options"]) for item in choices}) == versions
    for item in items:
        right = item["options"][item["answer"]]
        if item["style"] in ("multiple-choice", "short"):
            assert right == labelled.class_name
        elif item["style"] == "yes-no":
            assert right == ("yes" if f" {labelled.class_name}?" in item["question"] else "no")
        else:
            assert f"is {labelled.class_name}." in right
            assert sum(f"is {labelled.class_name}." in text for text in item["options"]) == 1


@given(st.sets(st.integers(0, 30), min_size=1), st.integers(0, 9))
def test_other_images_do_not_change_a_question(names: set[int], seed: int) -> None:
    pool = Pool(ABCD, 3)
    images = [Labelled(image=str(n), class_name=ABCD[n % 4]) for n in range(31)]
    everything = ask(pool, images, 2, seed)
    some = ask(pool, [image for image in images if int(image.image) in names], 2, seed)
    assert some == [item for item in everything if int(item["images"][0]) in names]


def test_answers_and_distractors_are_drawn_evenly() -> None:
    pool, answers, wrong, yes = Pool((*ABCD, "e"), 4), Counter[int](), Counter[str](), 0
    for seed in range(4000):
        _, options, answer = draw_facts(
            "multiple-choice", B, [Template(question="?")], pool, Random(seed)
        )
        answers[answer] += 1
        wrong.update(set(options) - {"b"})
        yes += draw_facts("yes-no", B, [DEFAULTS["yes-no"]], pool, Random(seed)).answer == 0
    assert all(abs(answers[place] - 1000) < 5 * (4000 * 3 / 16) ** 0.5 for place in range(4))
    assert all(abs(wrong[name] - 3000) < 5 * (4000 * 3 / 16) ** 0.5 for name in "acde")
    assert abs(yes - 2000) < 5 * 1000**0.5


def test_a_question_is_the_same_for_ever() -> None:
    """Streams are named by seed and id: what is committed can be drawn again."""
    items = ask(Pool(ABCD, 3), [B], 2, seed=7)
    digest = hashlib.sha256(repr(items).encode()).hexdigest()
    assert digest[:16] == "6f12983fc8d09340"


def test_distractors_take_every_wrong_place_evenly() -> None:
    whole = {"id": "i", "options": ["a", "b", "c", "d"], "answer": 1}
    places = Counter[int]()
    for seed in range(3000):
        made = distracted(whole, "cat", Random(seed))
        assert made is not None
        places[made["class_option"]] += 1
    assert set(places) == {0, 2, 3}
    assert all(abs(count - 1000) < 5 * (3000 * 2 / 9) ** 0.5 for count in places.values())


OPTION = st.text(st.sampled_from("abC -"), min_size=1, max_size=5).filter(str.strip)


@given(st.lists(OPTION, min_size=2, max_size=5), st.data())
def test_a_distracted_item_differs_in_one_wrong_option(
    options: list[str], data: st.DataObject
) -> None:
    answer = data.draw(st.integers(0, len(options) - 1))
    text, seed = data.draw(OPTION), data.draw(st.integers(0, 9))
    item = {"id": "i", "options": options, "answer": answer, "more": 1}
    made = distracted(item, text, Random(seed))
    if made is None:
        assert any(text.lower() in option.lower() for option in options)
        return
    assert text not in options
    place = made["class_option"]
    assert place != answer
    assert made == {
        **item,
        "options": [*options[:place], text, *options[place + 1 :]],
        "class_option": place,
        "source_id": "i",
    }


@pytest.mark.parametrize("style", STYLES)
def test_the_defaults_are_templates_of_their_style(style: Style) -> None:
    given_ = [DEFAULTS.get(style, "What is the class of this image?")]
    assert len(make_templates(style, given_, "label")) == 1
