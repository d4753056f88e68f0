"""`--compat mergekit` against what mergekit 0.1.5 wrote, and against its formulas in torch.

`cases/mergekit-0.1.5.safetensors` holds a small Llama (`base/`), two tuned ones (`a/`, `b/`) and
what `mergekit-yaml` made of them on CPU with `dtype: float32`, weights 0.3 and 0.9, density 0.3 and
lambda 0.7 (`linear/`, `task-arithmetic/`, `ties/`, `model-stock/`), and by the weights `SPREAD`
(`task-arithmetic-spread/`).
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import families
import pytest
import torch
from commandline import mllmtool
from safetensors.torch import load_file
from weights import retuned, same_bits, save_checkpoint

GOLDEN = Path(__file__).parents[1] / "cases/mergekit-0.1.5.safetensors"
WEIGHTS = (0.3, 0.9)
FLAGS: dict[str, tuple[object, ...]] = {
    "linear": (),
    "task-arithmetic": ("--scale", 0.7),
    "ties": ("--scale", 0.7, "--density", 0.3),
    "model-stock": (),
}


def compatible(
    base: Path, models: Sequence[Path], method: str, out: Path, *flags: object
) -> dict[str, torch.Tensor]:
    """Fuse as mergekit does, with its weights."""
    repeated = [argument for model in models for argument in ("--model", model)]
    weights = [argument for weight in WEIGHTS for argument in ("--weight", weight)]
    weights = [] if method == "model-stock" else weights
    argv = ("--method", method, "--compat", "mergekit", *FLAGS[method], "--out", out, "--quiet")
    done = mllmtool("fuse", "--base", base, *repeated, *weights, *argv, *flags)
    assert (done.status, done.err) == (0, "")
    return load_file(out / "model.safetensors")


SPREAD = ([{"filter": "mlp", "value": [0.1, 1, 0.35]}, {"value": 0.3}], [0.9, 0.1])


@pytest.fixture(scope="module")
def golden() -> dict[str, dict[str, torch.Tensor]]:
    """Its tensors by folder."""
    found: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in load_file(GOLDEN).items():
        folder, _, name = key.partition("/")
        found.setdefault(folder, {})[name] = tensor
    return found


@pytest.mark.parametrize("method", FLAGS)
def test_bits_are_those_that_mergekit_wrote(
    method: str, golden: dict[str, dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    base, *models = (save_checkpoint(tmp_path / name, golden[name]) for name in ("base", "a", "b"))
    found = compatible(base, models, method, tmp_path / "out")
    assert found.keys() == golden[method].keys()
    assert all(same_bits(found[name], tensor) for name, tensor in golden[method].items())


def test_gradients_and_filters_of_a_recipe_give_its_bits(
    golden: dict[str, dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    for name in ("base", "a", "b"):
        save_checkpoint(tmp_path / name, golden[name])
    recipe = {
        "merge_method": "task_arithmetic",
        "base_model": str(tmp_path / "base"),
        "models": [
            {"model": str(tmp_path / name), "parameters": {"weight": weight}}
            for name, weight in zip("ab", SPREAD, strict=True)
        ],
        "parameters": {"lambda": 0.7},
        "dtype": "float32",
    }
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    argv = ("--recipe", tmp_path / "recipe.yaml", "--out", tmp_path / "out", "--quiet")
    done = mllmtool("fuse", *argv)
    assert (done.status, done.err) == (0, "")
    found = load_file(tmp_path / "out/model.safetensors")
    expected = golden["task-arithmetic-spread"]
    assert found.keys() == expected.keys()
    assert all(same_bits(found[name], tensor) for name, tensor in expected.items())


def linear(_: torch.Tensor, tuned: list[torch.Tensor]) -> torch.Tensor:
    total = torch.zeros_like(tuned[0])
    for tensor, weight in zip(tuned, WEIGHTS, strict=True):
        total.addcmul_(tensor, torch.tensor(weight))
    return total / torch.tensor(WEIGHTS).sum()


def task_arithmetic(base: torch.Tensor, tuned: list[torch.Tensor]) -> torch.Tensor:
    deltas = torch.stack([(t - base) * w for t, w in zip(tuned, WEIGHTS, strict=True)])
    return base + deltas.sum(dim=0) * 0.7


def ties(base: torch.Tensor, tuned: list[torch.Tensor]) -> torch.Tensor:
    deltas = []
    for tensor, weight in zip(tuned, WEIGHTS, strict=True):
        delta = tensor - base
        kept = delta.abs().flatten().argsort(descending=True)[: max(1, int(0.3 * delta.numel()))]
        mask = torch.zeros(delta.numel())
        mask[kept] = 1
        deltas.append(delta * mask.reshape(delta.shape) * torch.tensor(weight))
    stacked = torch.stack(deltas)
    majority = (stacked.sum(dim=0) >= 0).float() * 2 - 1
    agrees = stacked.sign() == majority
    divisor = (torch.tensor(WEIGHTS).reshape(-1, *[1] * base.dim()) * agrees).sum(dim=0)
    divisor[divisor == 0] = 1
    return base + (stacked * agrees).sum(dim=0) / divisor * 0.7


def model_stock(base: torch.Tensor, tuned: list[torch.Tensor]) -> torch.Tensor:
    first, second = (tensor.view(-1) - base.view(-1) for tensor in tuned)
    norms = torch.norm(first, dim=-1) * torch.norm(second, dim=-1)
    cosine = ((first * second).sum(dim=-1) / norms.clamp(min=1e-6)).clamp(-1, 1).unsqueeze(-1)
    ratio = 2 * cosine / (1 + cosine)
    average = (tuned[0].view(-1) + tuned[1].view(-1)) / 2
    merged: torch.Tensor = ratio * average + (1 - ratio) * base.view(-1)
    return merged.reshape(base.shape)


FORMULAS: dict[str, Callable[[torch.Tensor, list[torch.Tensor]], torch.Tensor]] = {
    "linear": linear,
    "task-arithmetic": task_arithmetic,
    "ties": ties,
    "model-stock": model_stock,
}


@pytest.fixture(scope="module")
def families_tuned(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """A base and two tuned checkpoints each."""
    folder = tmp_path_factory.mktemp("compat")
    bases = [
        families.tiny_instructblip(folder / "instructblip"),
        families.tiny_qwen2_5_vl(folder / "qwen"),
    ]
    return {
        base.name: [base, *(retuned(folder / f"{base.name}-{i}", base, i) for i in (1, 2))]
        for base in bases
    }


@pytest.mark.parametrize("method", FLAGS)
@pytest.mark.parametrize("kind", ["instructblip", "qwen"])
def test_bits_are_those_of_the_formula_in_torch(
    kind: str, method: str, families_tuned: dict[str, list[Path]], tmp_path: Path
) -> None:
    base, *models = families_tuned[kind]
    found = compatible(base, models, method, tmp_path / "out")
    before, *tuned = (load_file(path / "model.safetensors") for path in (base, *models))
    for name, tensor in before.items():
        expected = FORMULAS[method](tensor, [model[name] for model in tuned])
        if method == "linear":  # torch does not always multiply and add in one step
            assert torch.allclose(found[name], expected, rtol=1e-6, atol=1e-9), name
        else:
            assert same_bits(found[name], expected), name


def test_entries_tied_at_the_threshold_are_kept_and_counted(tmp_path: Path) -> None:
    base = save_checkpoint(tmp_path / "base", {"lm_head.weight": torch.zeros(6)})
    values = torch.tensor([3.0, -2, 2, 1, 2, 0])
    model = save_checkpoint(tmp_path / "model", {"lm_head.weight": values})
    argv = ("--method", "ties", "--compat", "mergekit", "--density", 0.4, "--quiet")
    out = tmp_path / "out"
    done = mllmtool("fuse", "--base", base, "--model", model, *argv, "--out", out)
    assert done.status == 0
    assert load_file(out / "model.safetensors")["lm_head.weight"].tolist() == [3, -2, 2, 0, 2, 0]
    assert '"tied_besides": [\n    2\n   ]' in (out / "report.json").read_text()


def test_opposite_models_leave_the_base_in_model_stock(tmp_path: Path) -> None:
    # cos -1: 2 t = 1 + t has no solution; else t is not bounded: cos -0.6 gives -1.2 / 0.4 = -3
    base = save_checkpoint(tmp_path / "base", {"lm_head.weight": torch.ones(2)})
    vectors = {"a": [3.0, 4.0], "opposite": [-3.0, -4.0], "obtuse": [-5.0, 0.0]}
    paths = {
        name: save_checkpoint(tmp_path / name, {"lm_head.weight": 1 + torch.tensor(vector)})
        for name, vector in vectors.items()
    }
    for other, expected in (("opposite", [1, 1]), ("obtuse", [4, -5])):
        models = (paths["a"], paths[other])
        found = compatible(base, models, "model-stock", tmp_path / f"{other}-out")
        assert found["lm_head.weight"].tolist() == pytest.approx(expected, rel=1e-6)


def test_what_mergekit_is_not_known_to_do_is_refused(tmp_path: Path) -> None:
    argv = ("--base", "b", "--model", "m", "--method", "tailor", "--compat", "mergekit")
    done = mllmtool("fuse", *argv, "--out", tmp_path / "out")
    assert done.status == 2
    assert "--compat: tailor is not one that is known of mergekit; of use to" in done.err
