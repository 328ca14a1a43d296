"""The exact test of signs equals counting where that is possible, and known distributions where it is not."""

from __future__ import annotations

from itertools import pairwise, product

import mpmath
import numpy as np
import pytest
from scipy import stats
from treering_detectors import hoeffding_log10_pvalue, sign_tests, sign_weights, signs_log10_pvalue, vote_test
from treering_detectors.signs import _votes_log10_pvalue

EVERY = np.array(list(product((-1, 1), repeat=12)))  # all keys of twelve signs


@pytest.mark.parametrize("seed", range(5))
def test_the_distribution_is_that_of_counting_all_keys(seed):
    weights = np.random.default_rng(seed).integers(0, 7, 12)
    totals = EVERY @ weights
    for total in range(-weights.sum() - 1, weights.sum() + 1):
        expected = np.log10(np.mean(totals >= total))
        assert signs_log10_pvalue(weights, total) == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert signs_log10_pvalue(weights, int(weights.sum()) + 1) == -np.inf


@pytest.mark.parametrize("seed", range(5))
def test_the_distribution_of_votes_is_that_of_counting_all_keys(seed):
    rng = np.random.default_rng(seed)
    weights, groups = rng.integers(0, 7, 12), rng.permutation(np.arange(12) % 5)
    votes = np.stack([EVERY[:, groups == g] @ weights[groups == g] for g in range(5)])
    totals = np.abs(votes).sum(axis=0)
    for total in range(int(totals.max()) + 1):
        expected = np.log10(np.mean(totals >= total))
        assert _votes_log10_pvalue(weights, groups, total) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("agreeing", [500, 512, 540, 700, 1000, 1023, 1024])
def test_equal_weights_give_the_binomial_tail_however_deep(agreeing):
    tail = mpmath.mpf(sum(int(mpmath.binomial(1024, k)) for k in range(agreeing, 1025))) / mpmath.mpf(2) ** 1024
    found = signs_log10_pvalue(np.full(1024, 3), 3 * (2 * agreeing - 1024))
    assert found == pytest.approx(float(mpmath.log10(tail)), rel=1e-9)


@pytest.mark.parametrize("distribution", ["normal", "heavy", "equal", "one giant"])
def test_p_is_uniform_over_keys_or_above_whatever_the_features(distribution):
    rng = np.random.default_rng(3)
    features = {
        "normal": rng.standard_normal(200),
        "heavy": rng.standard_cauchy(200),
        "equal": np.ones(200),
        "one giant": np.append(rng.standard_normal(199), 1e6),
    }[distribution]
    pvalues = np.array([e.pvalue for s in rng.choice([-1, 1], (400, 200)) for e in sign_tests(features, s)])
    # Where few weights are left, as where one value dwarfs the others, the statistic takes few values: p is larger than
    # uniform between its steps, and never smaller.
    for alpha in (0.5, 0.1, 0.01):
        assert stats.binomtest(int((pvalues <= alpha).sum()), 400, alpha, "greater").pvalue > 0.01
    if distribution == "normal":
        assert stats.kstest(pvalues, "uniform").pvalue > 0.01


def test_p_of_votes_is_never_below_uniform():
    rng = np.random.default_rng(4)
    features, groups = rng.standard_normal(96), np.arange(96) % 12
    pvalues = np.array([vote_test(features, s, groups)[0].pvalue for s in rng.choice([-1, 1], (150, 96))])
    assert stats.kstest(pvalues, "uniform").pvalue > 0.01


def test_votes_ask_less_than_the_correction_for_every_message():
    rng = np.random.default_rng(5)
    groups, signs = np.arange(240) % 12, rng.choice([-1, 1], 240)
    for signal in (0.0, 0.3, 0.6, 1.0):
        features = signal * signs * np.array([1, -1])[groups % 2] + rng.standard_normal(240)
        evidence, message = vote_test(features, signs, groups)
        (known,) = sign_tests(features, signs * message[groups])
        assert known.statistic == pytest.approx(evidence.statistic)
        assert known.log10_pvalue <= evidence.log10_pvalue <= known.log10_pvalue + 12 * np.log10(2) + 1e-9


def test_the_likeliest_message_is_the_one_that_was_written():
    rng = np.random.default_rng(6)
    groups, signs, message = np.arange(640) % 64, rng.choice([-1, 1], 640), rng.choice([-1, 1], 64)
    evidence, found = vote_test(signs * message[groups] * rng.uniform(1, 2, 640), signs, groups)
    assert found.tolist() == message.tolist()
    assert evidence.statistic == 1
    # All places of a group agree: 2^-9 for each of 64 groups.
    assert evidence.log10_pvalue == pytest.approx(-64 * 9 * np.log10(2), rel=1e-9)


def test_hoeffdings_bound_is_above_the_exact_p():
    rng = np.random.default_rng(7)
    weights = sign_weights(rng.standard_normal((1, 300)))[0]
    for share in (0.0, 0.2, 0.5, 0.9, 1.0):
        total = int(share * weights.sum())
        assert hoeffding_log10_pvalue(total, weights) >= signs_log10_pvalue(weights, total)
    assert hoeffding_log10_pvalue(-5, weights) == 0
    assert hoeffding_log10_pvalue([0.0, 0.0], np.zeros((2, 3))).tolist() == [0, 0]


def test_evidence_grows_with_the_signal_and_does_not_see_the_scale():
    rng = np.random.default_rng(8)
    signs, noise = rng.choice([-1, 1], 1000), rng.standard_normal(1000)
    found = sign_tests(np.stack([s * signs + noise for s in (0, 0.2, 0.5, 1, 2, 1000)]), signs)
    assert all(later.log10_pvalue < earlier.log10_pvalue for earlier, later in pairwise(found))
    assert found[-1].log10_pvalue == pytest.approx(-1000 * np.log10(2), rel=1e-9)
    for scale in (1e-200, 1e200):
        assert sign_tests(scale * (signs + noise), signs)[0] == found[3]


def test_an_image_without_features_has_no_evidence():
    (evidence,) = sign_tests(np.zeros(5), np.ones(5))
    assert (evidence.statistic, evidence.pvalue) == (0, 1)
    assert vote_test(np.zeros(4), np.ones(4), [0, 0, 1, 1])[0].pvalue == 1


@pytest.mark.parametrize(
    ("features", "signs", "message"),
    [
        (np.ones(3), np.ones(4), "one sign for each"),
        (np.ones((2, 3)), np.ones((3, 3)), "one sign for each"),
        ([1.0, np.nan], [1, 1], "NaN"),
        ([1.0, 1.0], [1, 0], r"pass \+1 and -1 only"),
        ([1j, 1.0], [1, 1], "real"),
        (np.ones((1, 2, 2)), np.ones(2), "shape"),
    ],
)
def test_input_that_cannot_be_judged_is_refused(features, signs, message):
    with pytest.raises(ValueError, match=message):
        sign_tests(features, signs)


def test_votes_of_other_shapes_are_refused():
    with pytest.raises(ValueError, match="one shape"):
        vote_test(np.ones(4), np.ones(4), np.zeros(3, dtype=int))
