r"""The number of images that chance alone detects under one key: the images are fixed, the key is random.

Each p-value is exact, so of N images without the key :math:`N \alpha` are detected on average over keys. Their number under
one key is not binomial, because images with similar features are detected, or not, together. Let a and b be the features of
two images, :math:`\rho = \cos\varphi` their cosine, and u the direction of the key, uniform on the sphere in :math:`R^d`.
Then

.. math:: P(\langle a, u \rangle \ge c, \langle b, u \rangle \ge c)
          = \frac1\pi \int_{\varphi/2}^{\arccos c} \left(1 - \frac{c^2}{\cos^2 \psi}\right)^{(d-2)/2} d\psi, \quad c \ge 0,

exactly (docs/exact-test.md has the proof). `joint_pvalue` computes it, and the sum over all pairs gives the variance of the
number. `clump_sizes` gives its distribution at any alpha, however small, because it draws keys that detect an image.
`feature_groups` finds detected images that stand or fall together.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from treering_detectors.arrays import real_array, unit_rows
from treering_detectors.exact import cosine_needed

_SHARED, _TOGETHER = 0.5, 0.05  # features are shared from that cosine on, and where keys accuse both images so often

_DRAWS = (2000, 4000)  # of simulated keys: fewer where the images are many
_PRODUCTS = 2**22  # images times keys, about
_SEED = 20260129  # fixed, so that a repeated audit says the same
_PANELS = 4096
_ROUNDING = 1e-6  # of a cosine in float32
_SMALLEST = 1e-280  # levels below are taken for this one; no count can show the difference
_BLOCK = 512  # rows of features that are multiplied at a time
_LONGEST, _LONGEST_SUM = 2**24, 2**13  # of a distribution over counts, for one key and for several
_CONFIDENCE = 0.95
_BY_CHANCE = 1e-3  # that features of any two of some images reach the bound of a group, were their directions random


@dataclass(frozen=True)
class ChanceCount:
    """How many images chance alone detects, over random keys.

    Attributes
    ----------
    mean, deviation : float
        Mean and standard deviation of the number.
    any : float
        Probability of at least one.
    together : float
        Mean number where there is at least one.
    low, high : int
        Central 95 % interval of the number.
    simulated : bool
        Whether the distribution is that of simulated keys; if not, a negative binomial one with this mean and deviation.
    """

    mean: float
    deviation: float
    any: float
    together: float
    low: int
    high: int
    simulated: bool


def joint_pvalue(correlation: ArrayLike, alpha: float, degrees_of_freedom: int) -> NDArray[np.float64]:
    """Return the probability that one random key has p <= alpha on both of two images.

    Parameters
    ----------
    correlation : array_like
        Cosines between the images' features, in [-1, 1].
    alpha : float
        In (0, 1).
    degrees_of_freedom : int
        Dimension d >= 2.

    Returns
    -------
    ndarray of float64
        Same shape: alpha where the cosine is 1, about alpha^2 where it is 0. Relative error below 1e-4.

    Raises
    ------
    ValueError
        If d < 2, alpha is not in (0, 1), or a cosine is not in [-1, 1].
    """
    rho = np.asarray(correlation, dtype=np.float64)
    if not np.all(np.abs(rho) <= 1):
        raise ValueError(f"correlation (shape {rho.shape}) holds values outside [-1, 1]")
    return _joint(alpha, degrees_of_freedom)(np.arccos(rho))


def count_variance(
    features: ArrayLike, alpha: float, copies: ArrayLike | None = None, contents: int | None = None
) -> float:
    """Return the variance over keys of the number of images with p <= alpha, from all pairs of features.

    Parameters
    ----------
    features : array_like, shape (n, d)
        One row for each image. Rows that are all zero are never detected.
    alpha : float
        In (0, 1).
    copies : array_like, shape (n,), optional
        How many images have each row; 1 when left out.
    contents : int, optional
        Count of different images, of which the rows are a random sample; n when left out.

    Raises
    ------
    ValueError
        As `joint_pvalue`, or if the shapes do not fit.
    """
    rows, weights = _rows(features, copies)
    n = len(rows)
    many = n if contents is None else contents
    joint = _joint(alpha, rows.shape[1])
    between = 0.0
    for start in range(0, n, _BLOCK):
        block, later = rows[start : start + _BLOCK], rows[start:]  # each pair once
        both = joint(np.arccos(np.clip(block @ later.T, -1.0, 1.0))) - alpha**2
        between += 2 * float(weights[start : start + _BLOCK] @ (np.triu(both, 1) @ weights[start:]))
    scale = many * (many - 1) / (n * (n - 1)) if n > 1 else 0.0
    own = float(weights @ weights) * (alpha - alpha**2) * (many / n if n else 0.0)
    return max(own * 1e-6, own + scale * between)


def clump_sizes(
    features: ArrayLike, alpha: float, copies: ArrayLike | None = None, draws: int = _DRAWS[1]
) -> NDArray[np.float64]:
    r"""Return how many images are detected together with one, for keys that detect it.

    Parameters
    ----------
    features, alpha, copies
        As `count_variance`.
    draws : int
        Count of keys. For each, an image is drawn, and then a key of those with p <= alpha on it.

    Returns
    -------
    ndarray of float64, shape (draws,)
        The number S >= 1 of images with p <= alpha, the drawn one among them.

    Notes
    -----
    With M the number under an unconditional key and :math:`\mu = N \alpha`, :math:`P(M = k) = \mu\, E[1(S = k) / S]` and
    :math:`P(M \ge 1) = \mu\, E[1 / S]` exactly [1]_: each of the k images of an outcome is drawn in one k-th of the cases.
    The error of the estimate is relative, so it is as small at alpha 1e-100 as at 1e-2.

    References
    ----------
    .. [1] A. B. Owen, Y. Maximov, M. Chertkov, "Importance sampling the union of rare events with an application to power
       systems analysis", Electron. J. Statist. 13, 2019.
    """
    rows, weights = _rows(features, copies)
    d, level = rows.shape[1], max(alpha, _SMALLEST)
    least = cosine_needed(d, level)
    random = np.random.Generator(np.random.Philox(_SEED))
    sizes = np.empty(draws)
    places = (np.arange(draws) + random.random()) / draws  # systematic, so that each image has its share of the keys
    images = np.searchsorted(np.cumsum(weights) / weights.sum(), places).clip(max=len(rows) - 1)
    for start in range(0, draws, _BLOCK):
        drawn = images[start : start + _BLOCK]
        count = len(drawn)
        cosine = _cosines_at(level * (1 - random.random(count)), d).astype(np.float32)[:, None]
        own = rows[drawn]
        other = random.standard_normal((count, d), dtype=np.float32)
        other -= np.sum(other * own, axis=1, keepdims=True) * own
        keys = cosine * own + np.sqrt(1 - cosine**2) * (other / np.linalg.norm(other, axis=1, keepdims=True))
        reached = rows @ keys.T >= least - _ROUNDING
        reached[drawn, np.arange(count)] = True  # rounding must not lose it
        sizes[start : start + count] = weights @ reached
    return sizes


def chance_count(
    features: ArrayLike,
    alpha: float,
    *,
    keys: int = 1,
    copies: ArrayLike | None = None,
    contents: int | None = None,
    images: float | None = None,
    draws: int | None = None,
) -> ChanceCount:
    """Return how many images without a key chance alone detects.

    Parameters
    ----------
    features : array_like, shape (n, d)
        Features of the images, or of a random sample of them, one row for each different image.
    alpha : float
        False-positive rate of an image, over all keys together.
    keys : int
        Count of keys that are tried; each has alpha / keys.
    copies : array_like, shape (n,), optional
        How many images have each row.
    contents : int, optional
        Count of different images, of which the rows are a sample; n when left out.
    images : float, optional
        Count of images with their copies; estimated from the rows when left out.
    draws : int, optional
        Count of simulated keys, where the rows are no sample; 2,000 to 4,000 when left out.

    Raises
    ------
    ValueError
        As `count_variance`, or if there is no key.
    """
    if keys < 1:
        raise ValueError(f"keys is {keys}; pass the count of keys tried, at least 1")
    rows, weights = _rows(features, copies)
    present = np.asarray(rows.any(axis=1))
    rows, weights, share = rows[present], weights[present], float(present.mean()) if len(present) else 0.0
    if not len(rows):
        return ChanceCount(0.0, 0.0, 0.0, 1.0, 0, 0, True)
    complete = contents is None or contents <= len(present)
    many = len(rows) if complete else max(len(rows), round((contents or 0) * share))
    total = float(weights.sum()) if complete else (images or float(weights.mean()) * many) * share
    level = alpha / keys
    mean, variance = total * alpha, keys * count_variance(rows, level, weights, many)
    if complete:
        draws = draws or int(np.clip(_PRODUCTS // len(rows), *_DRAWS))
        sizes = clump_sizes(rows, level, weights, draws)
        found = _simulated(mean, variance, keys, total * level, sizes)
        if found:
            return found
    return _fitted(mean, variance)


def shared_cosine(alpha: float, degrees_of_freedom: int) -> float:
    """Return the smallest cosine between the features of two images at which they count as sharing features.

    It is .5, or, if that is larger, the cosine from which on a random key with p <= alpha on one image has so on the other
    in 5 % of cases or more.

    Raises
    ------
    ValueError
        As `joint_pvalue`.
    """
    angles = np.linspace(0.0, math.acos(_SHARED), 2001)
    often = _joint(alpha, degrees_of_freedom)(angles) >= _TOGETHER * alpha
    return max(_SHARED, math.cos(angles[often].max(initial=0.0)))


def feature_groups(features: ArrayLike, least: float = _SHARED) -> NDArray[np.int64]:
    """Return for each image the number of its group: images that share features, directly or through others.

    Parameters
    ----------
    features : array_like, shape (n, d)
        Features of detected images, without the part along their key, which marked images have in common.
    least : float
        Cosine from which on two images share features (`shared_cosine`). It is raised where d is so small, or the images so
        many, that random directions would reach it.

    Returns
    -------
    ndarray of int, shape (n,)
        Numbers from 0, in the order of their first images.
    """
    rows, _ = _rows(features, None)
    n, d = rows.shape
    bound = max(least, cosine_needed(d, _BY_CHANCE / max(1, n * (n - 1) // 2)))
    firsts = np.arange(n)  # first row of each row's group
    for start in range(0, n, _BLOCK):
        block = rows[start : start + _BLOCK] @ rows[: start + _BLOCK].T >= bound
        for row, near in enumerate(block, start):
            joined = np.unique(firsts[np.flatnonzero(near[:row])])
            if joined.size:
                firsts[row] = joined[0]
                if joined.size > 1:
                    firsts[: row + 1][np.isin(firsts[: row + 1], joined)] = joined[0]
    groups: NDArray[np.int64] = np.unique(firsts, return_inverse=True)[1]
    return groups


def _joint(alpha: float, d: int) -> Callable[[NDArray[np.floating]], NDArray[np.float64]]:
    """Return the function from angles between features to the probability that both have p <= alpha."""
    if d < 2:
        raise ValueError(f"degrees_of_freedom is {d}; the test needs a key of at least 2 numbers")
    if not 0 < alpha < 1:
        raise ValueError(f"alpha is {alpha}; pass a false-positive rate strictly between 0 and 1, such as 1e-6")
    if alpha > 0.5:  # by the complement, and the symmetry of u
        other = _joint(1 - alpha, d)
        return lambda angles: 1 - 2 * (1 - alpha) + other(angles)
    c = cosine_needed(d, max(alpha, _SMALLEST))
    edges = np.linspace(0.0, math.acos(c), _PANELS + 1)
    nodes, node_weights = np.polynomial.legendre.leggauss(4)
    half = edges[1] / 2
    psi = (edges[:-1] + half)[:, None] + half * nodes
    with np.errstate(divide="ignore"):
        integrand = np.exp((d - 2) / 2 * np.log1p(-np.minimum((c / np.cos(psi)) ** 2, 1.0))) if d > 2 else 1.0 + 0 * psi
    panels = half * (integrand @ node_weights) / np.pi
    tail = np.append(np.cumsum(panels[::-1])[::-1], 0.0)  # at the edges; sums of positive numbers keep their digits
    with np.errstate(divide="ignore"):
        logs = np.maximum(np.log(tail * (alpha / tail[0])), -1e4)
    return lambda angles: np.exp(np.interp(np.asarray(angles, dtype=np.float64) / 2, edges, logs))


def _cosines_at(pvalues: NDArray[np.float64], d: int) -> NDArray[np.float64]:
    """Return the cosines of p-values, as `cosine_needed` does for one."""
    size = np.sqrt(special.betainccinv(0.5, (d - 1) / 2, 2 * np.minimum(pvalues, 1 - pvalues)))
    return np.asarray(np.where(pvalues <= 0.5, size, -size))


def _simulated(
    mean: float, variance: float, keys: int, mean_of_key: float, sizes: NDArray[np.float64]
) -> ChanceCount | None:
    """Return the number's distribution from the clumps of one key; None where it has too many values."""
    any_of_key = min(1.0, mean_of_key * float(np.mean(1 / sizes)))
    length = 2 ** math.ceil(math.log2(2 * (sizes.max() + mean + 10 * math.sqrt(variance)) + 16))
    if length > (_LONGEST if keys == 1 else _LONGEST_SUM):
        return None
    values = np.rint(sizes).astype(np.int64)
    mass = mean_of_key * np.bincount(values, 1 / sizes, minlength=length) / len(sizes)
    if mass.sum() > 1:  # by the error of the simulation, where one is nearly certain
        mass /= mass.sum()
    if keys == 1:
        mass[0] = 1 - mass.sum()
        found = any_of_key
    else:
        found = -math.expm1(keys * math.log1p(-min(any_of_key, 1 - 1e-16)))
        mass[0] = 1 - mass.sum()
        mass = _sum_of(mass, keys)
    below = np.cumsum(mass)
    low, high = (int(np.argmax(below >= q - 1e-9)) for q in ((1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2))
    return ChanceCount(mean, math.sqrt(variance), found, mean / found if found else 1.0, low, high, True)


def _sum_of(mass: NDArray[np.float64], times: int) -> NDArray[np.float64]:
    """Return the distribution of a sum of independent numbers, by repeated squaring; positive terms keep their digits."""
    total = np.zeros_like(mass)
    total[0] = 1.0
    while times:
        if times % 2:
            total = np.convolve(total, mass)[: len(mass)]
        times //= 2
        if times:
            mass = np.convolve(mass, mass)[: len(mass)]
    return total


def _fitted(mean: float, variance: float) -> ChanceCount:
    """Return the negative binomial distribution of this mean and variance, or the Poisson one if that is too small."""
    spread = max(variance / mean, 1 + 1e-6)
    size = mean / (spread - 1)

    def below(k: int) -> float:
        return float(special.betainc(size, k + 1, 1 / spread)) if spread > 1.001 else float(special.pdtr(k, mean))

    found = -math.expm1(-size * math.log(spread))
    low, high = (_quantile(below, q) for q in ((1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2))
    return ChanceCount(mean, math.sqrt(variance), found, mean / found if found else 1.0, low, high, False)


def _quantile(below: Callable[[int], float], q: float) -> int:
    high = 1
    while below(high) < q:
        high *= 2
    low = -1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if below(middle) < q else (low, middle)
    return high


def _rows(features: ArrayLike, copies: ArrayLike | None) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    rows = real_array("features", features, (2,))
    weights = np.ones(len(rows)) if copies is None else np.asarray(copies, dtype=np.float64)
    if weights.shape != (len(rows),):
        raise ValueError(f"copies has shape {weights.shape}; pass one number for each of {len(rows)} rows of features")
    return unit_rows(rows).astype(np.float32), weights
