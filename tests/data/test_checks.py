"""What is noted of many rows at once is what is noted of each alone."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mllmtool.configs.mix_data import Format
from mllmtool.data.checks import Checks
from mllmtool.data.images import ImageFolder
from mllmtool.data.splitting import Batch

ASKED: list[Any] = ["q", "<image>q", "<image><image>", None, ["q"], [{"type": "image"}]]
ROLES: list[Any] = ["user", "assistant", "system", "human", "gpt", "nobody", ["user"], None]
KEYS = {"messages": ("messages", "role", "content"), "llava": ("conversations", "from", "value")}


def turns(form: str, speaker: Any = "user", asked: Any = "q", more: int = 0) -> list[Any]:
    """A question and its answer, `more` times again, in the keys of a format."""
    _, role, text = KEYS[form]
    answer = "assistant" if form == "messages" else "gpt"
    asker = speaker if form == "messages" or speaker != "user" else "human"
    return [{role: asker, text: asked}, {role: answer, text: "a"}, *[{role: asker}] * (more % 2)]


def rows(form: str) -> st.SearchStrategy[Any]:
    """Right rows, and rows that are wrong in one of many ways."""
    right = st.builds(turns, st.just(form), asked=st.sampled_from(ASKED[:2]))
    odd = st.builds(turns, st.just(form), st.sampled_from(ROLES), st.sampled_from(ASKED), ints)
    system = right.map(lambda said: [{KEYS[form][1]: "system", KEYS[form][2]: "s"}, *said])
    images: Any = st.sampled_from([["a.png"], [], [""], "a.png", None, ["../a.png"], {}, 5])
    more: Any = {"image": st.sampled_from(["a.png", "", None, ["a.png"]]), "_mix": st.just({})}
    given_more = {"images": images, "system": st.just("s"), "id": st.sampled_from(["1", 1]), **more}
    said: dict[str, Any] = {
        KEYS[form][0]: right | odd | system | st.sampled_from([[], None, "x", {}])
    }
    whole = st.fixed_dictionaries(said, optional=given_more)
    others: list[Any] = [None, 5, [], "x", {}]
    return whole | st.sampled_from(others)


ints = st.integers(0, 1)


@pytest.mark.parametrize("hashes", [False, True])
@pytest.mark.parametrize("form", ["messages", "llava"])
@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_rows_together_are_rows_alone(
    tmp_path: Path, form: Format, hashes: bool, data: st.DataObject
) -> None:
    (tmp_path / "a.png").touch()
    plain: dict[str, Any] = {"id": "1", KEYS[form][0]: turns(form)}
    drawn = [*data.draw(st.lists(rows(form), max_size=12)), *[plain] * data.draw(st.integers(1, 9))]
    checks = Checks(form=form, folder=ImageFolder(tmp_path), hashes=hashes)
    lines = [json.dumps(row).encode() for row in drawn]
    texts = [(9 * n, line, checks.parse(line)) for n, line in enumerate(lines)]
    together, problems = checks.rows(Batch(*zip(*texts, strict=True)))
    alone = [checks.rows(Batch([at], [line], [values])) for at, line, values in texts]
    assert together.tolist() == np.concatenate([fields for fields, _ in alone]).tolist()
    assert problems == [(n, found[0][1]) for n, (_, found) in enumerate(alone) if found]


A, B = ('{"from": "human", "value": "a"}', '{"from": "gpt", "value": "b"}')
PLAIN = f'{{"id": "1", "conversations": [{A}, {B}]}}'
NOT_EACH_A_ROW = {
    "one over two lines, and two in one": [PLAIN[:60], PLAIN[60:], f"{PLAIN} {PLAIN}"],
    "one over two lines, at a brace": [f'{{"id": "1", "conversations": [{A}', f"{B}]}}", PLAIN],
    "two in one line": [f"{PLAIN}{PLAIN}"],
    "a blank line": [PLAIN, "", PLAIN],
    "white space": [PLAIN, f" {PLAIN}"],
    "a comma": [f"{PLAIN},", PLAIN],
    "a further key": [PLAIN, PLAIN.replace("id", "x")],
    "another value": [PLAIN, "5"],
}


@pytest.mark.parametrize("case", NOT_EACH_A_ROW)
def test_only_rows_are_parsed_together(tmp_path: Path, case: str) -> None:
    parse = Checks(form="llava", folder=ImageFolder(tmp_path)).parse_many
    assert [len(row.turns) for row in parse([PLAIN.encode()] * 3) or ()] == [2, 2, 2]
    assert parse([row.encode() for row in NOT_EACH_A_ROW[case]]) is None


@pytest.mark.parametrize(
    ("form", "reason"),
    [
        ("messages", "messages.0.name: Extra inputs are not permitted"),
        ("llava", "is no row of format llava (a turn has from, value, name)"),
    ],
)
def test_a_further_key_in_a_turn_is_refused(tmp_path: Path, form: Format, reason: str) -> None:
    """What reads plain rows quickly must leave it to what says so."""
    said = turns(form)
    said[0]["name"] = "x"
    line = json.dumps({"id": "1", KEYS[form][0]: said}).encode()
    checks = Checks(form=form, folder=ImageFolder(tmp_path))
    _, problems = checks.rows(Batch([0], [line], [checks.parse(line)]))
    assert problems == [(0, reason)]
    assert checks.parse_many([line, line]) is None
