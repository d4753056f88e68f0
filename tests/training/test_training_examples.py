"""What is seen, in which order."""

from pathlib import Path
from typing import Any

import factories
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mllmtool.context import Context
from mllmtool.data.samples import Sample, read_samples
from mllmtool.errors import DataError
from mllmtool.models.encoding import Encoder
from mllmtool.training.examples import (
    Collator,
    Examples,
    Longest,
    Order,
    Stream,
    preload,
    read_examples,
    source_of,
)


def read(samples: Path, base: Path, longest: Longest | None = None) -> Examples:
    longest = longest or Longest(999, None, drop=False)
    return read_examples(
        str(samples), samples.parent, Encoder.load(base), longest, Context(quiet=True)
    )


def in_order(examples: Examples) -> Stream:
    """As many as there are, in an order of chance."""
    number = len(examples.samples)
    return Stream(examples, Order(number, 2 * number, Context(seed=0)))


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 20), st.integers(1, 5), st.integers(0, 3))
def test_every_pass_sees_every_sample_once(number: int, passes: int, seed: int) -> None:
    order = Order(number, number * passes, Context(seed=seed))
    seen = [order[index] for index in range(len(order))]
    for turn in range(passes):
        assert sorted(seen[turn * number : (turn + 1) * number]) == list(range(number))


def test_order_depends_on_the_seed_and_the_pass_alone() -> None:
    long, short = Order(10, 30, Context(seed=1)), Order(10, 20, Context(seed=1))
    assert [long[n] for n in range(20)] == [short[n] for n in range(20)]
    late = Order(10, 30, Context(seed=1))
    assert [late[n] for n in range(29, -1, -1)] == [long[n] for n in range(29, -1, -1)]
    other = Order(10, 30, Context(seed=2))
    assert [other[n] for n in range(30)] != [long[n] for n in range(30)]
    assert [long[n] for n in range(10)] != [long[n] for n in range(10, 20)]


@pytest.mark.parametrize(
    ("extra", "source"),
    [
        ({}, None),
        ({"source": "old"}, "old"),
        ({"_mix": {"source": "new", "index": 3}}, "new"),
        ({"_mix": {"source": "new"}, "source": "old"}, "new"),
        ({"source": 3}, None),
    ],
)
def test_source_of_a_sample(extra: dict[str, Any], source: str | None) -> None:
    values = {"id": "s", "messages": factories.turns("Hi", "red"), **extra}
    assert source_of(Sample.model_validate(values)) == source


def test_collator_numbers_the_sources(llava: Path, colours: Path) -> None:
    examples = read(colours, llava)
    assert examples.sources == ("even", "odd")
    stream = in_order(examples)
    batch = Collator(stream, None, Encoder.load(llava))([0, 1, 15])
    assert batch["sources"].tolist() == [stream.order[place] % 2 for place in (0, 1, 15)]
    assert batch["input_ids"].shape[0] == 3
    assert "anchors" not in batch


def test_samples_without_source_are_numbered_minus_one(llama: Path, sums: Path) -> None:
    stream = in_order(read(sums, llama))
    batch = Collator(stream, None, Encoder.load(llama))([0, 1])
    assert batch["sources"].tolist() == [-1, -1]


def test_anchors_are_seen_in_an_order_of_their_own(llama: Path, sums: Path) -> None:
    examples, encoder = read(sums, llama), Encoder.load(llama)
    number = len(examples.samples)
    context = Context(seed=0)
    anchors = Stream(examples, Order(number, number, context, "anchors"))
    places = list(range(number))
    batch = Collator(in_order(examples), anchors, encoder)(places)
    expected = anchors.batch(places, encoder)
    assert batch["anchors"]["input_ids"].equal(expected["input_ids"])
    assert [anchors.order[n] for n in places] != [in_order(examples).order[n] for n in places]


def test_long_samples_are_an_error_or_dropped_and_named(llama: Path, sums: Path) -> None:
    encoder = Encoder.load(llama)
    samples = list(read_samples(sums))
    lengths = [len(encoder.train_row(sample, sums.parent).ids) for sample in samples]
    limit = min(lengths)
    long = [f"{sums}:{n}" for n, length in enumerate(lengths, start=1) if length > limit]
    with pytest.raises(DataError) as caught:
        read(sums, llama, Longest(limit, None, drop=False))
    assert str(caught.value).startswith(f"{long[0]}: ")
    assert f"more than --max-length {limit}; nothing is cut off" in str(caught.value)
    kept = read(sums, llama, Longest(limit, None, drop=True))
    assert list(kept.dropped) == long
    assert len(kept.samples) == len(samples) - len(long)
    with pytest.raises(DataError) as caught:
        read(sums, llama, Longest(3, None, drop=True))
    assert str(caught.value) == (
        f"{sums}: holds no sample that is short enough; {len(samples)} are longer"
    )


def test_every_wrong_sample_is_told_at_once(llava: Path, tmp_path: Path) -> None:
    rows = [
        {"id": "a", "messages": factories.turns("Name a colour.", "red")},
        {"id": "b", "messages": factories.turns("Name a colour.", "")},
        {"id": "c", "images": ["c.png"], "messages": factories.turns("<image>What?", "red")},
    ]
    samples = factories.write_rows(tmp_path / "s.jsonl", rows)
    with pytest.raises(DataError) as caught:
        read(samples, llava)
    assert str(caught.value) == (
        f"{samples}:2: sample b: holds no answer to learn: no assistant turn has text,"
        f" {samples}:3: sample c: {tmp_path}/c.png: no such image"
    )


def test_broken_picture_is_found_before_training(llava: Path, tmp_path: Path) -> None:
    samples = factories.colour_samples(tmp_path, number=3)
    picture = tmp_path / "images" / "1.png"
    picture.write_bytes(picture.read_bytes()[:200])
    examples, encoder = read(samples, llava), Encoder.load(llava)
    preload(examples, encoder, [0, 2])
    with pytest.raises(DataError) as caught:
        preload(examples, encoder, [0, 1, 2])
    assert str(caught.value).startswith(f"{samples}:2: {picture}: is not a readable image: ")


def test_pictures_beyond_memory_are_not_decoded_beforehand(llava: Path, tmp_path: Path) -> None:
    samples = factories.colour_samples(tmp_path, number=3)
    broken = tmp_path / "images" / "2.png"
    broken.write_bytes(broken.read_bytes()[:200])
    examples, encoder = read(samples, llava), Encoder.load(llava)
    encoder._pixels.bytes_left = 4  # no picture fits
    preload(examples, encoder, [0, 1, 2])  # or each run would decode its whole data twice


def test_samples_that_a_short_run_sees() -> None:
    order = Order(10, 4, Context(seed=0))
    assert order.visited() == sorted(order[index] for index in range(4))
    assert Order(10, 25, Context(seed=0)).visited() == list(range(10))


@pytest.mark.parametrize(
    ("tokens", "positions", "message"),
    [
        (29, None, "30 tokens, more than --max-length 29; nothing is cut off"),
        (99, 20, "30 tokens, more than the 20 positions of the model"),
    ],
)
def test_too_long_is_an_error_never_cut(
    llava: Path, tmp_path: Path, tokens: int, positions: int | None, message: str
) -> None:
    samples = factories.colour_samples(tmp_path, number=1)
    with pytest.raises(DataError) as caught:
        read(samples, llava, Longest(tokens, positions, drop=False))
    assert str(caught.value) == f"{samples}:1: {message}"


def test_no_samples(llama: Path, tmp_path: Path) -> None:
    (tmp_path / "s.jsonl").write_text("\n")
    with pytest.raises(DataError) as caught:
        read(tmp_path / "s.jsonl", llama)
    assert str(caught.value) == f"{tmp_path}/s.jsonl: holds no samples"
