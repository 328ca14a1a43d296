"""Means, fitted lines and paired comparisons with their uncertainty, as benchmarks report them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class Mean:
    """A mean with its 95 % interval; prints as ``-21.72 +- 0.31``.

    Attributes
    ----------
    value : float
        The mean.
    half_width : float
        Half the width of the interval, by Student's t; infinite for a single number.
    count : int
        How many numbers were averaged.
    """

    value: float
    half_width: float
    count: int

    def __str__(self) -> str:
        """Show the value and half the interval's width."""
        return f"{self.value:.2f} +- {self.half_width:.2f}" if np.isfinite(self.half_width) else f"{self.value:.2f}"


@dataclass(frozen=True)
class Line:
    """A least-squares line y = intercept + slope x, with a bootstrap interval of its slope.

    Attributes
    ----------
    slope, intercept : float
        Coefficients of the line.
    low, high : float
        95 % percentile interval of the slope over resampled points.
    """

    slope: float
    intercept: float
    low: float
    high: float


@dataclass(frozen=True)
class PairedTest:
    """Exact comparison of two methods on the same items.

    Attributes
    ----------
    only_first, only_second : int
        Items that one method had right and the other wrong.
    pvalue : float
        Two-sided: the probability of a split at least this uneven if both are equally good.
    """

    only_first: int
    only_second: int
    pvalue: float


def mean(values: ArrayLike) -> Mean:
    """Return the mean and its 95 % interval by Student's t.

    Parameters
    ----------
    values : array_like of float, shape (n,)
        n >= 1 finite numbers.

    Raises
    ------
    ValueError
        If there is no value, or one is not finite.
    """
    from scipy.stats import t

    x = _finite("values", values)
    if len(x) == 1:
        return Mean(float(x[0]), float("inf"), 1)
    half = float(t.ppf(0.975, len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x)))
    return Mean(float(x.mean()), half, len(x))


def fit_line(x: ArrayLike, y: ArrayLike, *, resamples: int = 2000, seed: int = 0) -> Line:
    """Fit a least-squares line to points, with a bootstrap interval of its slope.

    Parameters
    ----------
    x, y : array_like of float, shape (n,)
        n >= 3 points, not all at one x.
    resamples : int
        Bootstrap samples (pairs drawn with replacement).
    seed : int
        Seed of the bootstrap.

    Raises
    ------
    ValueError
        If the shapes differ, there are fewer than 3 points, all lie at one x, or a value is not finite.

    References
    ----------
    B. Efron, R. Tibshirani, "An introduction to the bootstrap", 1993, section 9.5 (bootstrapping pairs).
    """
    a, b = _finite("x", x), _finite("y", y)
    if a.shape != b.shape or len(a) < 3:
        raise ValueError(f"x has shape {a.shape} and y {b.shape}; pass the same n >= 3 points")
    if np.ptp(a) == 0:
        raise ValueError("all points lie at one x, which defines no line; pass points that differ in x")
    picks = np.random.default_rng(seed).integers(0, len(a), (resamples, len(a)))
    slopes = _slopes(a[picks], b[picks])
    slope = float(_slopes(a[None], b[None])[0])
    low, high = np.quantile(slopes[np.isfinite(slopes)], [0.025, 0.975])
    return Line(slope, float(b.mean() - slope * a.mean()), float(low), float(high))


def mcnemar(first_right: ArrayLike, second_right: ArrayLike) -> PairedTest:
    """Test exactly whether two methods differ in how often they are right (McNemar).

    Parameters
    ----------
    first_right, second_right : array_like of bool, shape (n,)
        Whether each method was right on each item, items in the same order.

    Raises
    ------
    ValueError
        If the shapes differ.

    References
    ----------
    Q. McNemar, Psychometrika 12, 1947; the exact form is a binomial test of the discordant pairs at 1/2.
    """
    from scipy.stats import binomtest

    a, b = np.asarray(first_right, dtype=bool), np.asarray(second_right, dtype=bool)
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"the methods have shapes {a.shape} and {b.shape}; pass one answer per item for both")
    only_first, only_second = int((a & ~b).sum()), int((~a & b).sum())
    different = only_first + only_second
    pvalue = float(binomtest(only_first, different, 0.5).pvalue) if different else 1.0
    return PairedTest(only_first, only_second, pvalue)


def _slopes(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the slope of each row's line; NaN where all x are equal."""
    dx = x - x.mean(axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((dx * (y - y.mean(axis=1, keepdims=True))).sum(axis=1) / (dx**2).sum(axis=1))


def _finite(name: str, values: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size < 1 or not np.isfinite(array).all():
        raise ValueError(f"{name} has shape {array.shape}; pass one axis of at least one finite number")
    return array
