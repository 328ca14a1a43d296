"""The Monte-Carlo check is right whatever the image, cannot resolve p below 1 / (n + 1), and is able to disagree."""

import tracemalloc

import numpy as np
import pytest
from scipy import stats
from treering_detectors import DecoyCheck, clopper_pearson, cosine_tests, count_reaching, decoy_checks
from treering_detectors.decoys import _BLOCK_NUMBERS, AGREES, CONFIDENCE, DISAGREES, UNSEEN
from treering_detectors.evidence import Evidence

SIZE = 48
COLOURED = np.cos(7.0 * np.arange(1, SIZE + 1) ** 2) / np.arange(1, SIZE + 1) ** 2


def test_decoys_agree_with_the_exact_pvalue_over_its_whole_range():
    rng = np.random.default_rng(0)
    numbers = rng.standard_normal((200, SIZE)) + 1.5 * rng.uniform(-1, 1, (200, 1)) * COLOURED / np.abs(COLOURED).max()
    features = np.tile(COLOURED, (200, 1))
    evidence = cosine_tests(features, numbers)
    checks = decoy_checks(features, evidence, 20_000)
    assert min(e.pvalue for e in evidence) < 1e-3 and max(e.pvalue for e in evidence) > 0.9
    # All share their decoys, so they stand or fall together; one in a thousand may fall by chance.
    assert sum(c.agreement == DISAGREES for c in checks) <= 1
    assert max(abs(c.pvalue - e.pvalue) for c, e in zip(checks, evidence, strict=True)) < 0.02


def test_the_monte_carlo_pvalue_is_valid_by_itself():
    rng = np.random.default_rng(1)
    keys = rng.standard_normal((2_000, SIZE))
    statistics = [e.statistic for e in cosine_tests(COLOURED, keys)]
    # With decoys of its own each p is uniform on 1/(n + 1), ..., 1: the key is one of n + 1 that nothing tells apart.
    pvalues = [(1 + count_reaching(COLOURED[None], [s], 99, seed)[0]) / 100 for seed, s in enumerate(statistics)]
    counts = np.bincount(np.rint(np.array(pvalues) * 100).astype(int) - 1, minlength=100)
    assert counts.size == 100
    assert stats.chisquare(counts.reshape(10, 10).sum(axis=1)).pvalue > 1e-3


def test_a_pvalue_below_what_decoys_can_see_is_said_to_be_so():
    key = np.random.default_rng(2).standard_normal(SIZE)
    (check,) = decoy_checks(key[None], cosine_tests(key, key), 1_000)
    assert (check.reached, check.agreement) == (0, UNSEEN)
    assert check.pvalue == 1 / 1001
    assert check.interval == clopper_pearson(0, 1_000, CONFIDENCE)


@pytest.mark.parametrize(
    ("reached", "log10", "agreement"),
    [(0, -1, DISAGREES), (100, -1, AGREES), (100, -6, DISAGREES), (500, -1, DISAGREES), (1000, 0, AGREES)],
)
def test_a_pvalue_outside_the_interval_disagrees(reached, log10, agreement):
    assert DecoyCheck(1_000, reached, log10).agreement == agreement


def test_a_key_that_is_not_drawn_from_the_normal_distribution_can_be_caught():
    # A statistic that is no cosine (here too large by half) has another tail than the exact test thinks.
    features = np.tile(COLOURED, (20, 1))
    honest = cosine_tests(features, np.random.default_rng(3).standard_normal((20, SIZE)))
    wrong = [Evidence(e.detector, 1.5 * e.statistic, e.pvalue, e.log10_pvalue, SIZE) for e in honest]
    checks = decoy_checks(features, wrong, 20_000)
    assert sum(c.agreement == DISAGREES for c in checks) > 10


def test_the_same_seed_counts_the_same_and_the_batch_does_not_matter():
    features = np.random.default_rng(4).standard_normal((3, SIZE))
    together = count_reaching(features, [0.1, 0.2, -0.1], 5_000)
    alone = [count_reaching(f[None], [s], 5_000)[0] for f, s in zip(features, [0.1, 0.2, -0.1], strict=True)]
    np.testing.assert_array_equal(together, alone)
    assert (count_reaching(features, [0.1, 0.2, -0.1], 5_000, seed=1) != together).any()


def test_features_of_zero_are_reached_by_every_decoy():
    (check,) = decoy_checks(np.zeros((1, SIZE)), cosine_tests(np.zeros(SIZE), np.ones(SIZE)), 100)
    assert (check.reached, check.pvalue, check.agreement) == (100, 1, AGREES)


def test_memory_does_not_grow_with_the_decoys():
    features = np.ones((1, 1024))
    peaks = []
    for decoys in (2_000, 8_000):
        tracemalloc.start()
        count_reaching(features, [0.5], decoys)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0] < 5 * 8 * _BLOCK_NUMBERS


@pytest.mark.parametrize(
    ("features", "statistics", "decoys", "message"),
    [
        (np.ones((2, 4)), [0.1], 10, r"features has shape \(2, 4\) and statistics \(1,\)"),
        (np.ones((1, 4)), [0.1], 0, "decoys is 0"),
        (np.full((1, 4), np.nan), [0.1], 10, "NaN"),
    ],
)
def test_what_does_not_fit_is_refused(features, statistics, decoys, message):
    with pytest.raises(ValueError, match=message):
        count_reaching(features, statistics, decoys)
