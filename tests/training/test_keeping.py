"""What holds a model to its base: by hand, by laws, in a run."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mllmtool.configs.finetune import FinetuneConfig
from mllmtool.context import Context
from mllmtool.data.samples import read_samples
from mllmtool.models.encoding import IGNORED, Encoder
from mllmtool.models.loading import load_model
from mllmtool.models.parts import partition
from mllmtool.training.job import prepare
from mllmtool.training.keeping import Distance, divergence, evaluating, without_adapters
from mllmtool.training.selection import select, trainable
from mllmtool.training.trainer import PartsTrainer


def test_distance_by_hand() -> None:
    learning = {"a": nn.Parameter(torch.tensor([1.0, 2.0])), "b": nn.Parameter(torch.zeros(1))}
    distance = Distance(learning)
    assert distance().item() == 0
    with torch.no_grad():
        learning["a"][0] = 4.0
        learning["b"][0] = 1.0
    assert distance().item() == (9 + 1) / 2
    torch.autograd.backward(distance())
    assert learning["a"].grad is not None
    assert learning["a"].grad.tolist() == [3.0, 0.0]


def test_divergence_by_hand() -> None:
    tuned, base = torch.tensor([[[0.0, math.log(3)]]]), torch.zeros(1, 1, 2)
    # p_base = (1/2, 1/2), p_tuned = (1/4, 3/4)
    expected = 0.5 * math.log(2) + 0.5 * math.log(2 / 3)
    found = divergence(tuned, base, torch.zeros(1, 1, dtype=torch.long), temperature=1)
    assert found.item() == pytest.approx(expected, rel=1e-6)
    # at T = 2 the logits are (0, ln sqrt 3): p_tuned = (1, sqrt 3) / (1 + sqrt 3), times T^2
    root = math.sqrt(3)
    expected = 0.5 * math.log((1 + root) / 2) + 0.5 * math.log((1 + root) / 2 / root)
    found = divergence(tuned, base, torch.zeros(1, 1, dtype=torch.long), temperature=2)
    assert found.item() == pytest.approx(4 * expected, rel=1e-5)


@given(st.integers(0, 999), st.floats(0.5, 4))
def test_divergence_is_none_of_itself_and_never_negative(seed: int, temperature: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    tuned, base = (torch.randn(2, 3, 5, generator=generator) for _ in range(2))
    targets = torch.tensor([[0, 1, IGNORED], [IGNORED, IGNORED, 2]])
    assert divergence(base, base, targets, temperature).item() == pytest.approx(0, abs=1e-5)
    assert divergence(tuned, base, targets, temperature).item() > 0


@given(st.integers(0, 999))
def test_samples_weigh_the_same_whatever_their_length_and_batch(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    tuned, base = (torch.randn(2, 3, 5, generator=generator) for _ in range(2))
    targets = torch.tensor([[0, 1, 2], [IGNORED, IGNORED, 2]])
    whole = divergence(tuned, base, targets, 2.0)
    alone = [divergence(tuned[n : n + 1], base[n : n + 1], targets[n : n + 1], 2.0) for n in (0, 1)]
    torch.testing.assert_close(whole, alone[0] + alone[1])


def test_model_without_its_adapters_is_the_base(llava: Path, colours: Path) -> None:
    model = load_model(llava)
    values = {"model": "b", "samples": "s", "steps": 1, "train": ["language=lora", "vision=lora"]}
    select(model, partition(model), FinetuneConfig.parse(values), seed=0)
    before = set(trainable(model))
    with torch.no_grad():
        for parameter in trainable(model).values():
            parameter.add_(0.05)
    batch = Encoder.load(llava).train_batch(list(read_samples(colours))[:2], colours.parent)
    with torch.no_grad():
        with without_adapters(model):
            inside = model(**batch).logits
        assert torch.equal(inside, load_model(llava)(**batch).logits)
        assert not torch.equal(model(**batch).logits, inside)
    assert set(trainable(model)) == before


def test_teacher_has_no_dropout_and_leaves_the_modules_as_they_were() -> None:
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 4))
    model[1].eval()
    ones = torch.ones(64, 4)
    with evaluating(model):
        assert torch.equal(model[0](ones), ones)
    assert [model.training, model[0].training, model[1].training] == [True, True, False]


def run(model: Path, samples: Path, folder: Path, **values: Any) -> PartsTrainer:
    defaults = {"model": str(model), "samples": str(samples), "steps": 6, "batch": 4, "lr": 1e-2}
    config = FinetuneConfig.parse({**defaults, "micro_batch": 4, "warmup": 0, **values})
    context = Context(quiet=True)
    trainer = PartsTrainer(prepare(config, context), context, folder)
    trainer.train()
    return trainer


def moved(trainer: PartsTrainer, base: Path) -> float:
    before = dict(load_model(base).named_parameters())
    with torch.no_grad():
        now = trainer.model.named_parameters()
        squares = [(p - before[n]).square().sum().item() for n, p in now if n in before]
    return math.fsum(squares)


def noted(trainer: PartsTrainer) -> dict[str, dict[str, float]]:
    assert trainer.keeper is not None
    return trainer.keeper.describe(trainer.keeper.noted)


def test_l2_holds_the_weights(llama: Path, sums: Path, tmp_path: Path) -> None:
    free = run(llama, sums, tmp_path)
    held = run(llama, sums, tmp_path, keep={"l2": 10.0})
    assert moved(held, llama) < moved(free, llama) / 2
    row = noted(held)["l2"]
    assert (row["weight"], row["first"]) == (10.0, 0.0)
    assert row["last"] > 0


@pytest.mark.parametrize("train", ["language=full", "language=lora:4"])
def test_kl_holds_the_answers(train: str, llama: Path, sums: Path, tmp_path: Path) -> None:
    weak, strong = (
        run(
            llama,
            sums,
            tmp_path,
            train=[train],
            steps=12,
            keep={"kl": weight, "samples": str(sums)},
        )
        for weight in (1e-6, 10.0)
    )
    assert noted(weak)["kl"]["first"] == pytest.approx(0, abs=1e-6)
    assert noted(strong)["kl"]["last"] < noted(weak)["kl"]["last"] / 2


def test_training_samples_serve_as_anchors_where_none_are_given(
    llama: Path, sums: Path, tmp_path: Path
) -> None:
    row = noted(run(llama, sums, tmp_path, keep={"kl": 1.0}))["kl"]
    assert row["first"] == pytest.approx(0, abs=1e-6)
    assert row["last"] > 0


def test_micro_batches_change_nothing(llama: Path, sums: Path, tmp_path: Path) -> None:
    keep = {"l2": 0.5, "kl": 2.0, "samples": str(sums)}
    one = run(llama, sums, tmp_path, keep=keep, lr=1e-3)
    split = run(llama, sums, tmp_path, keep=keep, lr=1e-3, micro_batch=1)
    for (name, a), (_, b) in zip(
        one.model.named_parameters(), split.model.named_parameters(), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=0, atol=2e-6, msg=name)
    assert noted(one)["kl"]["last"] == pytest.approx(noted(split)["kl"]["last"], rel=1e-3)
    assert noted(one)["l2"]["last"] == pytest.approx(noted(split)["l2"]["last"], rel=1e-3)


def test_resumed_run_is_held_to_the_base_not_to_the_state(
    llama: Path, sums: Path, tmp_path: Path
) -> None:
    keep = {"l2": 1.0, "kl": 1.0, "samples": str(sums)}
    whole = run(llama, sums, tmp_path, keep=keep, save_every=3)
    config = whole._job.config
    context = Context(quiet=True)
    again = PartsTrainer(prepare(config, context), context, tmp_path / "again")
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    pairs = zip(whole.model.named_parameters(), again.model.named_parameters(), strict=True)
    assert all(torch.equal(a, b) for (_, a), (_, b) in pairs)
    assert noted(whole) == noted(again)
