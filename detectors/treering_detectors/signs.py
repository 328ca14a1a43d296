r"""The exact test of keys that are signs: the image is fixed, the n signs are random.

Let :math:`a \in R^n` be any features of the image alone, w = round(\|a\| / step) whole numbers from 0 to 15, and s the
key's signs, i.i.d. +1 or -1 with equal probability, drawn independently of the image. Then

.. math:: T = \sum_i w_i \, \mathrm{sign}(a_i) \, s_i

has for every image the distribution of :math:`\sum_i w_i s_i`, a weighted sum of binomials. Its tail is computed to
rounding. Rounding w costs a little power and no validity, because w depends on the image only. Where the signs carry an
unknown message, the places that share one bit of it form a group, and the group's part of the sum is its vote V. The test
statistic is then U, the sum of all \|V\|, whose null distribution is computed as exactly.

`hoeffding_log10_pvalue` is the bound that the literature uses instead. It is never smaller than the exact p-value.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from treering_detectors.evidence import Evidence

SIGNS = "exact-signs"
VOTES = "exact-votes"

_LEVELS = 15
_PER_RMS = 4  # rounding adds 1 / 192 of the weights' power, and the largest weight is 3.75 times their rms
_STEEPEST = 40.0  # exp(-40) is below rounding: tilting further changes nothing


def sign_tests(features: ArrayLike, signs: ArrayLike) -> list[Evidence]:
    """Test images against keys of signs, exactly given the image.

    Parameters
    ----------
    features : array_like, shape (B, n) or (n,)
        Any finite real features computed from the image alone; their scale does not matter.
    signs : array_like, shape (n,) or (B, n)
        +1 or -1, drawn i.i.d. with equal probability, independently of the image.

    Returns
    -------
    list of Evidence
        Detector ``exact-signs``; statistic T / sum w in [-1, 1], 1 where all signs agree; one-sided p-value P(T' >= T),
        uniform except for the steps of T. Features that are all zero carry no evidence: statistic 0 and p = 1.

    Raises
    ------
    ValueError
        If the shapes differ, a feature is not finite, or a sign is neither +1 nor -1.
    """
    a, s = np.atleast_2d(_finite(features)), np.atleast_2d(_signs(signs))
    if a.shape[1] != s.shape[1] or len(s) not in (1, len(a)):
        raise ValueError(
            f"features has shape {np.shape(features)} and signs {np.shape(signs)}; pass one sign for each feature"
        )
    weights = sign_weights(a)
    totals = np.sum(weights * np.where(a * s >= 0, 1, -1), axis=1)
    found = []
    for row, total in zip(weights, totals.tolist(), strict=True):
        greatest = int(row.sum())
        statistic = total / greatest if greatest else 0.0
        found.append(Evidence.from_log10(SIGNS, statistic, signs_log10_pvalue(row, total), a.shape[1]))
    return found


def vote_test(features: ArrayLike, signs: ArrayLike, groups: ArrayLike) -> tuple[Evidence, NDArray[np.int64]]:
    """Test whether signs carry *any* message, exactly given the image, and read the likeliest one.

    Parameters
    ----------
    features : array_like, shape (n,)
        As those of `sign_tests`.
    signs : array_like, shape (n,)
        The key's signs, which the signs of the message are multiplied by.
    groups : array_like of int, shape (n,)
        Which of m message signs each place repeats, 0 to m - 1.

    Returns
    -------
    evidence : Evidence
        Detector ``exact-votes``; statistic U / sum w in [0, 1]; p-value P(U' >= U). For one image it is never above the
        p-value of testing all 2^m messages with a correction for their number.
    message : (m,) of int
        +1 or -1; +1 where a vote is a tie.

    Raises
    ------
    ValueError
        As `sign_tests`.
    """
    a, s, group = _finite(features), _signs(signs), np.asarray(groups, dtype=np.int64)
    if not a.ndim == 1 == s.ndim or not a.shape == s.shape == group.shape:
        raise ValueError(f"features {a.shape}, signs {s.shape} and groups {group.shape} must have one shape, (n,)")
    weights = sign_weights(a[None])[0]
    votes = np.bincount(group, weights * np.where(a * s >= 0, 1, -1)).astype(np.int64)
    message = np.where(votes >= 0, 1, -1)
    total, greatest = int(np.abs(votes).sum()), int(weights.sum())
    if not greatest:  # no evidence
        return Evidence.from_log10(VOTES, 0.0, 0.0, len(a)), message
    log10_p = _votes_log10_pvalue(weights, group, total)
    return Evidence.from_log10(VOTES, total / greatest, log10_p, len(a)), message


def sign_weights(features: NDArray[np.float64]) -> NDArray[np.int64]:
    """Round the magnitudes of features, (B, n), to weights 0 to 15; 4 stands for the row's root mean square."""
    size = np.abs(features)
    largest = size.max(axis=1, keepdims=True, initial=0.0)
    size = size / np.where(largest > 0, largest, 1.0)  # squares neither overflow nor vanish
    rms = np.sqrt(np.mean(size**2, axis=1, keepdims=True))
    steps = np.rint(size * _PER_RMS / np.where(rms > 0, rms, 1.0))
    return np.minimum(steps, _LEVELS).astype(np.int64)


def signs_log10_pvalue(weights: ArrayLike, total: int) -> float:
    r"""Return log10 of P(sum w_i s_i >= total) for random signs s_i, exact to rounding.

    Parameters
    ----------
    weights : array_like of int, shape (n,)
        Whole numbers >= 0.
    total : int
        The statistic T.

    Returns
    -------
    float
        In [-inf, 0]; -inf only beyond the sum of all weights.

    Notes
    -----
    X = (T + sum w) / 2 is a sum of w Bin(n_w, 1/2). Its distribution is tilted, :math:`P_\theta(x) \propto P(x) e^{\theta
    x}`, until its mean is the observed value x0, so that nothing underflows. Then

    .. math:: P(X \ge x_0) = e^{K(\theta) - \theta x_0} \sum_{x \ge x_0} P_\theta(x) e^{-\theta (x - x_0)},

    with K the cumulant generating function, for every :math:`\theta` [1]_. The sum is computed by a discrete Fourier
    transform of the characteristic function, with as many frequencies as X has values, so it is exact.

    References
    ----------
    .. [1] H. E. Daniels, "Saddlepoint approximations in statistics", Ann. Math. Statist. 25, 1954, of which this is the
       exact form.
    """
    counts = np.bincount(np.asarray(weights, dtype=np.int64))
    levels = np.flatnonzero(counts)
    levels = levels[levels > 0]  # the distinct weights w, and n of each
    n, top = counts[levels], int(levels @ counts[levels])  # X lies in 0 .. top
    start = -(-(int(total) + top) // 2)  # x0, rounded up
    if start <= 0:
        return 0.0
    if start > top:
        return -np.inf

    def slope(tilt: float) -> float:
        return float(n * levels @ special.expit(tilt * levels))

    tilt = _solve(slope, start)
    rise = special.expit(tilt * levels)
    # Half of the top + 1 frequencies: the terms of the others are complex conjugates of these.
    angle = 2 * np.pi * np.arange(top // 2 + 1 + top % 2) / (top + 1)
    decay, phase = np.zeros_like(angle), np.zeros_like(angle)  # log of the tilted characteristic function
    with np.errstate(divide="ignore"):
        for level, count, p in zip(levels, n, rise, strict=True):
            real, imaginary = 1 - p + p * np.cos(level * angle), -p * np.sin(level * angle)
            decay += count / 2 * np.log(real**2 + imaginary**2)
            phase += count * np.arctan2(imaginary, real)
    # At each frequency the factors of the tail are a geometric series: sum over k < steps of q^k.
    steps = top - start + 1
    q = np.exp(-tilt + 1j * angle)
    if tilt == 0:
        q[0] = 0
    series = (1 - q**steps) / (1 - q)
    if tilt == 0:
        series[0] = steps
    terms = (np.exp(decay + 1j * (phase + angle * start)) * series).real
    self_conjugate = terms[0] + (terms[-1] if top % 2 else 0.0)
    mass = float(2 * terms.sum() - self_conjugate) / (top + 1)
    cumulant = float(n @ (np.logaddexp(0, tilt * levels) - np.log(2)))  # K(tilt)
    return _log10(mass, cumulant - tilt * start)


def hoeffding_log10_pvalue(statistic: ArrayLike, weights: ArrayLike) -> NDArray[np.float64]:
    """Return log10 of Hoeffding's bound exp(-t^2 / (2 sum w^2)) on P(sum w_i s_i >= t); 0 where t <= 0.

    Parameters
    ----------
    statistic : array_like, shape (...,)
        t.
    weights : array_like, shape (..., n)
        w, real.

    References
    ----------
    W. Hoeffding, "Probability inequalities for sums of bounded random variables", JASA 58, 1963, theorem 2.
    """
    t = np.maximum(np.asarray(statistic, dtype=np.float64), 0)
    power = np.sum(np.asarray(weights, dtype=np.float64) ** 2, axis=-1)
    return np.asarray(-(t**2) / (2 * np.where(power > 0, power, 1.0)) / np.log(10.0))


def _votes_log10_pvalue(weights: NDArray[np.int64], groups: NDArray[np.int64], total: int) -> float:
    """Return log10 P(U >= total): the distributions of all |V| are tilted and convolved, as in `signs_log10_pvalue`."""
    if total <= 0:
        return 0.0
    sizes = _vote_size_distributions(weights, groups)
    values = np.arange(sizes.shape[1])
    with np.errstate(divide="ignore"):
        logs = np.log(sizes)

    def tilted(tilt: float) -> NDArray[np.float64]:
        exponents = logs + tilt * values
        return np.exp(np.asarray(exponents - exponents.max(axis=1, keepdims=True)))

    def slope(tilt: float) -> float:
        probabilities = tilted(tilt)
        return float(np.sum((probabilities @ values) / probabilities.sum(axis=1)))

    tilt = _solve(slope, total)
    probabilities = tilted(tilt)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    cumulant = float(special.logsumexp(logs + tilt * values, axis=1).sum())
    parts = list(probabilities)
    while len(parts) > 1:  # in pairs, so that few convolutions are long; sums of positive numbers keep their digits
        pairs = [np.convolve(one, two) for one, two in zip(parts[::2], parts[1::2], strict=False)]
        parts = pairs + parts[len(pairs) * 2 :]
    tail = parts[0][total:]
    mass = float(tail @ np.exp(-tilt * np.arange(len(tail))))
    return _log10(mass, cumulant - tilt * total)


def _vote_size_distributions(weights: NDArray[np.int64], groups: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return P(|V| = v) of each group's vote V, for v = 0, 1, ...: (groups, largest vote + 1)."""
    reach = np.bincount(groups, weights).astype(np.int64)  # the largest vote of each group
    columns = np.arange(int(reach.max()) + 1)
    # The i-th place of every group is added in turn i, in all groups at once.
    turns = np.empty(len(groups), dtype=np.int64)
    order = np.argsort(groups, kind="stable")
    firsts = np.concatenate([[0], np.cumsum(np.bincount(groups))[:-1]])
    turns[order] = np.arange(len(groups)) - firsts[groups[order]]
    # P of (V + sum w) / 2. Each place shifts it by 0 or w with probability 1/2. Only positive numbers are added, so the
    # tail keeps its digits.
    raised = np.zeros((len(reach), len(columns)))
    raised[:, 0] = 1
    for turn in range(int(turns.max()) + 1):
        chosen = turns == turn
        rows = groups[chosen]
        source = columns - weights[chosen][:, None]
        shifted = np.where(source >= 0, np.take_along_axis(raised[rows], source.clip(min=0), axis=1), 0)
        raised[rows] = (raised[rows] + shifted) / 2
    votes = np.abs(2 * columns - reach[:, None])
    sizes = np.zeros_like(raised)
    possible = columns <= reach[:, None]
    np.add.at(sizes, (np.nonzero(possible)[0], votes[possible]), raised[possible])
    return sizes


def _solve(slope: Callable[[float], float], target: float) -> float:
    """Return the tilt in [0, 40] whose mean is the target, by bisection; the tail is exact for any tilt."""
    if slope(0.0) >= target:
        return 0.0
    low, high = 0.0, _STEEPEST
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) < target else (low, middle)
    return high


def _log10(mass: float, exponent: float) -> float:
    """Return log10 of mass times e^exponent, at most 0."""
    return min(0.0, (exponent + float(np.log(mass))) / np.log(10.0)) if mass > 0 else -np.inf


def _finite(features: ArrayLike) -> NDArray[np.float64]:
    a = np.asarray(features)
    if np.iscomplexobj(a) or a.ndim not in (1, 2):
        raise ValueError(f"features has shape {a.shape} and type {a.dtype}; pass real ones of shape (n,) or (B, n)")
    a = a.astype(np.float64)
    if not np.isfinite(a).all():
        raise ValueError(f"features (shape {a.shape}) holds NaN or infinity; such an image cannot be judged, skip it")
    return a


def _signs(signs: ArrayLike) -> NDArray[np.int64]:
    s = np.asarray(signs)
    if s.ndim not in (1, 2) or not np.isin(s, (-1, 1)).all():
        raise ValueError(f"signs has shape {s.shape}; pass +1 and -1 only, shape (n,) or (B, n)")
    return s.astype(np.int64)
