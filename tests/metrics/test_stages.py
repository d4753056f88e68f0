"""Figures of a sequence of fine-tunings: golden values, laws, and by hand."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mllmtool.metrics.stages import stage_figures

GOLDEN = json.loads((Path(__file__).parents[1] / "cases" / "metrics/golden.json").read_text())


def test_figures_of_the_golden_file() -> None:
    case = GOLDEN["forgetting"]
    figures = {figure.name: figure.value for figure in stage_figures(case["zero_shot"], case["A"])}
    assert figures == pytest.approx(
        {
            "last": case["last"],
            "mft": case["mft"],
            "maa": case["maa"],
            "bwt_gem": case["bwt_gem"],
            "bwt_all": case["bwt_T"],
            "forgetting": case["fm_chaudhry"],
            "fwt": case["fwt"],
        },
        abs=1e-9,
    )


def test_one_stage_forgets_nothing() -> None:
    figures = {figure.name: figure.value for figure in stage_figures([0.2], [[0.8]])}
    assert (figures["last"], figures["mft"], figures["maa"], figures["bwt_all"]) == (0.8,) * 3 + (
        0,
    )
    assert [figures[name] for name in ("bwt_gem", "forgetting", "fwt")] == [None] * 3


@given(st.integers(2, 5), st.data())
def test_last_is_learning_and_backward_transfer(number: int, data: st.DataObject) -> None:
    row = st.lists(st.floats(0, 1), min_size=number, max_size=number)
    after = [data.draw(row) for _ in range(number)]
    found = {figure.name: figure.value or 0.0 for figure in stage_figures(data.draw(row), after)}
    assert found["last"] == pytest.approx(found["mft"] + found["bwt_all"])
    assert found["bwt_all"] * number == pytest.approx(found["bwt_gem"] * (number - 1))
    assert found["forgetting"] >= -found["bwt_gem"] - 1e-12


def test_every_figure_has_its_formula() -> None:
    assert all("A[" in figure.formula for figure in stage_figures([0.1], [[0.2]]))
