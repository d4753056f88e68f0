"""Methods that see weights as matrices: by hand, and against other formulas for the same."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import scipy.linalg
import torch
from fusing import fused, prepare, run
from test_fusion_parity import models_like_bf16

from mllmtool.configs.fuse import FuseMethod
from mllmtool.fusion import METHODS
from mllmtool.fusion.inputs import is_matrix
from mllmtool.fusion.matrices import decomposed, orthogonalised

Matrix = npt.NDArray[np.float64]
OF_MATRICES: tuple[FuseMethod, ...] = ("tsv-m", "iso-c", "iso-cts", "wudi", "optmerge")


def merged(path: Path, method: FuseMethod, *taus: list[list[float]], **flags: Any) -> Matrix:
    """The change of a base that is 1 everywhere."""
    base = {"w": torch.ones(len(taus[0]), len(taus[0][0]))}
    models = [{"w": 1 + torch.tensor(tau, dtype=torch.float32)} for tau in taus]
    found: Matrix = fused(path, base, models, method, **flags)["w"].double().numpy() - 1
    return found


def test_tsv_m_by_hand(tmp_path: Path) -> None:
    # of rank 2 // 2 each: 4 at (0, 0) and 3 at (1, 1), which are orthogonal already
    found = merged(tmp_path / "1", "tsv-m", [[4, 0], [0, 1]], [[2, 0], [0, -3]])
    assert found == pytest.approx(np.diag([4, -3]))
    # twice the same direction is one of norm 1: (4 + 2) / 2
    found = merged(tmp_path / "2", "tsv-m", [[4, 0], [0, 1]], [[2, 0], [0, 1]], scale=0.5)
    assert found == pytest.approx(np.diag([1.5, 0]))


def test_iso_c_by_hand(tmp_path: Path) -> None:
    # the sum swaps the axes with 6 and 2: 4 on the mean
    found = merged(tmp_path / "1", "iso-c", [[0, 5], [2, 0]], [[0, 1], [0, 0]])
    assert found == pytest.approx(np.array([[0, 4], [4, 0]]))
    # of rank 1: half the value, and nothing where the sum has nothing
    found = merged(tmp_path / "2", "iso-c", [[0, 6], [0, 0]])
    assert found == pytest.approx(np.array([[0, 3], [0, 0]]))


def test_iso_cts_by_hand(tmp_path: Path) -> None:
    # Half of 4 common: 8 and 6 of the sum (8 6 2 0). What else the tasks have: 2 at the third,
    # -1.5 at the fourth, which cancel in the sum. Mean (8 + 6 + 2 + 1.5) / 4 = 4.375
    first, second = np.diag([8.0, 0, 2, 1.5]).tolist(), np.diag([0.0, 6, 0, -1.5]).tolist()
    found = merged(tmp_path, "iso-cts", first, second, common=0.5)
    assert found == pytest.approx(4.375 * np.diag([1, 1, 1, -1]))


def test_wudi_by_hand(tmp_path: Path) -> None:
    # C = e e^T twice: eigenvalue 2 along the first column; D = 2 + 4, so least interference at 3.
    # From the sum 6, at t = ln 2 / 2 half way: 4.5; the second column has no interference.
    taus: tuple[list[list[float]], ...] = ([[2, 0]], [[4, 0]])
    half = merged(tmp_path / "1", "wudi", *taus, time=math.log(2) / 2, rank=1)
    assert half == pytest.approx(np.array([[4.5, 0]]))
    whole = merged(tmp_path / "2", "wudi", *taus, rank=1, scale=0.5)
    assert whole == pytest.approx(np.array([[1.5, 0]]))


def test_wudi_adds_up_tasks_that_do_not_interfere(tmp_path: Path) -> None:
    found = merged(tmp_path, "wudi", [[3, 0], [1, 0]], [[0, 2], [0, 0]], rank=1)
    assert found == pytest.approx(np.array([[3, 2], [1, 0]]))


def test_optmerge_stays_at_a_mean_that_interferes_least(tmp_path: Path) -> None:
    assert merged(tmp_path, "optmerge", [[2, 0]], [[4, 0]]) == pytest.approx(np.array([[3, 0]]))


def root_inverse(gram: Matrix) -> Matrix:
    """$A^{-1/2}$, of what is not 0."""
    values, vectors = np.linalg.eigh(gram)
    roots = np.where(values > 1e-9 * values.max(), 1 / np.sqrt(np.maximum(values, 1e-300)), 0)
    found: Matrix = vectors @ np.diag(roots) @ vectors.T
    return found


def cut(tau: Matrix, rank: int) -> tuple[Matrix, Matrix, Matrix]:
    """Leading singular vectors from the eigenvectors of the Gram matrix."""
    values, vectors = np.linalg.eigh(tau.T @ tau)
    right = vectors[:, ::-1][:, :rank]
    found = np.sqrt(values[::-1][:rank])
    return tau @ right / found, found, right.T


def tsv_m(taus: list[Matrix]) -> Matrix:
    parts = [cut(tau, min(tau.shape) // len(taus)) for tau in taus]
    left = np.hstack([part[0] for part in parts])
    right = np.vstack([part[2] for part in parts])
    left, right = left @ root_inverse(left.T @ left), root_inverse(right @ right.T) @ right
    found: Matrix = left @ np.diag(np.concatenate([part[1] for part in parts])) @ right
    return found


def iso_c(taus: list[Matrix]) -> Matrix:
    whole = np.sum(taus, axis=0)
    mean = float(np.mean(scipy.linalg.svdvals(whole)))
    found: Matrix = mean * scipy.linalg.polar(whole)[0]
    return found


def iso_cts(taus: list[Matrix]) -> Matrix:
    size = min(taus[0].shape)
    each = round((size - int(size * 0.8)) / len(taus))
    common = cut(np.sum(taus, axis=0), size - each * len(taus))
    away = np.eye(len(common[0])) - common[0] @ common[0].T
    parts = [common, *(cut(away @ tau, each) for tau in taus)]
    left = np.hstack([part[0] for part in parts])
    right = np.vstack([part[2] for part in parts])
    mean = np.concatenate([part[1] for part in parts]).mean()
    found: Matrix = mean * scipy.linalg.polar(left)[0] @ scipy.linalg.polar(right)[0]
    return found


def wudi(taus: list[Matrix]) -> Matrix:
    """Gradient flow by a matrix exponential, along the leading eigenvectors."""
    curvature = sum(tau.T @ tau / (tau**2).sum() for tau in taus)
    pull = sum(tau @ tau.T @ tau / (tau**2).sum() for tau in taus)
    _, vectors = scipy.linalg.eigh(curvature)
    kept = vectors[:, -math.ceil(0.65 * len(vectors)) :]
    start, inner = np.sum(taus, axis=0), kept.T @ curvature @ kept
    decay = scipy.linalg.expm(-300 * inner)
    least = pull @ kept @ np.linalg.inv(inner)
    found: Matrix = start + ((start @ kept - least) @ decay + least - start @ kept) @ kept.T
    return found


def optmerge(taus: list[Matrix]) -> Matrix:
    """By autograd and torch's own SGD."""
    whole = [torch.from_numpy(tau) for tau in taus]
    left, factors = [], []
    for tau in taus:
        u, s, vt = cut(tau, min(tau.shape) // len(taus))
        left.append(torch.from_numpy(u @ np.diag(s) @ vt))
        factors.append(torch.from_numpy(np.diag(s) @ vt))
    vector = torch.nn.Parameter(torch.stack(whole).mean(0))
    optimizer = torch.optim.SGD([vector], lr=1e-4, momentum=0.9)
    for _ in range(300):
        optimizer.zero_grad()
        terms = zip(whole, left, factors, strict=True)
        loss = sum(
            ((vector - kept) @ f.T).square().sum() / t.square().sum() for t, kept, f in terms
        )
        assert isinstance(loss, torch.Tensor)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    found: Matrix = vector.detach().numpy()
    return found


@pytest.mark.parametrize("transcribed", [tsv_m, iso_c, iso_cts, wudi, optmerge])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_as_transcribed(
    tmp_path: Path, transcribed: Callable[[list[Matrix]], Matrix], dtype: torch.dtype
) -> None:
    method: Any = transcribed.__name__.replace("_", "-")
    base, *tuned = models_like_bf16(3, dtype)
    inputs = prepare(tmp_path, base, tuned)
    found, _, findings = run(tmp_path / "out", inputs, method, scale=0.8)
    assert findings == {"matrices": 2, "averaged": ["embed", "norm"]}
    for name, start in base.items():
        taus = [(model[name].double() - start.double()).numpy() for model in tuned]
        change = transcribed(taus) if "layer" in name else np.mean(taus, axis=0)
        expected = start.double() + 0.8 * torch.from_numpy(change)
        if dtype == torch.float32:
            assert torch.allclose(found[name].double(), expected, rtol=1e-6, atol=1e-6), name
        else:  # reckoned in float32, rounded once: at most a step away, and seldom
            steps = (found[name].view(torch.int16) - expected.bfloat16().view(torch.int16)).abs()
            assert int(steps.max()) <= 1
            assert float((steps > 0).double().mean()) < 0.01


@pytest.mark.parametrize("method", OF_MATRICES)
def test_rotating_all_tasks_rotates_what_is_merged(tmp_path: Path, method: FuseMethod) -> None:
    """No axis is preferred; other signs of the singular vectors are one case of it."""
    rng = np.random.default_rng(6)
    left, right = (np.linalg.qr(rng.standard_normal((n, n)))[0] for n in (7, 5))
    taus = [rng.standard_normal((7, 5)) for _ in range(2)]
    zero = {"w": torch.zeros(7, 5, dtype=torch.float64)}
    plain = [{"w": torch.from_numpy(tau)} for tau in taus]
    turned = [{"w": torch.from_numpy(left @ tau @ right)} for tau in taus]
    one = fused(tmp_path / "1", zero, plain, method)["w"].numpy()
    other = fused(tmp_path / "2", zero, turned, method)["w"].numpy()
    assert other == pytest.approx(left @ one @ right, abs=1e-9)


def test_singular_vectors_of_nothing_are_dropped() -> None:
    left, values, right = decomposed(np.outer([1.0, 2], [3.0, 0, 4]))
    assert (left.shape, right.shape) == ((2, 1), (1, 3))
    assert values == pytest.approx([math.sqrt(125)])
    twice = orthogonalised(np.array([[2.0, 2], [0, 0]]))
    assert twice == pytest.approx(np.array([[1, 1], [0, 0]]) / math.sqrt(2))


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("model.layers.0.mlp.up_proj.weight", (4, 2), True),
        ("model.embed_tokens.weight", (4, 2), False),
        ("vision.embeddings.position_embedding.weight", (4, 2), False),
        ("lm_head.weight", (4, 2), False),
        ("visual.patch_embed.proj.weight", (4, 3, 2, 2), False),
        ("model.norm.weight", (4,), False),
    ],
)
def test_matrices_are_the_weights_of_linear_layers(
    name: str, shape: tuple[int, ...], expected: bool
) -> None:
    assert is_matrix(name, shape) == expected


def test_defaults_are_those_of_the_papers() -> None:
    assert METHODS["iso-cts"].reads == {"common": 0.8, "scale": 1}
    assert METHODS["wudi"].reads == {"time": 300, "rank": 0.65, "scale": 1}
    for method in ("tsv-m", "iso-c", "optmerge"):
        assert METHODS[method].reads == {"scale": 1}
