"""The published baselines do what they say, and what they say is not true on real images."""

import mpmath
import numpy as np
import pytest
from scipy import stats
from treering_detectors import cosine_tests, nearest_key, nearest_keys, noncentral_chi_square_test

BINS = 150


def complex_normal(rng, *shape):
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)) / np.sqrt(2)


def pvalues(spectra, pattern, variance=None):
    return np.array([noncentral_chi_square_test(y, pattern, variance).pvalue for y in spectra])


def test_with_the_true_variance_of_white_noise_pvalues_are_uniform():
    rng = np.random.default_rng(1)
    pattern = complex_normal(rng, BINS)
    assert stats.kstest(pvalues(complex_normal(rng, 2_000, BINS), pattern, 1.0), "uniform").pvalue > 1e-3


@pytest.mark.parametrize(("variance", "low", "high"), [(None, 0, 0.008), (1.0, 0.2, 1)], ids=["estimated", "fixed"])
def test_on_coloured_noise_the_published_pvalue_is_wrong_where_the_exact_one_is_right(variance, low, high):
    rng = np.random.default_rng(2)
    colour = 1 / np.arange(1, BINS + 1)
    colour /= np.sqrt(np.mean(colour**2))  # the fixed variance is the true mean one: only the whiteness is wrong
    spectra, patterns = complex_normal(rng, 2, 2_000, BINS) * [[colour], [np.ones(BINS)]]
    published = [noncentral_chi_square_test(y, k, variance).pvalue for y, k in zip(spectra, patterns, strict=True)]
    a, k = (np.concatenate([z.real, z.imag], axis=1) for z in (spectra, patterns))
    assert stats.kstest([e.pvalue for e in cosine_tests(a, k)], "uniform").pvalue > 1e-3
    assert stats.kstest(published, "uniform").pvalue < 1e-4
    assert low < np.mean(np.array(published) <= 0.01) < high


def test_counting_conjugate_bins_twice_as_published_gives_too_many_false_positives():
    rng = np.random.default_rng(9)
    spectra, pattern = complex_normal(rng, 2_000, BINS), complex_normal(rng, BINS)
    twice = [np.concatenate([z, z.conj()], axis=-1) for z in (spectra, pattern)]
    assert np.mean(pvalues(*twice) <= 0.01) > 0.01 + 3 * np.sqrt(0.01 * 0.99 / 2_000)
    assert np.mean(pvalues(spectra, pattern) <= 0.01) < 0.008


def test_estimating_the_variance_from_the_same_bins_breaks_uniformity_even_on_white_noise():
    rng = np.random.default_rng(3)
    p = pvalues(complex_normal(rng, 3_000, BINS), complex_normal(rng, BINS))
    assert stats.kstest(p, "uniform").pvalue < 1e-4


def test_a_pattern_of_zeros_is_never_found_with_an_estimated_variance():
    rng = np.random.default_rng(4)
    marked = 1e-3 * complex_normal(rng, 100, BINS)
    p = pvalues(marked, np.zeros(BINS))
    assert p.min() > 0.49
    np.testing.assert_allclose(p, p[0])
    assert pvalues(marked, np.zeros(BINS), 1.0).max() < 1e-100


def test_the_tail_matches_the_poisson_mixture_however_deep():
    rng = np.random.default_rng(5)
    pattern, noise = complex_normal(rng, 2, 40)
    for s in (0.0, 0.5, 0.99, 1 - 1e-6):
        evidence = noncentral_chi_square_test(s * pattern + (1 - s) * noise, pattern, 0.05)
        half = mpmath.mpf(float(np.sum(np.abs(pattern) ** 2)) / 0.05)
        terms = (
            mpmath.exp(-half) * half**j / mpmath.factorial(j) * mpmath.gammainc(40 + j, 0, -evidence.statistic / 2)
            / mpmath.gamma(40 + j)
            for j in range(int(half) + 400)
        )  # fmt: skip
        reference = float(mpmath.log10(mpmath.fsum(terms)))
        assert evidence.log10_pvalue == pytest.approx(reference, rel=1e-9, abs=1e-3 * (reference < -119))


def test_evidence_keeps_its_order_where_the_tail_underflows():
    rng = np.random.default_rng(6)
    pattern, noise = 20 * complex_normal(rng, 2, BINS)
    answers = [noncentral_chi_square_test(s * pattern + (1 - s) * noise, pattern, 1.0) for s in np.linspace(0, 1, 400)]
    log10_p = np.array([e.log10_pvalue for e in answers])
    assert log10_p[-1] < -1000
    assert np.isfinite(log10_p).all()
    fell = np.diff([e.statistic for e in answers]) > 0
    assert np.all(np.diff(log10_p)[fell & (log10_p[1:] < -1e-3)] < 0)


@pytest.mark.parametrize("scale", [1e-3, 1e-8, 1e-12])
def test_a_nearly_empty_spectrum_is_no_evidence(scale):
    rng = np.random.default_rng(7)
    pattern, noise = complex_normal(rng, 2, BINS)
    evidence = noncentral_chi_square_test(scale * noise, pattern)
    assert 0.001 < evidence.pvalue < 0.999
    assert noncentral_chi_square_test(0 * noise, pattern).pvalue == 1


def test_two_real_numbers_are_counted_per_bin():
    evidence = noncentral_chi_square_test([1 + 1j, 2], [1, 2j])
    assert evidence.degrees_of_freedom == 4
    assert evidence.statistic == pytest.approx(-(1 + 8) / (((2 + 4) / 2) / 2))


@pytest.mark.parametrize(
    ("coefficients", "pattern", "variance", "message"),
    [
        (np.ones(3), np.ones(4), None, r"coefficients has shape \(3,\) and pattern \(4,\)"),
        (np.ones((2, 3)), np.ones(3), None, r"coefficients has shape \(2, 3\)"),
        (np.array([]), np.array([]), None, "n >= 1"),
        (np.array([np.nan, 1]), np.ones(2), None, "coefficients .*NaN"),
        (np.ones(2), np.ones(2), 0.0, "variance"),
        (np.ones(2), np.ones(2), np.nan, "variance"),
    ],
)
def test_input_that_cannot_be_judged_is_refused_with_its_name_and_shape(coefficients, pattern, variance, message):
    with pytest.raises(ValueError, match=message):
        noncentral_chi_square_test(coefficients, pattern, variance)


def test_the_nearest_key_is_the_one_written_and_its_distance_the_mean_of_absolute_differences():
    rng = np.random.default_rng(8)
    patterns, noise = complex_normal(rng, 12, BINS), 0.3 * complex_normal(rng, 12, BINS)
    shuffle = rng.permutation(12)
    indices, distances = nearest_keys(patterns[shuffle] + noise, patterns)
    np.testing.assert_array_equal(indices, shuffle)
    assert distances.shape == (12, 12)
    for row, coefficients in enumerate(patterns[shuffle] + noise):
        index, alone = nearest_key(coefficients, patterns)
        assert index == indices[row]
        np.testing.assert_array_equal(alone, distances[row])
        np.testing.assert_allclose(alone, [np.mean(np.abs(coefficients - k)) for k in patterns])


def test_the_nearest_key_is_judged_by_absolute_and_not_by_squared_differences():
    index, distances = nearest_key([0, 0, 0, 0], [[1, 1, 1, 1], [3, 0, 0, 0]])
    assert index == 1  # squared differences would say 0
    np.testing.assert_array_equal(distances, [1, 0.75])


def test_the_nearest_key_of_patterns_on_other_bins_is_refused():
    with pytest.raises(ValueError, match=r"patterns \(2, 4\)"):
        nearest_key(np.ones(3), np.ones((2, 4)))
    with pytest.raises(ValueError, match=r"patterns \(0, 3\)"):
        nearest_key(np.ones(3), np.ones((0, 3)))
