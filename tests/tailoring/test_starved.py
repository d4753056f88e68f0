"""Few tokens: more damping, and a warning."""

import pytest
import torch

from mllmtool.tailoring.matrix import Choices, Matrix, tailor
from mllmtool.tailoring.measures import caveats
from mllmtool.tailoring.moments import Moment


@pytest.mark.parametrize(("tokens", "damping"), [(3, 0.1), (4, 0.01), (0, 0.01)])
def test_fewer_tokens_than_a_tenth_of_the_columns_are_damped_more(
    tokens: int, damping: float
) -> None:
    rng = torch.Generator().manual_seed(0)
    inputs = torch.randn(8, 40, generator=rng, dtype=torch.float64)
    change = torch.randn(6, 40, generator=rng, dtype=torch.float64)
    moment = Moment(torch.zeros(1, 1, dtype=torch.float64), inputs.T @ inputs / 8, tokens)
    matrix = Matrix(torch.zeros_like(change), change, (40,), moment)
    assert tailor(matrix, Choices(0.2)).damping == pytest.approx(damping)


def test_few_tokens_are_told() -> None:
    task = {"tokens": 5, "solver": "cholesky", "residual": 0.0, "held_out": None}
    task |= {"tailored": 0.1, "anchor_drift": None}
    rows = [{"tensors": ["w"], "mixes": True, "shape": [4, 64], "tasks": [task]}]
    assert caveats(rows, {}) == [
        "w: fewer calibration tokens than a tenth of their inputs, so damped ten times as much;"
        " raise --num-samples"
    ]
    assert caveats([{**rows[0], "tasks": [{**task, "tokens": 7}]}], {}) == []
