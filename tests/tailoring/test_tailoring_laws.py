"""What must hold for every layer."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from layers import F64, Layer, moment, random_layer

from mllmtool.tailoring.decorate import cholesky, conjugate_gradient
from mllmtool.tailoring.matrix import Choices, Matrix, tailor
from mllmtool.tailoring.moments import Moment
from mllmtool.tailoring.scores import entry_count

SEEDS = st.integers(0, 10_000)
DENSITIES = st.sampled_from([0.05, 0.1, 0.2, 0.3, 0.5, 0.9])
law = settings(max_examples=20, deadline=None)


@law
@given(SEEDS, DENSITIES)
def test_the_exact_solution_is_the_set_form_of_optimal_brain_surgeon(
    seed: int, density: float
) -> None:
    layer = random_layer(seed, rows=3)
    tailored = tailor(layer.matrix(), Choices(density))
    damped = layer.matrix().task.damped(0.01, layer.change.shape)
    assert damped.full is not None
    hessian = damped.full + damped.diagonal * torch.eye(layer.change.shape[1], dtype=F64)
    inverse = hessian.inverse()
    for row, change in enumerate(layer.change):
        # d = -delta_P ([H^-1]_PP)^-1 [H^-1]_P,:  (theorem 4.5)
        gone = ~tailored.mask[row]
        inner = torch.linalg.solve(inverse[gone][:, gone], inverse[gone])
        expected = change - change[gone] @ inner
        assert torch.allclose(tailored.change[row], expected, rtol=1e-2, atol=1e-4)


@law
@given(SEEDS, DENSITIES, st.sampled_from([0.0, 0.3, 1.0]))
def test_the_count_is_exact_and_reverted_entries_are_zero(
    seed: int, density: float, weight: float
) -> None:
    layer = random_layer(seed)
    tailored = tailor(layer.matrix(anchored=True), Choices(density, anchor_weight=weight))
    assert int(tailored.mask.sum()) == entry_count(density, layer.change.numel())
    assert (tailored.change[~tailored.mask] == 0).all()


@law
@given(SEEDS, DENSITIES)
def test_decoration_never_raises_the_error_that_it_minimises(seed: int, density: float) -> None:
    layer = random_layer(seed)
    masked, swept, exact = (
        layer.error(tailor(layer.matrix(), Choices(density, damping=1e-9, solver=solver)).change)
        for solver in ("none", "sweep", "exact")
    )
    assert exact <= swept + 1e-9
    assert exact <= masked + 1e-9


@law
@given(SEEDS, DENSITIES, st.sampled_from([0.3, 1.0, 3.0]))
def test_more_anchor_weight_drifts_less_and_errs_more(
    seed: int, density: float, weight: float
) -> None:
    layer = random_layer(seed)
    matrix = layer.matrix(anchored=True)
    mask = tailor(matrix, Choices(density, anchor_weight=weight)).mask
    # the law is one of a fixed mask: the minimiser's two terms trade against each other
    terms = []
    for factor in (weight, 10 * weight):
        assert matrix.anchor is not None
        hessian = matrix.task.plus(matrix.anchor.scaled(factor))
        optimum = hessian.factor.solve(matrix.task.apply(layer.change))
        kept = torch.where(mask, optimum, 0.0)
        change = kept + cholesky(hessian, optimum - kept, mask)
        terms.append((layer.error(change), layer.drift(change)))
    assert terms[0][0] <= terms[1][0] + 1e-9
    assert terms[1][1] <= terms[0][1] + 1e-9


@law
@given(SEEDS)
def test_density_zero_is_the_base(seed: int) -> None:
    for solver in ("exact", "sweep", "none"):
        tailored = tailor(random_layer(seed).matrix(), Choices(0.0, solver=solver))
        assert not tailored.mask.any()
        assert not tailored.change.any()


@law
@given(SEEDS)
def test_density_one_without_anchors_is_the_tuned_layer(seed: int) -> None:
    layer = random_layer(seed)
    assert torch.equal(tailor(layer.matrix(), Choices(1.0)).change, layer.change)
    assert torch.equal(tailor(layer.matrix(anchored=True), Choices(1.0)).change, layer.change)


@law
@given(SEEDS, DENSITIES)
def test_strength_zero_is_the_mask_alone(seed: int, density: float) -> None:
    layer = random_layer(seed)
    tailored = tailor(layer.matrix(), Choices(density, strength=0.0))
    assert torch.equal(tailored.change, torch.where(tailored.mask, layer.change, 0.0))
    bare = tailor(layer.matrix(), Choices(density, solver="none"))
    assert torch.equal(bare.change, tailored.change)


@law
@given(SEEDS, st.sampled_from([0.1, 0.5, 1.0]))
def test_a_huge_anchor_weight_tends_to_the_base(seed: int, density: float) -> None:
    layer = random_layer(seed)
    change = tailor(layer.matrix(anchored=True), Choices(density, anchor_weight=1e9)).change
    assert change.abs().max() < 1e-5 * layer.change.abs().max()


@law
@given(SEEDS, DENSITIES, st.sampled_from([1e-6, 1e-2, 1e5]))
def test_the_scale_of_the_moments_does_not_matter(seed: int, density: float, factor: float) -> None:
    layer = random_layer(seed)
    matrix = layer.matrix(anchored=True)
    assert matrix.anchor is not None
    scaled = Matrix(
        layer.base,
        layer.change,
        matrix.widths,
        matrix.task.scaled(factor),
        matrix.anchor.scaled(factor),
    )
    choices = Choices(density, anchor_weight=1.0)
    ours, theirs = tailor(matrix, choices), tailor(scaled, choices)
    assert torch.equal(ours.mask, theirs.mask)
    # conjugate gradients may stop a step apart, each within their tolerance
    assert torch.allclose(ours.change, theirs.change, rtol=1e-3, atol=3e-4)


@law
@given(SEEDS, DENSITIES)
def test_conjugate_gradients_agree_with_cholesky(seed: int, density: float) -> None:
    layer = random_layer(seed)
    damped = layer.matrix().task.damped(0.01, layer.change.shape)
    mask = tailor(layer.matrix(), Choices(density)).mask
    lost = torch.where(mask, 0.0, layer.change)
    exact = cholesky(damped, lost, mask)
    found, residual = conjugate_gradient(damped, lost, mask, tolerance=1e-10)
    assert residual <= 1e-10
    assert torch.allclose(found, exact, rtol=1e-6, atol=1e-9)
    # and where it stops by default it has all but reached the least error
    quick, residual = conjugate_gradient(damped, lost, mask)
    assert residual <= 1e-5
    least = damped.energy(lost - exact)
    assert (1 - 1e-9) * least <= damped.energy(lost - quick) <= (1 + 1e-4) * least


@law
@given(SEEDS)
def test_rows_do_not_depend_on_each_other(seed: int) -> None:
    layer = random_layer(seed)
    damped = layer.matrix().task.damped(0.01, layer.change.shape)
    mask = tailor(layer.matrix(), Choices(0.15)).mask
    lost = torch.where(mask, 0.0, layer.change)
    alone = [cholesky(damped, lost[r : r + 1], mask[r : r + 1]) for r in range(len(mask))]
    assert torch.allclose(cholesky(damped, lost, mask), torch.cat(alone), rtol=1e-9, atol=1e-12)


def test_untouched_weights_and_dead_inputs_are_never_kept() -> None:
    layer = random_layer(1)
    change, task = layer.change.clone(), layer.task.clone()
    change[0, 3] = change[1] = 0
    task[:, 5] = 0
    dead = Layer(task, layer.anchor, layer.base, change)
    for solver in ("exact", "sweep", "none"):
        tailored = tailor(dead.matrix(), Choices(0.99, solver=solver))
        assert not tailored.mask[:, 5].any()
        assert not tailored.mask[1].any()
        assert not tailored.mask[0, 3]
        assert int(tailored.mask.sum()) == 5 * 24 - 1 - 5


def test_damping_grows_until_the_moment_is_positive() -> None:
    layer = random_layer(2, columns=4)
    broken = torch.diag(torch.tensor([1.0, 1.0, 1.0, -0.05], dtype=F64))  # mean 0.7375
    matrix = Matrix(layer.base, layer.change, (4,), Moment(torch.zeros(1, 1, dtype=F64), broken, 9))
    tailored = tailor(matrix, Choices(0.5))
    assert tailored.damping == pytest.approx(0.1)
    assert tailored.retries == 1
    hopeless = Matrix(layer.base, layer.change, (4,), moment(layer.task).scaled(-1))
    tailored = tailor(hopeless, Choices(0.5))
    assert (tailored.solver, tailored.retries) == ("mask-only", 3)
    assert torch.equal(tailored.change, torch.where(tailored.mask, layer.change, 0.0))


def test_on_correlated_inputs_the_released_recipe_is_worse_than_its_mask_alone() -> None:
    for seed in range(5):
        layer = random_layer(seed, rows=32, columns=160, tokens=600)
        base = Layer(layer.task, layer.anchor, 3 * layer.change.flip(0), layer.change)
        found = tailor(base.matrix(), Choices(0.1, salience_weight=0.8, solver="released"))
        alone = torch.where(found.mask, layer.change, 0.0)
        fused = tailor(base.matrix(), Choices(0.1, solver="none")).change
        assert base.error(found.change) > base.error(alone)
        assert base.error(found.change) > base.error(fused)
