"""Against slow transcriptions in numpy that share no code with the package."""

import numpy as np
import numpy.typing as npt
import pytest
import torch
from layers import Layer, random_layer

from mllmtool.tailoring.decorate import correction
from mllmtool.tailoring.matrix import Choices, tailor
from mllmtool.tailoring.moments import Moment
from mllmtool.tailoring.sweep import released, sweep

Array = npt.NDArray[np.float64]


def least_squares(layer: Layer, mask: Array, damping: float, weight: float) -> Array:
    """Minimise task error + weight * anchor drift, each with its ridge, over kept entries."""
    task, anchor, change = (t.numpy() for t in (layer.task, layer.anchor, layer.change))
    blocks = []
    for inputs, factor in ((task, 1.0), (anchor, weight)):
        scaled = inputs / np.sqrt(len(inputs))
        ridge = np.sqrt(damping * np.mean((scaled**2).sum(axis=0)))
        rows = np.vstack([scaled, ridge * np.eye(inputs.shape[1])])
        blocks.append(np.sqrt(factor) * rows)
    solution = np.zeros_like(change)
    for row, kept in enumerate(mask):
        wanted = np.concatenate([blocks[0] @ change[row], np.zeros(len(blocks[1]))])
        stacked = np.vstack(blocks)[:, kept]
        solution[row, kept] = np.linalg.lstsq(stacked, wanted, rcond=None)[0]
    return solution


@pytest.mark.parametrize("density", [0.1, 0.4, 1.0])
@pytest.mark.parametrize("weight", [0.0, 0.3, 2.0])
def test_decoration_against_least_squares(density: float, weight: float) -> None:
    layer = random_layer(11)
    found = tailor(layer.matrix(anchored=True), Choices(density, anchor_weight=weight))
    theirs = least_squares(layer, found.mask.numpy(), 0.01, weight)
    np.testing.assert_allclose(found.change.numpy(), theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("outliers", [False, True])
def test_single_precision_reaches_the_least_error_of_an_ill_conditioned_layer(
    outliers: bool,
) -> None:
    rng = np.random.default_rng(15)
    columns, spectrum = 200, np.logspace(0, -6, 200)  # condition number 1e6
    basis = np.linalg.qr(rng.normal(size=(columns, columns)))[0]
    scale = np.logspace(-2, 2, columns) if outliers else np.ones(columns)
    full = torch.tensor((basis * spectrum) @ basis.T * scale * scale[:, None]).float()
    change = torch.tensor(rng.normal(size=(8, columns))).float()
    mask = torch.tensor(rng.random(size=change.shape) < 0.2)
    lost = torch.where(mask, 0.0, change)
    found = correction(Moment(torch.zeros(1, 1), full), lost, mask)
    assert found[1] == "cholesky"
    hessian = full.double().numpy()
    for ours, gone, kept in zip(found[0].double().numpy(), lost.numpy(), mask.numpy(), strict=True):
        theirs = np.zeros(columns)
        theirs[kept] = np.linalg.solve(hessian[kept][:, kept], hessian[kept] @ gone)
        error, least = ((gone - c) @ hessian @ (gone - c) for c in (ours, theirs))
        assert error <= least * (1 + 1e-6)


def slow_mask(layer: Layer, density: float, salience_weight: float) -> Array:
    """Fused score entry by entry, then the best entries by sorting."""
    inputs, change = layer.task.numpy(), layer.change.numpy()
    hessian = np.mean([np.outer(x, x) for x in inputs], axis=0)
    hessian = hessian + 0.01 * np.trace(hessian) / len(hessian) * np.eye(len(hessian))
    inverse = np.linalg.inv(hessian)
    score = np.empty_like(change)
    for row, delta in enumerate(change):
        salience = np.abs(delta)
        cost = [delta[m] ** 2 / (2 * inverse[m, m]) for m in range(len(delta))]
        z = [(s - np.mean(s)) / np.std(s, ddof=1) for s in (salience, np.array(cost))]
        score[row] = salience_weight * z[0] + (1 - salience_weight) * z[1]
    order = sorted(range(score.size), key=lambda i: (-score.flat[i], i))
    mask = np.zeros(score.size, dtype=bool)
    mask[order[: round(density * score.size)]] = True
    return mask.reshape(score.shape)


@pytest.mark.parametrize("salience_weight", [0.0, 0.5, 1.0])
def test_mask(salience_weight: float) -> None:
    layer = random_layer(12)
    found = tailor(layer.matrix(), Choices(0.25, salience_weight=salience_weight))
    np.testing.assert_array_equal(found.mask.numpy(), slow_mask(layer, 0.25, salience_weight))


def surgeon_column_by_column(hessian: Array, change: Array, mask: Array) -> Array:
    """Optimal brain surgeon from left to right: remove a weight, then its row and column."""
    result = change.copy()
    for row, kept in enumerate(mask):
        inverse = np.linalg.inv(hessian)
        for column in range(len(kept)):
            if not kept[column]:
                step = result[row, column] / inverse[column, column]
                result[row, column:] -= step * inverse[column, column:]
                result[row, column] = 0
            pivot = inverse[column, column]
            inverse = inverse - np.outer(inverse[:, column], inverse[column]) / pivot
    return result


def test_sweep_against_optimal_brain_surgeon() -> None:
    layer = random_layer(13, columns=150, tokens=500)  # more than one block of 128
    task = layer.matrix().task.damped(0.01, layer.change.shape)
    mask = tailor(layer.matrix(), Choices(0.3)).mask
    ours, _ = sweep(task.inverse_root(), layer.change, lambda here, _: mask[:, here])
    assert task.full is not None
    hessian = (task.full + task.diagonal * torch.eye(150)).numpy()
    theirs = surgeon_column_by_column(hessian, layer.change.numpy(), mask.numpy())
    np.testing.assert_allclose(ours.numpy(), theirs, rtol=0, atol=1e-6)


def released_block(weights: Array, base: Array, tuned: Array, root: Array) -> tuple[Array, Array]:
    """A block as the released code writes it: returns the block and its errors."""
    salience = np.abs(tuned - base)
    importance = weights**2 / np.diag(root)[None, :] ** 2
    z = [
        (s - s.mean(axis=1, keepdims=True)) / s.std(axis=1, ddof=1, keepdims=True)
        for s in (salience, importance)
    ]
    score = 0.8 * z[0] + 0.2 * z[1]
    kept = score > np.sort(score.flatten())[int(score.size * 0.9)]
    block, errors, done = weights.copy(), np.zeros_like(weights), np.zeros_like(weights)
    for i in range(weights.shape[1]):
        w = block[:, i].copy()
        q = np.where(kept[:, i], w, base[:, i])
        done[:, i] = q
        errors[:, i] = (w - q) / root[i, i]
        block[:, i:] += np.outer(errors[:, i], root[i, i:])
    return done, errors


def test_the_released_recipe() -> None:
    layer = random_layer(14, rows=20, columns=200, tokens=700)
    task: Moment = layer.matrix().task.damped(0.01, layer.change.shape)
    ours, _ = released(task.inverse_root(), layer.change, layer.base, 0.1, 0.8)
    assert task.full is not None
    hessian = (task.full + task.diagonal * torch.eye(200)).numpy()
    root = np.linalg.cholesky(np.linalg.inv(hessian)).T
    base, tuned = layer.base.numpy(), (layer.base + layer.change).numpy()
    weights = tuned.copy()
    for start in (0, 128):
        here = slice(start, min(start + 128, 200))
        done, errors = released_block(
            weights[:, here], base[:, here], tuned[:, here], root[here, here]
        )
        weights[:, here] = done
        weights[:, here.stop :] += errors @ root[here, here.stop :]
    np.testing.assert_allclose((layer.base + ours).numpy(), weights, rtol=0, atol=1e-9)
