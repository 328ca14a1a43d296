"""Means, lines and paired tests, against scipy and by their coverage."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from treering_detectors import Mean, fit_line, mcnemar, mean


def test_the_mean_has_students_interval_and_says_so() -> None:
    x = np.array([1.0, 2.0, 4.0, 9.0])
    found = mean(x)
    low, high = stats.t.interval(0.95, 3, loc=x.mean(), scale=stats.sem(x))
    assert (found.value - found.half_width, found.value + found.half_width) == pytest.approx((low, high))
    assert found.count == 4
    assert str(Mean(-21.724, 0.314, 9)) == "-21.72 +- 0.31"
    assert str(mean([3.0])) == "3.00"


def test_the_interval_of_the_mean_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    found = [mean(rng.normal(5, 2, 8)) for _ in range(2000)]
    covered = sum(abs(m.value - 5) <= m.half_width for m in found)
    assert stats.binomtest(covered, 2000, 0.95).pvalue > 1e-3


def test_the_line_is_the_least_squares_line() -> None:
    rng = np.random.default_rng(1)
    x = rng.uniform(0, 3, 40)
    y = 2 - 1.5 * x + 0.3 * rng.standard_normal(40)
    found, expected = fit_line(x, y), stats.linregress(x, y)
    assert (found.slope, found.intercept) == pytest.approx((expected.slope, expected.intercept))
    assert found.low < -1.5 < found.high
    assert found.high - found.low == pytest.approx(4 * expected.stderr, rel=0.25)


def test_a_slope_of_nothing_is_within_its_interval_nineteen_times_in_twenty() -> None:
    rng = np.random.default_rng(2)
    covered = 0
    for seed in range(300):
        found = fit_line(rng.standard_normal(50), rng.standard_normal(50), resamples=400, seed=seed)
        covered += found.low <= 0 <= found.high
    assert 0.90 < covered / 300 < 0.99  # the percentile bootstrap covers a little less than it says


def test_mcnemar_counts_the_items_on_which_the_methods_differ() -> None:
    first = np.array([1, 1, 1, 1, 1, 1, 0, 1, 0, 0], dtype=bool)
    second = np.array([0, 0, 0, 0, 0, 1, 0, 1, 1, 0], dtype=bool)
    found = mcnemar(first, second)
    assert (found.only_first, found.only_second) == (5, 1)
    assert found.pvalue == pytest.approx(2 * sum(stats.binom.pmf(k, 6, 0.5) for k in (0, 1)))
    assert mcnemar(first, first).pvalue == 1.0


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: mean([]), "at least one"),
        (lambda: mean([1.0, np.nan]), "finite"),
        (lambda: fit_line([1, 2], [1, 2]), "n >= 3"),
        (lambda: fit_line([1, 1, 1], [1, 2, 3]), "one x"),
        (lambda: fit_line([1, 2, 3], [1, 2, 3, 4]), "the same"),
        (lambda: mcnemar([True], [True, False]), "one answer per item"),
    ],
)
def test_bad_input_is_refused_with_a_reason(call, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        call()
