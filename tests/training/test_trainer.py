"""Training against a plain loop that shares no code with it."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mllmtool.configs.finetune import FinetuneConfig
from mllmtool.context import Context
from mllmtool.data.samples import read_samples
from mllmtool.errors import CheckpointError, ConfigError, NumericError
from mllmtool.models.encoding import IGNORED, Encoder
from mllmtool.models.loading import load_model
from mllmtool.training.examples import Order
from mllmtool.training.job import prepare
from mllmtool.training.length import run_length
from mllmtool.training.trainer import WEIGHTS, PartsTrainer


def config(model: Path, samples: Path, **values: Any) -> FinetuneConfig:
    defaults = {"model": str(model), "samples": str(samples), "steps": 4, "batch": 4, "lr": 1e-3}
    return FinetuneConfig.parse({**defaults, **values})


def trained(settings: FinetuneConfig, folder: Path, seed: int = 0) -> PartsTrainer:
    context = Context(seed=seed, quiet=True)
    trainer = PartsTrainer(prepare(settings, context), context, folder)
    trainer.train()
    return trainer


def weights(trainer: PartsTrainer) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in trainer.model.named_parameters()}


def plain_loop(settings: FinetuneConfig) -> tuple[dict[str, torch.Tensor], list[float]]:
    """AdamW on the language parameters, the model's own loss, warm-up and cosine by formula."""
    model = load_model(settings.model)
    encoder, root = Encoder.load(settings.model), Path(settings.samples).parent
    samples = list(read_samples(settings.samples))
    steps, batch = settings.steps or 0, settings.batch
    order = Order(len(samples), steps * batch, Context(seed=0))
    names = [n for n, _ in model.named_parameters() if "language_model" in n or "lm_head" in n]
    learning = [model.get_parameter(name) for name in names]
    optimizer = torch.optim.AdamW(learning, lr=1.0, weight_decay=0.0, foreach=False)
    warmup, losses = math.floor(settings.warmup * steps), []
    for step in range(steps):
        if step < warmup:
            scale = step / warmup
        else:
            scale = 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))
        optimizer.param_groups[0]["lr"] = settings.lr * scale
        chosen = [samples[order[step * batch + n]] for n in range(batch)]
        loss = model(**encoder.train_batch(chosen, root)).loss
        gradients = torch.autograd.grad(loss, learning)
        norm = torch.sqrt(sum((g.square().sum() for g in gradients), torch.zeros(())))
        for parameter, gradient in zip(learning, gradients, strict=True):
            parameter.grad = gradient * min(1.0, 1.0 / (norm.item() + 1e-6))
        optimizer.step()
        losses.append(loss.item())
    return {name: p.detach() for name, p in model.named_parameters()}, losses


def test_equals_a_plain_loop(llava: Path, colours: Path, tmp_path: Path) -> None:
    settings = config(llava, colours, steps=6, micro_batch=4, warmup=0.3)
    trainer = trained(settings, tmp_path)
    theirs, losses = plain_loop(settings)
    for name, tensor in weights(trainer).items():
        torch.testing.assert_close(tensor, theirs[name], rtol=0, atol=2e-6, msg=name)
    logged = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    assert logged == pytest.approx(losses, abs=1e-4)
    assert len(set(logged)) == 6


def test_accumulated_micro_batches_equal_one_batch(llama: Path, sums: Path, tmp_path: Path) -> None:
    # answers of several lengths: means of micro-batches would weigh them wrongly
    rows = [Encoder.load(llama).train_row(s, Path()) for s in read_samples(sums)]
    assert len({int((row.labels != IGNORED).sum()) for row in rows}) > 1
    whole = weights(trained(config(llama, sums, micro_batch=4), tmp_path))
    split = weights(trained(config(llama, sums, micro_batch=1), tmp_path))
    before = dict(load_model(llama).named_parameters())
    for name, tensor in whole.items():
        torch.testing.assert_close(split[name], tensor, rtol=0, atol=2e-6)
    assert any(not torch.equal(before[name], tensor) for name, tensor in whole.items())


def test_schedules_of_the_learning_rate(llama: Path, sums: Path, tmp_path: Path) -> None:
    rates = {}
    for schedule in ("constant", "linear"):
        settings = config(llama, sums, schedule=schedule, steps=4, warmup=0.5)
        history = trained(settings, tmp_path).state.log_history
        rates[schedule] = [row["learning_rate"] for row in history if "learning_rate" in row]
    # Trainer logs the rate that a step used; two steps of warm-up from zero
    assert rates["constant"] == pytest.approx([0, 5e-4, 1e-3, 1e-3])
    assert rates["linear"] == pytest.approx([0, 5e-4, 1e-3, 5e-4])


def test_seed_changes_the_order_and_nothing_else_does(
    llama: Path, sums: Path, tmp_path: Path
) -> None:
    settings = config(llama, sums, batch=2, micro_batch=2)
    one, again = (weights(trained(settings, tmp_path, seed=1)) for _ in range(2))
    other = weights(trained(settings, tmp_path, seed=2))
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_bf16_mixed_keeps_the_weights_float32(llava: Path, colours: Path, tmp_path: Path) -> None:
    settings = config(llava, colours, precision="bf16-mixed", lr=1e-6, warmup=0.0)
    tuned = weights(trained(settings, tmp_path))
    before = dict(load_model(llava).named_parameters())
    name = "model.language_model.layers.0.mlp.up_proj.weight"
    assert tuned[name].dtype == torch.float32
    moved = (tuned[name] != before[name]).float().mean()
    assert moved > 0.9  # pure bfloat16 would round steps of 1e-6 away


def test_loss_that_is_not_finite_names_the_step(llama: Path, sums: Path, tmp_path: Path) -> None:
    settings = config(llama, sums, lr=1e30, warmup=0.0, micro_batch=4)
    with pytest.raises(NumericError) as caught:
        trained(settings, tmp_path)
    assert str(caught.value) in {
        f"step {step}: the loss is {loss}; lower --lr, or lengthen --warmup"
        for step in (2, 3)
        for loss in ("nan", "inf")
    }


def test_state_of_other_tensors_is_refused(llama: Path, sums: Path, tmp_path: Path) -> None:
    settings = config(llama, sums, steps=2, save_every=1)
    trainer = trained(settings, tmp_path)
    state = tmp_path / "checkpoint-1"
    tensors = load_file(state / WEIGHTS)
    tensors["model.norm.scale"] = tensors.pop("model.norm.weight")
    save_file(tensors, state / WEIGHTS)
    with pytest.raises(CheckpointError) as caught:
        trainer.train(resume_from_checkpoint=str(state))
    assert str(caught.value) == f"{state}: its tensors are not those that learn; remove it"


@pytest.mark.parametrize(
    ("values", "samples", "steps"),
    [({"epochs": 2.0}, 10, 5), ({"epochs": 0.1}, 10, 1), ({"epochs": 1.05}, 16, 5)],
)
def test_epochs_are_rounded_up_to_whole_steps(values: Any, samples: int, steps: int) -> None:
    settings = FinetuneConfig.parse({"model": "m", "samples": "s", "batch": 4, **values})
    assert run_length(settings, samples).steps == steps


def test_processes_must_share_a_batch_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    settings = config(Path("m"), Path("s"), batch=16, micro_batch=2)
    with pytest.raises(ConfigError) as caught:
        run_length(settings, 10)
    assert str(caught.value) == (
        "--batch 16: is not a multiple of --micro-batch 2 times 3 processes"
    )
