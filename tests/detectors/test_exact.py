"""The exact tests have uniform p-values on any unmarked image, an accurate tail, and valid corrections for many keys."""

import mpmath
import numpy as np
import pytest
from scipy import stats
from treering_detectors import (
    bonferroni,
    cosine_log10_pvalue,
    cosine_needed,
    cosine_test,
    cosine_tests,
    gaussian_test,
    gaussian_tests,
    holm,
    smallest_pvalue,
)

SIZE = 48
FREQUENCY = np.arange(1, SIZE + 1)
# Images are fixed, keys are random. None of these is drawn from the distribution that published p-values assume.
FEATURES = {
    "white": np.cos(7.0 * FREQUENCY**2),
    "coloured": np.cos(7.0 * FREQUENCY**2) / FREQUENCY**2,
    "heavy-tailed": np.tan(np.pi * (FREQUENCY / (SIZE + 1) - 0.5)) ** 3,
    "constant": np.ones(SIZE),
    "one bin only": np.eye(SIZE)[3],
}
TESTS = {"cosine": (cosine_test, cosine_tests), "gaussian": (gaussian_test, gaussian_tests)}


@pytest.fixture(params=TESTS.values(), ids=TESTS)
def test_pair(request):
    return request.param


def exact_log10_tail(cosine, d):
    """log10 of the density of C, (1 - u^2)^((d - 3) / 2) / B((d - 1) / 2, 1 / 2), integrated from the cosine to 1."""
    with mpmath.workdps(40):
        c, a = mpmath.mpf(float(cosine)), mpmath.mpf(d - 1) / 2
        top = (1 - c) * (1 + c)
        # With s = (1 - u^2) / (1 - c^2), in (0, 1), the huge factor leaves the integral; s = e^(-v / a) flattens it.
        integral = mpmath.quad(
            lambda v: mpmath.exp(-v) / mpmath.sqrt(1 - top * mpmath.exp(-v / a)), [0, 1, 4, 16, 64, mpmath.inf]
        )
        return float(mpmath.log10(top**a * integral / (2 * a * mpmath.beta(a, 0.5))))


@pytest.mark.parametrize("features", FEATURES.values(), ids=FEATURES)
@pytest.mark.parametrize("several", [cosine_tests, gaussian_tests])
def test_pvalues_of_random_keys_are_uniform_on_any_fixed_image(features, several):
    keys = np.random.default_rng(1).standard_normal((20_000, SIZE))
    pvalues = [e.pvalue for e in several(features, keys)]
    assert stats.kstest(pvalues, "uniform").pvalue > 1e-3


def test_pvalues_are_not_uniform_when_the_features_looked_at_the_key():
    keys = np.random.default_rng(1).standard_normal((20_000, SIZE))
    pvalues = [e.pvalue for e in cosine_tests(FEATURES["white"] + 0.05 * keys, keys)]
    assert stats.kstest(pvalues, "uniform").pvalue < 1e-6


def test_the_cosine_test_needs_only_the_direction_of_the_key():
    rng = np.random.default_rng(2)
    keys = rng.standard_normal((20_000, SIZE)) * rng.exponential(size=(20_000, 1))
    assert stats.kstest([e.pvalue for e in cosine_tests(FEATURES["coloured"], keys)], "uniform").pvalue > 1e-3
    assert stats.kstest([e.pvalue for e in gaussian_tests(FEATURES["coloured"], keys)], "uniform").pvalue < 1e-6


def test_power_grows_with_the_signal(test_pair):
    rng = np.random.default_rng(3)
    keys, noise = rng.standard_normal((2, 2_000, SIZE))
    power = [np.mean([e.pvalue <= 1e-3 for e in test_pair[1](noise + s * keys, keys)]) for s in (0, 0.3, 0.6, 1, 2)]
    assert power[0] < 0.005
    assert all(np.diff(power) > 0)
    assert power[-1] > 0.999


def test_whitening_by_the_image_alone_buys_power_and_keeps_the_size():
    rng = np.random.default_rng(4)
    colour = np.geomspace(0.05, 5, SIZE)
    keys, noise, others = rng.standard_normal((3, 5_000, SIZE))
    raw = keys + noise * colour

    def rate(features, against):
        return np.mean([e.pvalue <= 0.01 for e in cosine_tests(features, against)])

    assert rate(raw / colour, keys) > rate(raw, keys) + 0.05
    assert abs(rate(raw / colour, others) - 0.01) < 5 * np.sqrt(0.01 * 0.99 / 5_000)


def test_in_two_three_and_four_dimensions_the_distribution_is_the_geometry_of_the_sphere():
    c = np.linspace(-1, 1, 201)[:-1]
    theta = np.arccos(c)
    np.testing.assert_allclose(10 ** cosine_log10_pvalue(c, 2), theta / np.pi, rtol=1e-12)
    np.testing.assert_allclose(10 ** cosine_log10_pvalue(c, 3), (1 - c) / 2, rtol=1e-12)
    np.testing.assert_allclose(10 ** cosine_log10_pvalue(c, 4), (theta - np.sin(2 * theta) / 2) / np.pi, rtol=1e-8)


@pytest.mark.parametrize(
    ("d", "cosine"),
    [
        *[(5, 0.2), (64, 0.7), (64, 1 - 2**-53), (400, 0.999), (5000, 0.3), (5000, 0.51), (5000, 0.9)],
        *[(5000, 1 - 1e-12), (20_000, 0.3), (10**6, 0.05), (10**6, 0.5), (10**7, 0.02)],
    ],
)
def test_the_tail_matches_the_integral_of_the_density_however_deep(d, cosine):
    assert float(cosine_log10_pvalue(cosine, d)) == pytest.approx(exact_log10_tail(cosine, d), rel=1e-11)


def test_the_two_forms_of_the_tail_meet_without_a_step():
    cosine = np.linspace(0.48, 0.50, 2001)  # at d = 5000 p falls through 1e-290 here
    log10_p = cosine_log10_pvalue(cosine, 5000)
    assert log10_p[0] > -290 > log10_p[-1]
    # Without a step the second difference is the curve's own (about -2e-7), 1e5 times smaller than the first.
    assert np.abs(np.diff(log10_p, 2)).max() < 1e-6


def test_the_lower_half_mirrors_the_upper_half_and_only_one_itself_reaches_zero():
    c = np.linspace(0, 0.999, 50)
    upper, lower = 10 ** cosine_log10_pvalue(c, 9), 10 ** cosine_log10_pvalue(-c, 9)
    np.testing.assert_allclose(upper + lower, 1, rtol=1e-14)
    assert np.isneginf(cosine_log10_pvalue(1.0, 9))
    assert cosine_log10_pvalue(-1.0, 9) == 0
    assert np.isfinite(cosine_log10_pvalue(np.nextafter(1, 0), 10**6))
    assert cosine_log10_pvalue(np.zeros((2, 3)), 9).shape == (2, 3)


@pytest.mark.parametrize("d", [2, 3, 40, 5000])
@pytest.mark.parametrize("alpha", [1e-250, 1e-12, 1e-3, 0.5, 0.9])
def test_the_cosine_needed_for_alpha_gives_alpha(d, alpha):
    cosine = cosine_needed(d, alpha)
    if cosine < 1 - 1e-12:  # in a few dimensions such an alpha needs a cosine closer to 1 than floats go
        assert smallest_pvalue(d, cosine) == pytest.approx(alpha, rel=1e-3 if d < 4 else 1e-9)
    assert cosine_needed(d, alpha / 2) >= cosine


def test_gaussian_and_cosine_tests_agree_for_long_keys_only():
    rng = np.random.default_rng(5)

    def gap(d):
        keys = rng.standard_normal((60, d))
        a = rng.standard_normal((60, d)) + 3 * keys / np.sqrt(d)
        pairs = zip(cosine_tests(a, keys), gaussian_tests(a, keys), strict=True)
        return np.mean([abs(c.log10_pvalue / g.log10_pvalue - 1) for c, g in pairs])

    gaps = [gap(d) for d in (20, 300, 30_000)]
    assert gaps[0] > 3 * gaps[1] > 9 * gaps[2]
    assert gaps[2] < 0.02


def test_one_image_alone_and_in_a_batch_get_the_same_answer(test_pair):
    one, several = test_pair
    a, k = np.random.default_rng(6).standard_normal((2, 5, SIZE))
    assert several(a, k) == [one(x, y) for x, y in zip(a, k, strict=True)]
    assert several(a, k[0]) == [one(x, k[0]) for x in a]
    assert several(a[0], k) == [one(a[0], y) for y in k]


def test_the_scale_of_the_features_does_not_matter_however_extreme(test_pair):
    k = np.random.default_rng(7).standard_normal(SIZE)
    plain = test_pair[0](FEATURES["white"], k)
    for scale in (1e-300, 1e-10, 1e300):
        assert test_pair[0](FEATURES["white"] * scale, k).statistic == pytest.approx(plain.statistic, rel=1e-12)


def test_features_of_zero_are_no_evidence(test_pair):
    evidence = test_pair[0](np.zeros(SIZE), np.ones(SIZE))
    assert (evidence.statistic, evidence.pvalue, evidence.log10_pvalue) == (0, 1, 0)


def test_a_perfect_match_never_claims_that_chance_is_impossible(test_pair):
    k = np.random.default_rng(8).standard_normal(5000)
    evidence = test_pair[0](k, k)
    assert evidence.pvalue > 0
    assert -np.inf < evidence.log10_pvalue < -400


@pytest.mark.parametrize(
    ("features", "numbers", "message"),
    [
        (np.full(4, np.nan), np.ones(4), r"features .*\(4,\).*NaN"),
        (np.array([1, np.inf]), np.ones(2), "features .*infinity"),
        (np.ones(4), np.zeros(4), "numbers .*all zero"),
        (np.ones(4), np.ones(5), r"features has shape \(4,\) and numbers \(5,\)"),
        (np.ones((1, 4)), np.ones(4), r"features has shape \(1, 4\)"),
        (np.ones(4) * 1j, np.ones(4), "features .*complex"),
        (np.ones(1), np.ones(1), "at least 2"),
    ],
)
def test_input_that_cannot_be_judged_is_refused_with_its_name_and_shape(test_pair, features, numbers, message):
    with pytest.raises(ValueError, match=message):
        test_pair[0](features, numbers)


def test_a_batch_of_three_does_not_pair_with_a_batch_of_two(test_pair):
    with pytest.raises(ValueError, match="first axes"):
        test_pair[1](np.ones((3, 4)), np.ones((2, 4)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: cosine_log10_pvalue(1.01, 5), "cosine"),
        (lambda: cosine_log10_pvalue(np.nan, 5), "cosine"),
        (lambda: cosine_log10_pvalue(0.5, 1), "degrees_of_freedom"),
        (lambda: cosine_needed(5, 0), "alpha"),
        (lambda: cosine_needed(1, 0.1), "degrees_of_freedom"),
        (lambda: bonferroni(1.5, 2), "pvalue"),
        (lambda: bonferroni(0.5, 0), "hypotheses"),
        (lambda: holm([0.5, np.nan]), "pvalues"),
        (lambda: holm(0.5), "pvalues"),
    ],
)
def test_numbers_outside_their_range_are_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def holm_rejections(pvalues, alpha):
    """Holm's procedure as he wrote it: step down while p_(i) <= alpha / (m - i + 1)."""
    order = np.argsort(pvalues)
    rejected = np.zeros(len(pvalues), dtype=bool)
    for rank, i in enumerate(order):
        if pvalues[i] > alpha / (len(pvalues) - rank):
            break
        rejected[i] = True
    return rejected


def test_holm_adjusted_pvalues_reject_what_the_step_down_procedure_rejects():
    rng = np.random.default_rng(9)
    for _ in range(300):
        p = rng.uniform(size=rng.integers(1, 9)) ** rng.integers(1, 5)
        alpha = rng.uniform(0.01, 0.5)
        np.testing.assert_array_equal(holm(p) <= alpha, holm_rejections(p, alpha))


def test_holm_lies_between_the_raw_pvalue_and_bonferroni_and_follows_the_order_given():
    p = np.random.default_rng(10).uniform(size=20) ** 4
    adjusted = holm(p)
    assert np.all(adjusted >= p)
    assert np.all(adjusted <= [bonferroni(x, 20) for x in p])
    assert adjusted.min() == bonferroni(p.min(), 20)
    shuffle = np.random.default_rng(0).permutation(20)
    np.testing.assert_array_equal(holm(p[shuffle]), adjusted[shuffle])
    assert holm([]).size == 0


def test_searching_many_keys_errs_at_most_alpha_of_the_time_after_holm_and_far_more_without():
    rng = np.random.default_rng(11)
    searches, keys, alpha = 2_000, 10, 0.05
    images = np.repeat(rng.standard_normal((searches, SIZE)) ** 3, keys, axis=0)  # no image of them carries a key
    evidence = cosine_tests(images, rng.standard_normal((searches * keys, SIZE)))
    p = np.reshape([e.pvalue for e in evidence], (searches, keys))
    wrong = np.mean([holm(row).min() <= alpha for row in p])
    deviation = np.sqrt(alpha * (1 - alpha) / searches)
    assert wrong <= alpha + 4 * deviation
    assert wrong > alpha / 2  # with independent keys it is nearly alpha: not needlessly strict
    assert np.mean(p.min(axis=1) <= alpha) > 0.3
