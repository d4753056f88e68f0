"""KnOTS by hand, its laws, and on adapters against the released code's steps on whole matrices."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fusing import fused, prepare, run
from safetensors.torch import save_file
from weights import Tensors

from mllmtool.checkpoints.adapter import AdaptedCheckpoint
from mllmtool.fusion import Inputs

SHAPES = {"layers.0.up": (12, 7), "layers.1.down": (7, 12), "layers.1.skip": (5, 5)}
RNG = torch.Generator().manual_seed(5)
Pairs = Mapping[str, tuple[torch.Tensor, torch.Tensor]]  # B (rows, r) and A (r, columns)


def pairs(ranks: Mapping[str, int]) -> Pairs:
    """An adapter's factors, of the tensors named."""
    return {
        name: (
            torch.randn(SHAPES[name][0], rank, generator=RNG),
            torch.randn(rank, SHAPES[name][1], generator=RNG),
        )
        for name, rank in ranks.items()
    }


def save_adapter(path: Path, factors: Pairs) -> Path:
    """As PEFT saves it; alpha 2."""
    path.mkdir()
    tensors = {}
    for name, (b, a) in factors.items():
        tensors[f"base_model.model.{name}.lora_B.weight"] = b
        tensors[f"base_model.model.{name}.lora_A.weight"] = a
    save_file(tensors, path / "adapter_model.safetensors")
    ranks = {name.replace(".", r"\."): len(a) for name, (_, a) in factors.items()}
    config = {"peft_type": "LORA", "r": 1, "lora_alpha": 2, "rank_pattern": ranks}
    (path / "adapter_config.json").write_text(json.dumps(config))
    return path


def adapted(path: Path, base: Tensors, *adapters: Pairs) -> Inputs:
    """Adapters of a base."""
    inputs = prepare(path, base, [base] * len(adapters))
    models = tuple(
        AdaptedCheckpoint(inputs.base, save_adapter(path / f"adapter-{i}", factors))
        for i, factors in enumerate(adapters)
    )
    return replace(inputs, models=models)


def base_of(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    return {f"{name}.weight": torch.randn(shape, generator=RNG) for name, shape in shapes.items()}


def knots(taus: list[dict[str, torch.Tensor]], density: float) -> dict[str, torch.Tensor]:
    """The released code's steps: a singular value decomposition of whole concatenated matrices."""
    bases, rights = {}, [dict[str, torch.Tensor]() for _ in taus]
    for name in taus[0]:
        u, s, vh = torch.linalg.svd(torch.cat([t[name] for t in taus], dim=1), full_matrices=False)
        kept = s > 1e-5
        bases[name] = u[:, kept]
        chunks = (s[kept, None] * vh[kept]).chunk(len(taus), dim=1)
        for right, chunk in zip(rights, chunks, strict=True):
            right[name] = chunk
    flat = torch.stack([torch.cat([part.flatten() for part in right.values()]) for right in rights])
    least = flat.abs().sort(dim=1).values[:, -round(density * flat.shape[1])]
    flat[flat.abs() < least[:, None]] = 0
    agrees = flat.sign() == flat.sum(dim=0).sign()
    merged = (flat * agrees).sum(dim=0) / (agrees & (flat != 0)).sum(dim=0).clamp(min=1)
    sizes = [part.numel() for part in rights[0].values()]
    parts = torch.split(merged, sizes)
    return {
        name: bases[name] @ part.reshape(rights[0][name].shape)
        for name, part in zip(taus[0], parts, strict=True)
    }


def test_by_hand(tmp_path: Path) -> None:
    # All columns lie along (3 4) / 5, and along it they are (5 6.5) and (10 -2). Of two entries
    # each the larger is kept: 6.5 and 10. Entry by entry TIES keeps 4 and 5.2 of the first.
    models = [[[3, 3.9], [4, 5.2]], [[6, -1.2], [8, -1.6]]]
    tensors = [{"w": torch.tensor(tau)} for tau in models]
    found = fused(tmp_path, {"w": torch.zeros(2, 2)}, tensors, "knots", density=0.5, scale=1)
    assert found["w"].numpy() == pytest.approx(torch.tensor([[6, 3.9], [8, 5.2]]).numpy())


@pytest.mark.parametrize("density", [0.2, 1.0])
def test_adapters_merge_as_whole_matrices_do(tmp_path: Path, density: float) -> None:
    base = base_of({**SHAPES, "norm": (7,)})
    adapters = [
        pairs({"layers.0.up": 2, "layers.1.down": 3}),
        pairs({"layers.0.up": 3, "layers.1.down": 1}),
        pairs({"layers.0.up": 1}),  # adapts less
    ]
    taus = []
    for factors in adapters:
        products = {f"{name}.weight": 2 / len(a) * b @ a for name, (b, a) in factors.items()}
        zeros = {f"{name}.weight": torch.zeros(shape) for name, shape in SHAPES.items()}
        taus.append({name: tau.double() for name, tau in (zeros | products).items()})
    inputs = adapted(tmp_path, base, *adapters)
    found, _, said = run(tmp_path / "out", inputs, "knots", density=density, scale=0.7)
    expected = knots(taus, density)
    for name, tensor in base.items():
        change = expected.get(name, torch.zeros(())).float()
        assert torch.allclose(found[name], tensor + 0.7 * change, atol=1e-5), name
    assert (said["matrices"], said["averaged"]) == (3, ["norm.weight"])


def test_an_adapter_merges_as_the_checkpoint_that_it_makes(tmp_path: Path) -> None:
    shapes = {"layers.0.up": SHAPES["layers.0.up"]}
    base, factors = base_of(shapes), [pairs({"layers.0.up": 2}) for _ in range(2)]
    made = [
        {"layers.0.up.weight": base["layers.0.up.weight"] + b @ a}
        for ((b, a),) in (each.values() for each in factors)
    ]
    inputs = adapted(tmp_path / "adapters", base, *factors)
    one, _, _ = run(tmp_path / "out", inputs, "knots", density=1)
    two = fused(tmp_path / "checkpoints", base, made, "knots", density=1)
    assert torch.allclose(one["layers.0.up.weight"], two["layers.0.up.weight"], atol=1e-5)


def test_the_same_adapter_twice_is_that_adapter(tmp_path: Path) -> None:
    base, factors = base_of(SHAPES), pairs({"layers.0.up": 2, "layers.1.down": 2})
    inputs = adapted(tmp_path, base, factors, factors)
    found, _, _ = run(tmp_path / "out", inputs, "knots", density=1, scale=1)
    for name, (b, a) in factors.items():
        expected = base[f"{name}.weight"] + b @ a
        assert torch.allclose(found[f"{name}.weight"], expected, atol=1e-5), name


def test_rotating_the_outputs_of_all_tasks_rotates_what_is_merged(tmp_path: Path) -> None:
    turn = torch.linalg.qr(torch.randn(12, 12, generator=RNG).double())[0]
    taus = [torch.randn(12, 7, generator=RNG).double() for _ in range(2)]
    zero = {"w": torch.zeros(12, 7, dtype=torch.float64)}
    one = fused(tmp_path / "1", zero, [{"w": tau} for tau in taus], "knots")["w"]
    two = fused(tmp_path / "2", zero, [{"w": turn @ tau} for tau in taus], "knots")["w"]
    assert torch.allclose(two, turn @ one, atol=1e-9)
