"""Conformal p-values are valid at any size and for any score, and never below 1 / (n + 1)."""

import numpy as np
import pytest
from treering_detectors import clopper_pearson, conformal_pvalue, threshold_at, worst_stratum


@pytest.mark.parametrize("score", [lambda x: x, lambda x: np.round(3 * x), lambda x: np.sign(x)])
@pytest.mark.parametrize("size", [3, 19, 200])
def test_the_rate_of_small_pvalues_is_at_most_alpha_whatever_the_score(score, size):
    rng = np.random.default_rng(size)
    trials = 3_000
    draws = score(rng.standard_cauchy((trials, size + 1)))
    pvalues = np.array([conformal_pvalue(row[0], row[1:]) for row in draws])
    for alpha in (0.05, 0.25, 0.5):
        low, _ = clopper_pearson(int((pvalues <= alpha).sum()), trials, 0.999)
        assert low <= alpha
    assert pvalues.min() >= 1 / (size + 1)


def test_without_ties_every_value_is_equally_likely():
    rng = np.random.default_rng(0)
    pvalues = [conformal_pvalue(row[0], row[1:]) for row in rng.standard_normal((20_000, 10))]
    counts = np.bincount(np.rint(10 * np.array(pvalues)).astype(int), minlength=11)
    assert counts[0] == 0
    assert np.abs(counts[1:] / 2_000 - 1).max() < 0.1


def test_a_score_beyond_every_unmarked_score_gets_one_over_n_plus_one_and_not_less():
    assert conformal_pvalue(1e300, np.arange(99)) == 0.01
    assert conformal_pvalue(np.inf, np.arange(99)) == 0.01
    assert conformal_pvalue(-1, np.arange(99)) == 1
    assert conformal_pvalue(98, np.arange(99)) == 0.02  # a tie counts against detection


def test_the_worst_stratum_decides_and_stays_valid_for_each_of_them():
    rng = np.random.default_rng(1)
    spreads = {"clean": 1.0, "jpeg": 3.0}
    for true in spreads:
        pvalues = []
        for _ in range(2_000):
            strata = {name: spread * rng.standard_normal(49) for name, spread in spreads.items()}
            pvalues.append(worst_stratum(spreads[true] * rng.standard_normal(), strata)[0])
        low, _ = clopper_pearson(int((np.array(pvalues) <= 0.1).sum()), 2_000, 0.999)
        assert low <= 0.1
    # A threshold of the other stratum alone would not do: this is what strata are for.
    wrong = [conformal_pvalue(3 * rng.standard_normal(), rng.standard_normal(49)) for _ in range(2_000)]
    assert np.mean(np.array(wrong) <= 0.1) > 0.2
    assert worst_stratum(2.5, {"a": [1.0, 2.0], "b": [3.0, 1.0]}) == (2 / 3, "b")


@pytest.mark.parametrize(("count", "target"), [(99, 0.1), (999, 0.01), (50, 0.25)])
def test_a_threshold_detects_just_what_the_pvalue_does_and_its_interval_holds_the_true_rate(count, target):
    rng = np.random.default_rng(count)
    inside = []
    for _ in range(500):
        unmarked = rng.uniform(size=count)
        found = threshold_at(unmarked, target)
        for score in (found.value, np.nextafter(found.value, 2), rng.uniform()):
            assert (score > found.value) == (conformal_pvalue(score, unmarked) <= target)
        inside.append(found.low <= 1 - found.value <= found.high)  # a uniform score exceeds t with probability 1 - t
    low, high = clopper_pearson(sum(inside), 500, 0.999)
    assert low <= 0.95 <= high


def test_a_target_that_the_unmarked_images_cannot_reach_detects_nothing():
    found = threshold_at(np.arange(50), 0.01)
    assert found.value == np.inf and (found.low, found.high) == (0, 0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: conformal_pvalue(np.nan, [1.0]), "score is NaN"),
        (lambda: conformal_pvalue(1.0, []), "at least one"),
        (lambda: conformal_pvalue(1.0, [np.nan]), "NaN"),
        (lambda: worst_stratum(1.0, {}), "strata is empty"),
        (lambda: threshold_at([1.0], 0.0), "target is 0"),
    ],
)
def test_what_cannot_be_judged_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
