"""Answers found by spans of characters, by hand."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mllmtool.errors import DataError
from mllmtool.models.spans import Rendered, Turn, expand, learnt, render


def ended(turns: Sequence[Turn], prompt: bool) -> str:
    """A template that ends an answer with </s>."""
    text = "".join(
        f"Q: {t['content']} " if t["role"] == "user" else f"A: {t['content']}</s>" for t in turns
    )
    return text + ("A: " if prompt else "")


def endless(turns: Sequence[Turn], prompt: bool) -> str:
    """As LLaVA-1.5's on the hub: no end token, a space after every turn."""
    text = "".join(
        f"Q: {t['content']} " if t["role"] == "user" else f"A: {t['content']} " for t in turns
    )
    return text + ("A:" if prompt else "")


def talk(*contents: str) -> list[Turn]:
    return [
        {"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(contents)
    ]


def spans_text(rendered: Rendered) -> list[str]:
    return [rendered.text[start:stop] for start, stop in rendered.answers]


def test_every_answer_with_its_end() -> None:
    rendered = render(ended, talk("one?", "yes", "two?", "no"), ["</s>"])
    assert rendered.text == "Q: one? A: yes</s>Q: two? A: no</s>"
    # Q: one? A: |yes</s>| is 11 characters and then 7
    assert rendered.answers == ((11, 18), (29, 35))
    assert spans_text(rendered) == ["yes</s>", "no</s>"]


def test_missing_end_token_is_put_before_the_white_space() -> None:
    rendered = render(endless, talk("one?", "yes", "two?", "no"), ["</s>"])
    assert rendered.text == "Q: one? A: yes</s> Q: two? A: no</s> "
    assert spans_text(rendered) == [" yes</s>", " no</s>"]


def test_any_known_end_will_do() -> None:
    rendered = render(ended, talk("one?", "yes"), ["<eos>", "</s>"])
    assert rendered.text == "Q: one? A: yes</s>"


@pytest.mark.parametrize("answer", ["", " ", "</s>"])
def test_no_answer_is_an_error(answer: str) -> None:
    with pytest.raises(DataError) as caught:
        render(ended, talk("one?", answer), ["</s>"])
    assert str(caught.value) == "holds no answer to learn: no assistant turn has text"


def test_no_assistant_turn_is_an_error() -> None:
    with pytest.raises(DataError, match="holds no answer to learn"):
        render(ended, talk("one?"), ["</s>"])


def test_answer_first_is_an_error() -> None:
    with pytest.raises(DataError) as caught:
        render(ended, [{"role": "assistant", "content": "hello"}], ["</s>"])
    assert str(caught.value) == "the first turn is an answer; a question must come before it"


def test_template_that_rewrites_earlier_turns_is_an_error() -> None:
    def thinking(turns: Sequence[Turn], prompt: bool) -> str:
        return ended(turns, False) + ("A: <think>" if prompt else "")

    with pytest.raises(DataError, match="renders turn 2 otherwise than its generation prompt"):
        render(thinking, talk("one?", "yes"), ["</s>"])


def test_images_push_later_answers_along() -> None:
    rendered = Rendered("<i>ab<i>cd", ((3, 5), (8, 10)))
    whole = expand(rendered, "<i>", ["III", "JJJJJ"])
    assert whole == Rendered("IIIabJJJJJcd", ((3, 5), (10, 12)))


def test_image_inside_an_answer_widens_it() -> None:
    assert expand(Rendered("a<i>b", ((0, 5),)), "<i>", ["IIII"]).answers == ((0, 6),)


def test_marks_must_match_images() -> None:
    with pytest.raises(DataError) as caught:
        expand(Rendered("<i> and <i>", ()), "<i>", ["I"])
    assert str(caught.value) == "2 <i> marks after the template, 1 images"


@settings(deadline=None)
@given(
    st.lists(st.text("ab ", max_size=4), min_size=1, max_size=4),
    st.lists(st.text("IJ", max_size=5), min_size=3, max_size=3),
)
def test_expanding_keeps_what_the_answers_say(pieces: list[str], images: list[str]) -> None:
    text = "<i>".join(pieces)
    start = len("<i>".join(pieces[:-1])) + 3 if len(pieces) > 1 else 0
    rendered = Rendered(text, ((start, len(text)),))
    whole = expand(rendered, "<i>", images[: len(pieces) - 1])
    assert [whole.text[slice(*span)] for span in whole.answers] == [pieces[-1]]


def test_tokens_that_overlap_an_answer_are_learnt() -> None:
    # answer at 3..6; a token of the prompt, one that straddles, one inside, an empty one, one after
    offsets = [(0, 2), (2, 4), (4, 6), (6, 6), (6, 8)]
    assert learnt(offsets, [(3, 6)]) == [False, True, True, False, False]


def test_tokens_without_characters_are_never_learnt() -> None:
    assert learnt([(4, 4), (0, 0)], [(0, 6)]) == [False, False]
