"""Intervals, tests and verdicts: reference values, scipy, laws, and how often they are wrong."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, binom, binomtest

from mllmtool.metrics.statistics import (
    Array,
    Interval,
    bootstrap,
    bounds,
    cluster_sums,
    clustered_se,
    detectable_difference,
    holm,
    interval,
    mcnemar,
    resampled,
    sign_flip,
    verdict,
    wilson,
)

REFERENCE = json.loads((Path(__file__).parents[1] / "cases" / "metrics/reference.json").read_text())


def seed_of(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1


def singles(number: int) -> list[str]:
    return [f"image {index}" for index in range(number)]


@pytest.mark.parametrize("case", REFERENCE["wilson95"])
def test_wilson_of_the_reference_file(case: dict[str, float]) -> None:
    assert wilson(case["k"], int(case["n"])) == pytest.approx((case["lo"], case["hi"]), abs=1e-9)


@given(st.integers(1, 2000), st.data())
def test_wilson_as_scipy(total: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, total))
    theirs = binomtest(hits, total).proportion_ci(method="wilson")
    assert wilson(hits, total) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


@pytest.mark.parametrize("case", REFERENCE["mcnemar"])
def test_mcnemar_of_the_reference_file(case: dict[str, float]) -> None:
    ours = mcnemar(int(case["b"]), int(case["c"]))
    assert ours == pytest.approx((case["p"], case["midp"]), abs=1e-9)


@given(st.integers(0, 300), st.integers(0, 300))
def test_mcnemar_as_scipy(lost: int, gained: int) -> None:
    pairs, fewer = lost + gained, min(lost, gained)
    exact = min(1.0, 2 * binom.cdf(fewer, pairs, 0.5))
    mid = 2 * binom.cdf(fewer, pairs, 0.5) - binom.pmf(fewer, pairs, 0.5)
    assert mcnemar(lost, gained) == pytest.approx((exact, mid), rel=1e-9)
    assert mcnemar(lost, gained) == mcnemar(gained, lost)


def test_holm_by_hand() -> None:
    # sorted .01 .02 .03 .5: 4 * .01 = .04, 3 * .02 = .06, 2 * .03 = .06, 1 * .5
    assert holm([0.5, 0.01, 0.03, 0.02]) == pytest.approx([0.5, 0.04, 0.06, 0.06])


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_step_by_step(p_values: list[float]) -> None:
    """Reject while p(k) <= alpha / (m - k): rejected at alpha exactly if adjusted <= alpha."""
    adjusted = holm(p_values)
    for alpha in (0.01, 0.05, 0.2, 0.7):
        rejected: set[float] = set()
        for rank, p_value in enumerate(sorted(p_values)):
            if p_value * (len(p_values) - rank) > alpha:
                break
            rejected.add(p_value)
        assert [p <= alpha for p in adjusted] == [p in rejected for p in p_values]


def test_detectable_difference_by_hand() -> None:
    # d = 10 %, n = 500: (1.959964 + 0.841621) * sqrt(.1 / 500)
    changed = np.repeat([1.0, -1.0, 0.0], [20, 30, 450])
    assert detectable_difference(changed) == pytest.approx(2.801585 * (0.1 / 500) ** 0.5, rel=1e-6)
    assert detectable_difference(np.zeros(500)) is None


@pytest.mark.parametrize(("lost", "total"), [(0, 60), (1, 60), (7, 120), (30, 150)])
def test_losses_alone_have_the_exact_bound_of_clopper_and_pearson(lost: int, total: int) -> None:
    differences = np.zeros((total, 1))
    differences[:lost] = -1
    drawn = bootstrap(differences, singles(total), "unseen", seed_of, 20000)
    exact = binomtest(lost, total, alternative="less").proportion_ci(0.95, method="exact").high
    assert bounds(drawn)[0].lower == pytest.approx(-exact, rel=0.04)
    least = float(beta.ppf(0.05, lost, total - lost + 1)) if lost else 0.0
    assert bounds(drawn)[0].upper >= -least  # the other end is more careful still


def test_bootstrap_has_the_clustered_standard_error() -> None:
    """Miller 2024, equation 4: over clusters, the squares of the sums of residuals, over n^2."""
    rng = np.random.default_rng(3)
    clusters = [f"image {n}" for n in rng.integers(0, 150, 600)]
    common = dict(zip(sorted(set(clusters)), rng.choice([-1, 0, 0, 1], 150), strict=False))
    differences = np.array([[float(common.get(name, 0))] for name in clusters])
    differences[::3] = 0
    residuals = differences[:, 0] - differences.mean()
    sums = [residuals[[c == name for c in clusters]].sum() for name in set(clusters)]
    theirs = np.sqrt(np.square(sums).sum()) / len(clusters)
    drawn = bootstrap(differences, clusters, "unseen", seed_of, 4000)
    assert drawn.low.std() == pytest.approx(theirs, rel=0.1)
    assert drawn.high.mean() - drawn.low.mean() == pytest.approx(2 / 151, rel=0.15)
    alone = bootstrap(differences, singles(600), "unseen", seed_of, 4000)
    assert alone.low.std() < 0.8 * theirs


@settings(max_examples=20)
@given(st.lists(st.sampled_from([-1.0, 0.0, 1.0]), min_size=2, max_size=30), st.integers(0, 9))
def test_bootstrap_laws(values: list[float], turn: int) -> None:
    """Items may be permuted; the other sign mirrors; the interval holds the mean."""
    names, differences = singles(len(values)), np.array(values)[:, None]
    both: Array = np.hstack([differences, -differences])
    drawn = bootstrap(both, names, "unseen", seed_of, 300)
    order = np.roll(np.arange(len(values)), turn)
    again = bootstrap(both[order], [names[n] for n in order], "unseen", seed_of, 300)
    np.testing.assert_allclose(drawn.low, again.low, atol=1e-12)
    np.testing.assert_allclose(drawn.low[:, 0], -drawn.high[:, 1], atol=1e-12)
    lower, upper = interval(drawn)[0]
    assert lower <= differences.mean() <= upper
    assert lower <= bounds(drawn)[0].lower <= bounds(drawn)[0].upper <= upper


def test_tasks_on_the_same_images_are_resampled_together() -> None:
    differences = np.array([[-1.0], [0.0], [1.0], [0.0]])
    first = bootstrap(differences, singles(4), "one", seed_of, 500)
    second = bootstrap(differences, singles(4), "two", seed_of, 500)
    other = bootstrap(differences, [f"x{n}" for n in range(4)], "two", seed_of, 500)
    middle = [(drawn.low + drawn.high)[:, 0] for drawn in (first, second, other)]
    assert np.corrcoef(middle[0], middle[1])[0, 1] > 0.9
    assert abs(np.corrcoef(middle[0], middle[2])[0, 1]) < 0.2


def test_verdicts_by_hand() -> None:
    assert verdict(Interval(-0.019, 0.01), 0.02) == "kept"
    assert verdict(Interval(-0.05, -0.021), 0.02) == "forgot"
    assert verdict(Interval(-0.05, 0.01), 0.02) == "undecided"
    assert verdict(Interval(-0.02, 0.01), 0.02) == "undecided"


@given(st.floats(-1, 1), st.floats(0, 1), st.floats(0.001, 0.5), st.floats(0.001, 0.5))
def test_a_wider_margin_only_forgives(
    lower: float, width: float, margin: float, more: float
) -> None:
    order = {"forgot": 0, "undecided": 1, "kept": 2}
    bound = Interval(lower, lower + width)
    assert order[verdict(bound, margin)] <= order[verdict(bound, margin + more)]


@pytest.mark.parametrize(("total", "lost", "gained"), [(150, 0.03, 0.01), (400, 0.12, 0.10)])
def test_verdicts_at_the_margin_are_wrong_as_rarely_as_they_promise(
    total: int, lost: float, gained: float
) -> None:
    """The true delta is -2 pp, the margin: kept and forgot must each come in at most 5 %."""
    rng = np.random.default_rng(5)
    chances = [lost, gained, 1 - lost - gained]
    differences = rng.choice([-1.0, 1.0, 0.0], p=chances, size=(total, 1500))
    drawn = bootstrap(differences, singles(total), "unseen", seed_of, 1000)
    verdicts = [verdict(bound, 0.02) for bound in bounds(drawn)]
    assert verdicts.count("kept") / len(verdicts) <= 0.06
    assert verdicts.count("forgot") / len(verdicts) <= 0.06


def test_verdicts_find_what_is_there() -> None:
    rng = np.random.default_rng(6)
    lossy = rng.choice([-1.0, 1.0, 0.0], p=[0.12, 0.02, 0.86], size=(400, 300))  # -10 pp
    steady = rng.choice([-1.0, 1.0, 0.0], p=[0.01, 0.015, 0.975], size=(400, 300))  # +0.5 pp
    drawn = bootstrap(np.hstack([lossy, steady]), singles(400), "unseen", seed_of, 1000)
    verdicts = [verdict(bound, 0.02) for bound in bounds(drawn)]
    assert verdicts[:300].count("forgot") > 285
    assert verdicts[300:].count("kept") > 230
    assert "kept" not in verdicts[:300]
    assert "forgot" not in verdicts[300:]


def test_pairing_has_more_power() -> None:
    """500 items, -4 pp, correlated answers: the paired test finds what the unpaired z misses."""
    rng, paired, unpaired = np.random.default_rng(7), 0, 0
    for _ in range(300):
        before = rng.random(500) < 0.7
        after = before ^ (rng.random(500) < np.where(before, 0.10, 0.10))
        p_value = mcnemar(int((before & ~after).sum()), int((~before & after).sum())).mid
        paired += p_value < 0.05
        spread = np.sqrt((before.var() + after.var()) / 500)
        unpaired += abs(after.mean() - before.mean()) / spread > 1.96
    assert paired > unpaired + 60


def test_paired_tests_are_wrong_as_rarely_as_they_promise() -> None:
    """Nothing changed but by chance, 500 items: p below 5 % in at most 6 % of the runs."""
    rng, midp, flipped, runs = np.random.default_rng(8), 0, 0, 1000
    for seed in range(runs):
        known = rng.random(500) < 0.7
        flips = rng.random((2, 500)) < 0.05
        before, after = known ^ flips[0], known ^ flips[1]
        lost, gained = int((before & ~after).sum()), int((~before & after).sum())
        midp += mcnemar(lost, gained).mid < 0.05
        soft = rng.normal(size=60)  # differences of soft scores
        flipped += sign_flip(soft, seed, 200) < 0.05
    assert midp / runs <= 0.06
    assert flipped / runs <= 0.06


def test_sign_flips_by_hand() -> None:
    """Of the eight signs of 1, 2 and 3 only all alike make 6: p is 2 / 8."""
    assert sign_flip(np.array([1.0, 2.0, 3.0]), 0, 40000) == pytest.approx(0.25, abs=0.01)
    assert sign_flip(np.zeros(4), 0, 100) == 1.0
    assert sign_flip(np.array([1.0, -1.0, 0.0]), 0, 100) == 1.0
    assert sign_flip(np.full(40, 0.5), 0, 1000) == pytest.approx(1 / 1001)


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=20), st.integers(0, 9))
def test_sign_flips_know_no_direction(values: list[float], seed: int) -> None:
    sums = np.array(values)
    assert sign_flip(sums, seed, 64) == sign_flip(-sums, seed, 64)


def test_clustered_standard_error_by_hand() -> None:
    """Scores 1 1 0 0 about their mean: two clusters of sums 1 and -1, or four of a half."""
    scores = np.array([1.0, 1.0, 0.0, 0.0])
    assert clustered_se(scores, ["a", "a", "b", "b"]) == pytest.approx(2**0.5 / 4)
    assert clustered_se(scores, singles(4)) == pytest.approx(1 / 4)
    assert clustered_se(scores, ["a", "b", "a", "b"]) == 0.0


def test_sums_of_clusters_are_in_the_order_of_their_names() -> None:
    sums = cluster_sums(np.array([[1.0], [2.0], [4.0]]), ["b", "a", "b"])
    assert sums.tolist() == [[2.0], [5.0]]


def test_values_that_are_no_means_are_resampled_as_means_are() -> None:
    rows = np.array([[1.0], [0.0], [1.0], [1.0]])
    top, bottom = resampled(rows, singles(4), seed_of, 4000)
    assert (top[:, 0] / bottom).mean() == pytest.approx(0.75, abs=0.01)
    again = resampled(rows[::-1], singles(4)[::-1], seed_of, 4000)
    np.testing.assert_allclose(again[0], top)
