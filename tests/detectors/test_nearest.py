"""The search finds the rows that a full sort finds, in bounded memory, and rounding costs only power."""

import tracemalloc

import numpy as np
import pytest
from scipy import stats
from treering_detectors import (
    bounded_cosine_tests,
    clopper_pearson,
    cosine_tests,
    direction_drift,
    holm,
    holm_leading,
    nearest_rows,
)
from treering_detectors.nearest import BLOCK_NUMBERS, _widen

TYPES = (np.float16, np.float32, np.float64)


def lengths(numbers):
    return np.linalg.norm(numbers.astype(np.float64), axis=1)


def full_sort(features, numbers, keep):
    k = numbers.astype(np.float64)
    cosines = (features @ k.T) / np.linalg.norm(k, axis=1)
    return np.sort(np.argsort(-cosines, axis=1, kind="stable")[:, :keep], axis=1)


@pytest.mark.parametrize("threads", [1, 2, 3, 100])
@pytest.mark.parametrize("kind", TYPES)
def test_the_pass_keeps_the_rows_that_a_full_sort_finds(kind, threads):
    rng = np.random.default_rng(1)
    numbers, features = rng.standard_normal((20_000, 60)).astype(kind), rng.standard_normal((5, 60))
    assert len(numbers) * 60 > 2 * BLOCK_NUMBERS  # several blocks, the last one short
    wanted = full_sort(features, numbers, 5)
    found = nearest_rows(features, numbers, lengths(numbers), 20, threads)
    assert found.shape == (5, 20)
    assert all(set(a) <= set(b) for a, b in zip(wanted, found, strict=True))
    np.testing.assert_array_equal(np.diff(found, axis=1) > 0, True)


def test_damaged_rows_are_found_by_whichever_thread_has_them():
    numbers = np.random.default_rng(6).standard_normal((30_000, 60))
    size, features = lengths(numbers), np.ones((1, 60))
    for row in (0, len(numbers) - 1):
        damaged = numbers.copy()
        damaged[row] = np.nan
        with pytest.raises(ValueError, match="give a cosine beyond 1 or NaN"):
            nearest_rows(features, damaged, size, 3, threads=3)


def test_every_half_precision_number_is_widened_exactly():
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    finite = every[np.isfinite(every)][None]
    wide = _widen(finite, np.empty(finite.shape, np.int32))
    assert wide.dtype == np.float32
    np.testing.assert_array_equal(wide.astype(np.float64) * 2.0**112, finite.astype(np.float64))
    np.testing.assert_array_equal(np.signbit(wide), np.signbit(finite))


def test_fewer_rows_than_asked_for_are_all_returned_and_equals_go_by_their_row():
    numbers = np.tile(np.random.default_rng(2).standard_normal(8), (3000, 1))
    features = np.stack([np.ones(8), np.zeros(8), -np.ones(8)])
    np.testing.assert_array_equal(nearest_rows(features, numbers, lengths(numbers), 4), [[0, 1, 2, 3]] * 3)
    np.testing.assert_array_equal(nearest_rows(features, numbers[:2], lengths(numbers[:2]), 4), [[0, 1]] * 3)
    assert nearest_rows(features[:0], numbers, lengths(numbers), 4).shape == (0, 4)


@pytest.mark.parametrize("kind", TYPES)
def test_the_scale_of_features_and_keys_does_not_matter(kind):
    rng = np.random.default_rng(3)
    numbers = rng.standard_normal((500, 30)).astype(kind)
    scaled = (numbers.astype(np.float64) * rng.choice([0.5, 1, 2, 8], size=(500, 1))).astype(kind)
    features = rng.standard_normal((4, 30))
    plain = nearest_rows(features, numbers, lengths(numbers), 3)
    np.testing.assert_array_equal(nearest_rows(features * 1e200, scaled, lengths(scaled), 3), plain)
    np.testing.assert_array_equal(nearest_rows(features * 1e-200, scaled, lengths(scaled), 3), plain)


def test_memory_is_that_of_a_block_however_many_keys_there_are():
    rng = np.random.default_rng(4)

    def peak(rows, kind):
        numbers, features = rng.standard_normal((rows, 512)).astype(kind), rng.standard_normal((4, 512))
        size = lengths(numbers)
        tracemalloc.start()
        nearest_rows(features, numbers, size, 40)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    for kind in (np.float16, np.float32):
        few, many = peak(2048, kind), peak(16_384, kind)
        assert many < 1.1 * few
        assert many < 4 * BLOCK_NUMBERS + 400_000


@pytest.mark.parametrize(
    ("features", "numbers", "size", "keep", "message"),
    [
        (np.ones((1, 3)), np.ones((2, 4)), np.ones(2), 1, "do not match"),
        (np.ones(4), np.ones((2, 4)), np.ones(2), 1, "pass shape"),
        (np.full((1, 4), np.nan), np.ones((2, 4)), np.ones(2), 1, "features .*NaN"),
        (np.ones((1, 4)), np.ones((2, 4)), np.ones(3), 1, "do not match"),
        (np.ones((1, 4)), np.ones((2, 4), dtype=int), np.ones(2), 1, "float16"),
        (np.ones((1, 4)), np.ones((2, 4)), np.ones(2), 0, "at least 1"),
        (np.ones((1, 4)), np.full((2, 4), np.nan), np.ones(2), 1, "rows 0 to 1"),
        (np.ones((1, 4)), np.full((2, 4), np.inf, dtype=np.float16), np.ones(2), 1, "rows 0 to 1"),
        (np.ones((1, 4)), np.ones((2, 4)), np.full(2, 0.01), 1, "beyond 1"),
    ],
)
def test_input_that_cannot_be_searched_is_refused(features, numbers, size, keep, message):
    with pytest.raises(ValueError, match=message):
        nearest_rows(features, numbers, size, keep)


# --- rounded keys -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [np.float16, np.float32])
@pytest.mark.parametrize("d", [2, 40, 1024])
def test_a_rounded_key_never_gets_a_smaller_pvalue_than_the_exact_one(kind, d):
    rng = np.random.default_rng(5)
    numbers = rng.standard_normal((300, d))
    stored = numbers.astype(kind)
    drift = direction_drift(numbers, stored)
    turned = stored.astype(np.float64) / lengths(stored)[:, None]
    towards = turned - numbers / lengths(numbers)[:, None]
    images = [rng.standard_normal(d), numbers[7] + 0.5 * rng.standard_normal(d), towards[3]]  # the worst there can be
    for a in images:
        exact, bounded = cosine_tests(a, numbers), bounded_cosine_tests(a, stored, drift)
        assert all(b.log10_pvalue >= e.log10_pvalue for e, b in zip(exact, bounded, strict=True))
        assert all(
            e.statistic - 2.01 * t <= b.statistic <= e.statistic for e, b, t in zip(exact, bounded, drift, strict=True)
        )
    assert drift.max() < (6e-4 if kind is np.float16 else 1e-7)


def test_a_key_that_was_not_rounded_gets_the_exact_answer():
    rng = np.random.default_rng(6)
    a, k = rng.standard_normal(50), rng.standard_normal((9, 50))
    np.testing.assert_array_equal(direction_drift(k, k), 0)
    assert bounded_cosine_tests(a, k, np.zeros(9)) == cosine_tests(a, k)
    (nothing,) = bounded_cosine_tests(np.zeros(50), k[:1], np.full(1, 1e-4))
    assert (nothing.statistic, nothing.pvalue) == (0, 1)
    with pytest.raises(ValueError, match="drifts"):
        bounded_cosine_tests(a, k, np.full(9, np.nan))


def test_rounding_to_half_precision_costs_a_tenth_of_a_decade_at_most_where_it_matters():
    rng = np.random.default_rng(7)
    k, noise = rng.standard_normal((2, 200, 1024))
    stored = k.astype(np.float16)
    drift = direction_drift(k, stored)
    for cosine in (0.17, 0.3, 0.45):  # p from 1e-8 to 1e-50
        a = cosine * k + np.sqrt(1 - cosine**2) * noise
        pairs = [
            (cosine_tests(x, y)[0], bounded_cosine_tests(x, s[None], t[None])[0])
            for x, y, s, t in zip(a, k, stored, drift, strict=True)
        ]
        assert max(b.log10_pvalue - e.log10_pvalue for e, b in pairs) < 0.15


# --- Holm over more than is kept --------------------------------------------------------------------------------------


def test_the_leading_ranks_are_adjusted_as_holm_adjusts_them_among_all():
    rng = np.random.default_rng(8)
    for _ in range(50):
        p = np.sort(rng.uniform(size=200) ** rng.integers(1, 6))
        np.testing.assert_allclose(10 ** holm_leading(np.log10(p[:7]), 200), holm(p)[:7], rtol=1e-12)
    assert holm_leading([-400.0, -3.0], 1_000_000) == pytest.approx([-394.0, 0.0])
    assert holm_leading([], 5).size == 0


@pytest.mark.parametrize(
    ("log10", "count"), [([-1.0, -2.0], 5), ([-2.0, -1.0], 1), ([0.1], 5), ([np.nan], 5), ([[-1.0]], 5)]
)
def test_ranks_that_are_none_are_refused(log10, count):
    with pytest.raises(ValueError, match="log10_pvalues"):
        holm_leading(log10, count)


# --- the rate of false alarms -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [np.float16, np.float64])
def test_the_family_wise_error_rate_over_a_thousand_keys_is_alpha_on_any_images(kind):
    rng = np.random.default_rng(9)
    keys, d, trials, alpha = 1000, 24, 1500, 0.1
    colour = np.geomspace(0.02, 20, d)
    smallest, alarms = [], 0
    for _ in range(trials):
        numbers = rng.standard_normal((keys, d), dtype=np.float32)
        stored = numbers.astype(kind)
        image = rng.standard_cauchy(d) * colour  # heavy tails, far from white
        (rows,) = nearest_rows(image[None], stored, lengths(stored), 8)
        found = bounded_cosine_tests(image, stored[rows], direction_drift(numbers[rows], stored[rows]))
        leading = holm_leading(np.sort([e.log10_pvalue for e in found])[:5], keys)
        alarms += leading[0] <= np.log10(alpha)
        smallest.append(-np.expm1(keys * np.log1p(-min(e.pvalue for e in found))))
    low, high = clopper_pearson(alarms, trials, 0.999)
    assert low <= 1 - (1 - alpha / keys) ** keys <= high  # of independent keys: just under alpha
    assert low <= alpha
    # More than the rate: the smallest p of a thousand keys is distributed as the smallest of a thousand uniforms.
    assert stats.kstest(smallest, "uniform").pvalue > 1e-3
