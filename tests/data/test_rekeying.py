"""LLaVA's rows with other keys are those that parsing them gives, or are left to the parser."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mllmtool.data.formats import to_sample
from mllmtool.data.rekeying import rekeyed

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(
    ['{"from": "human", "value": ', '"image": "', '"conversations": [', "value", "from", '"}]}']
)
pairs = st.lists(st.tuples(text, text), min_size=1, max_size=4)
STYLES: list[dict[str, Any]] = [{}, {"separators": (",", ":")}, {"ensure_ascii": False}]


@settings(max_examples=200, deadline=None)
@given(
    name=text,
    image=st.none() | text.filter(bool),
    said=pairs,
    style=st.sampled_from(STYLES),
    order=st.permutations(["id", "image", "conversations"]),
)
def test_a_row_is_that_of_the_parser(
    name: str,
    image: str | None,
    said: list[tuple[str, str]],
    style: dict[str, Any],
    order: list[str],
) -> None:
    turns = [
        {"from": speaker, "value": value}
        for pair in said
        for speaker, value in zip(("human", "gpt"), pair, strict=True)
    ]
    values = {"id": name, "image": image, "conversations": turns}
    row = {key: values[key] for key in order if values[key] is not None}
    found = rekeyed(json.dumps(row, **style).encode())
    if found is not None and ":" not in (image or ""):
        assert json.loads(found) == to_sample(row, "llava", "x")


def test_a_row_keeps_its_escapes() -> None:
    data = (
        b'{"id": "1", "image": "a.png", "conversations": [{"from": "human", "value": "\\u00e9"},'
        b' {"from": "gpt", "value": "\xc3\xa9 \\"from\\""}]}'
    )
    assert rekeyed(data) == (
        b'{"id": "1", "images": ["a.png"], "messages": [{"role": "user", "content": "\\u00e9"},'
        b' {"role": "assistant", "content": "\xc3\xa9 \\"from\\""}]}'
    )
    without = data.replace(b'"image": "a.png", ', b"")
    assert json.loads(rekeyed(without) or b"") == to_sample(json.loads(without), "llava", "x")


A = '{"from": "human", "value": "a"}'
B = '{"from": "gpt", "value": "b"}'


@pytest.mark.parametrize(
    "row",
    [
        f'{{"id": 1, "conversations": [{A}, {B}]}}',
        f'{{"id": "1", "conversations": [{A}, {B[:-2]}{{"}}]}}',
        f'{{"id": "1", "x": 2, "conversations": [{A}, {B}]}}',
        f'{{"id": "1", "conversations": [{A}, {B}], "image": "a"}}',
        f'{{"id": "1", "conversations": [{A}, {B}], "x": {{"q": "}}]"}}}}',
        f'{{"id": "1", "conversations": [{A}, {B}], "x": [{{"q": "r"}}]}}',
        f'{{"id": "1", "conversations": [{A}, {B}], "x": [{A}, {B}]}}',
        f'{{"id": "1", "conversations": [{A}, {B}], "x": [{{"q": "r"}}, {A}, {B}]}}',
        f'{{"id": "1", "conversations": [{A}, {B}], "x": [{{ "q": "r"}}, {A}, {B}]}}',
        f'{{"id": "1", "image": "a", "image": "b", "conversations": [{A}, {B}]}}',
        f'{{"id": "1", "conversations": [], "conversations": [{A}, {B}]}}',
        f'{{"id": "1", "conversations": [{A}], "conversations": [{A}, {B}]}}',
        f'{{"id": "1", "conversations": [{A}, {{"value": "b", "from": "gpt"}}]}}',
        f'{{"id": "1", "conversations": [{A}, {{"from": "gpt", "value": "b", "value": "c"}}]}}',
        f'{{"id": "1", "conversations": [{A}, {{"from": "gpt", "value" : "b"}}]}}',
        f'{{"id": "1", "conversations": [{A}, {{"from": "gpt", "value": "b", "from": "gpt"}}]}}',
    ],
)
def test_any_other_row_is_left_to_the_parser(row: str) -> None:
    assert rekeyed(row.encode()) is None


def test_a_second_turn_of_one_speaker_is_left_to_the_parser() -> None:
    row = f'{{"id": "1", "conversations": [{A}, {A}]}}'
    assert rekeyed(row.encode()) is None
