"""Probing a run in progress."""

from pathlib import Path
from typing import Any

import pytest
import suite_factory
import torch

from mllmtool.configs.eval_matrix import EvalMatrixConfig
from mllmtool.configs.finetune import Probe
from mllmtool.context import Context
from mllmtool.data.suites import read_suite
from mllmtool.errors import DataError
from mllmtool.evaluation.labelled import open_labelled
from mllmtool.evaluation.probing import SuiteProbe
from mllmtool.evaluation.runs import Settings
from mllmtool.evaluation.runs import run as run_checkpoints
from mllmtool.evaluation.store import opened
from mllmtool.models.encoding import Encoder
from mllmtool.models.loading import load_model


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return suite_factory.colour_suite(tmp_path_factory.mktemp("suite"))


def probed(suite: Path, base: Path, **values: Any) -> dict[str, Any]:
    probe = Probe(suite=str(suite), **values)
    measure = SuiteProbe(probe, Encoder.load(base), Context(quiet=True))
    return measure(load_model(base))


def test_scores_are_those_of_eval_matrix(suite: Path, llava: Path, tmp_path: Path) -> None:
    point = probed(suite, llava)
    tasks = read_suite(suite).tasks
    config = EvalMatrixConfig(suite=str(suite), base=str(llava))
    with opened(tmp_path / "predictions") as store:
        settings, base = Settings(store, 4), open_labelled(config.base or "", ())
        [(_, answers)] = run_checkpoints(base, tasks, settings, Context(quiet=True))
    for task in tasks:
        right = [
            torch.tensor(made.logprobs).argmax().item() == item.answer
            for made, item in zip(answers[task.name], task.items, strict=True)
        ]
        assert point["tasks"][task.name] == pytest.approx(sum(right) / len(right))
    scores = point["tasks"]
    assert point["quadrants"] == {
        "original": {
            "id_text_ood_image": scores["other-letter"],
            "ood_text_id_image": scores["colour-open"],
            "ood_text_ood_image": scores["sums"],
        },
        "new": {"id_text_id_image": scores["colour-letter"]},
    }
    assert point["original"] == pytest.approx(sum(point["quadrants"]["original"].values()) / 3)


def test_limit_draws_items(suite: Path, llava: Path) -> None:
    point = probed(suite, llava, limit=3)
    assert all(score * 3 == pytest.approx(round(score * 3)) for score in point["tasks"].values())


def test_suite_without_original_tasks_cannot_stop_a_run(tmp_path: Path, llama: Path) -> None:
    folder = tmp_path / "s"
    folder.mkdir()
    suite_factory.write_task(folder, "sums", suite_factory.sums(4), "id", "id", role="new")
    path = suite_factory.write_suite(folder, ["sums"])
    with pytest.raises(DataError) as caught:
        probed(path, llama, stop_if="forgetting > 0.1")
    assert str(caught.value) == f"{path}: no task has role original, and stop_if watches those"
