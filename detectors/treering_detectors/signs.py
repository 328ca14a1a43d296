r"""The exact test of keys that are signs: the image is fixed, n fair coins are the random thing.

Let :math:`a \in R^n` be any features of the image alone, w = round(\|a\| / step) whole numbers from 0 to 15, and s the
key's signs, i.i.d. +1 or -1 with equal chance, drawn without looking at the image. Then

.. math:: T = \sum_i w_i \, \mathrm{sign}(a_i) \, s_i

has for every image the law of :math:`\sum_i w_i s_i`, a sum of binomials that is computed to rounding, deep in the tail
too. The rounding of w costs a little power and no validity, because w looks at the image only. Where signs carry a message
that nobody knows, each group of places that share a bit casts a vote V, and the law of U, the sum of all \|V\|, is known.

`hoeffding_log10_pvalue` is the bound that the literature uses instead; it is never smaller than the exact p-value.
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
_PER_RMS = 4  # rounding adds 1 / 192 of the weights' power; the largest, where they are cut off, is 3.75 of their rms
_STEEPEST = 40.0  # exp(-40) is below rounding: tilting further changes nothing


def sign_tests(features: ArrayLike, signs: ArrayLike) -> list[Evidence]:
    """Test images against keys of signs: exact given the image.

    Parameters
    ----------
    features : array_like, shape (B, n) or (n,)
        Any finite real features computed from the image alone; their scale does not matter.
    signs : array_like, shape (n,) or (B, n)
        +1 or -1, drawn i.i.d. with equal chance, independently of the image.

    Returns
    -------
    list of Evidence
        Detector ``exact-signs``; statistic T / sum w in [-1, 1], 1 where all signs agree; one-sided p-value P(T' >= T),
        uniform but for the steps of T. Features that are all zero carry no evidence: statistic 0 and p = 1.

    Raises
    ------
    ValueError
        If the shapes differ, a feature is not finite, or a sign is neither +1 nor -1.
    """
    a, s = np.atleast_2d(_finite(features)), np.atleast_2d(_signs(signs))
    if a.shape[1] != s.shape[1] or len(s) not in (1, len(a)):
        raise ValueError(f"features has shape {np.shape(features)} and signs {np.shape(signs)}: give one sign for each")
    weights = sign_weights(a)
    totals = np.sum(weights * np.where(a * s >= 0, 1, -1), axis=1)
    found = []
    for row, total in zip(weights, totals.tolist(), strict=True):
        whole = int(row.sum())
        found.append(
            Evidence.from_log10(SIGNS, total / whole if whole else 0.0, signs_log10_pvalue(row, total), a.shape[1])
        )
    return found


def vote_test(features: ArrayLike, signs: ArrayLike, groups: ArrayLike) -> tuple[Evidence, NDArray[np.int64]]:
    """Test whether signs carry *any* message, and read the likeliest: exact given the image.

    Parameters
    ----------
    features : array_like, shape (n,)
        As those of `sign_tests`.
    signs : array_like, shape (n,)
        The key's signs, to which the message's are multiplied.
    groups : array_like of int, shape (n,)
        Which of m message signs each place repeats, 0 to m - 1.

    Returns
    -------
    evidence : Evidence
        Detector ``exact-votes``; statistic U / sum w in [0, 1]; P(U' >= U). For one image it is never above what trying
        all 2^m messages and correcting for them would give.
    message : (m,) of int
        +1 or -1; +1 where a vote is even.

    Raises
    ------
    ValueError
        As `sign_tests`.
    """
    a, s, members = _finite(features), _signs(signs), np.asarray(groups, dtype=np.int64)
    if not a.ndim == 1 == s.ndim or not a.shape == s.shape == members.shape:
        raise ValueError(f"features {a.shape}, signs {s.shape} and groups {members.shape} must have one shape, (n,)")
    weights = sign_weights(a[None])[0]
    votes = np.bincount(members, weights * np.where(a * s >= 0, 1, -1)).astype(np.int64)
    total, whole = int(np.abs(votes).sum()), int(weights.sum())
    log10_p = _votes_log10_pvalue(weights, members, total) if whole else 0.0
    message = np.where(votes >= 0, 1, -1)
    return Evidence.from_log10(VOTES, total / whole if whole else 0.0, log10_p, len(a)), message


def sign_weights(features: NDArray[np.float64]) -> NDArray[np.int64]:
    """Round the sizes of features, (B, n), to weights 0 to 15, four to a row's root mean square."""
    size = np.abs(features)
    largest = size.max(axis=1, keepdims=True, initial=0.0)
    size = size / np.where(largest > 0, largest, 1.0)  # squares neither overflow nor vanish
    rms = np.sqrt(np.mean(size**2, axis=1, keepdims=True))
    steps = np.rint(size * _PER_RMS / np.where(rms > 0, rms, 1.0))
    return np.minimum(steps, _LEVELS).astype(np.int64)


def signs_log10_pvalue(weights: ArrayLike, total: int) -> float:
    r"""log10 of P(sum w_i s_i >= total) for fair signs, exact to rounding.

    Parameters
    ----------
    weights : array_like of int, shape (n,)
        Whole numbers >= 0.
    total : int

    Returns
    -------
    float
        In [-inf, 0]; -inf only beyond the sum of all weights.

    Notes
    -----
    X = (T + sum w) / 2 is a sum of w Bin(n_w, 1/2). Its law is tilted, :math:`P_\theta(x) \propto P(x) e^{\theta x}`, until
    its mean is the value x0 that was found, so that nothing underflows. Then

    .. math:: P(X \ge x_0) = e^{K(\theta) - \theta x_0} \sum_{x \ge x_0} P_\theta(x) e^{-\theta (x - x_0)},

    an identity for every :math:`\theta` [1]_, whose sum is taken over the frequencies of the characteristic function, as
    many as X has values, which is exact.

    References
    ----------
    .. [1] H. E. Daniels, "Saddlepoint approximations in statistics", Ann. Math. Statist. 25, 1954, of which this is the
       exact form.
    """
    counts = np.bincount(np.asarray(weights, dtype=np.int64))
    levels = np.flatnonzero(counts)
    levels = levels[levels > 0]
    n, top = counts[levels], int(levels @ counts[levels])
    start = -(-(int(total) + top) // 2)
    if start <= 0:
        return 0.0
    if start > top:
        return -np.inf

    def slope(tilt: float) -> float:
        return float(n * levels @ special.expit(tilt * levels))

    tilt = _solve(slope, start)
    rise = special.expit(tilt * levels)
    angle = 2 * np.pi * np.arange(top // 2 + 1 + top % 2) / (top + 1)  # the others' terms are conjugates of these
    decay, phase = np.zeros_like(angle), np.zeros_like(angle)  # of the characteristic function, as logarithms
    with np.errstate(divide="ignore"):
        for level, count, p in zip(levels, n, rise, strict=True):
            real, imaginary = 1 - p + p * np.cos(level * angle), -p * np.sin(level * angle)
            decay += count / 2 * np.log(real**2 + imaginary**2)
            phase += count * np.arctan2(imaginary, real)
    # The tail's weights are a geometric series at each frequency: sum over k < steps of q^k.
    steps = top - start + 1
    q = np.exp(-tilt + 1j * angle)
    if tilt == 0:
        q[0] = 0
    series = (1 - q**steps) / (1 - q)
    if tilt == 0:
        series[0] = steps
    terms = (np.exp(decay + 1j * (phase + angle * start)) * series).real
    alone = terms[0] + (terms[-1] if top % 2 else 0.0)  # their own conjugates
    mass = float(2 * terms.sum() - alone) / (top + 1)
    cumulant = float(n @ (np.logaddexp(0, tilt * levels) - np.log(2)))
    return _log10(mass, cumulant - tilt * start)


def hoeffding_log10_pvalue(statistic: ArrayLike, weights: ArrayLike) -> NDArray[np.float64]:
    """log10 of Hoeffding's bound exp(-t^2 / (2 sum w^2)) of P(sum w_i s_i >= t), for real weights; 0 where t <= 0.

    Parameters
    ----------
    statistic : array_like, shape (...,)
    weights : array_like, shape (..., n)

    References
    ----------
    W. Hoeffding, "Probability inequalities for sums of bounded random variables", JASA 58, 1963, theorem 2.
    """
    t = np.maximum(np.asarray(statistic, dtype=np.float64), 0)
    power = np.sum(np.asarray(weights, dtype=np.float64) ** 2, axis=-1)
    return np.asarray(-(t**2) / (2 * np.where(power > 0, power, 1.0)) / np.log(10.0))


def _votes_log10_pvalue(weights: NDArray[np.int64], groups: NDArray[np.int64], total: int) -> float:
    """log10 P(U >= total): the law of each group's vote, folded, then tilted and multiplied as above."""
    reach = np.bincount(groups, weights).astype(np.int64)
    widest = int(reach.max())
    # By positive sums alone, shift and add, so that each group's law keeps its digits in its tail.
    rounds = np.empty(len(groups), dtype=np.int64)
    order = np.argsort(groups, kind="stable")
    firsts = np.concatenate([[0], np.cumsum(np.bincount(groups))[:-1]])
    rounds[order] = np.arange(len(groups)) - firsts[groups[order]]
    raised = np.zeros((len(reach), widest + 1))  # of (V + sum w) / 2
    raised[:, 0] = 1
    columns = np.arange(widest + 1)
    for turn in range(int(rounds.max()) + 1):
        chosen = rounds == turn
        rows = groups[chosen]
        source = columns - weights[chosen][:, None]
        moved = np.where(source >= 0, np.take_along_axis(raised[rows], source.clip(min=0), axis=1), 0)
        raised[rows] = (raised[rows] + moved) / 2
    votes = np.abs(2 * columns - reach[:, None])
    folded = np.zeros_like(raised)
    inside = columns <= reach[:, None]
    np.add.at(folded, (np.nonzero(inside)[0], votes[inside]), raised[inside])
    places = np.arange(widest + 1)
    with np.errstate(divide="ignore"):
        logs = np.log(folded)

    def tilted(tilt: float) -> NDArray[np.float64]:
        weighted = logs + tilt * places
        return np.asarray(weighted - weighted.max(axis=1, keepdims=True))

    def slope(tilt: float) -> float:
        law = np.exp(tilted(tilt))
        return float(np.sum((law @ places) / law.sum(axis=1)))

    if total <= 0:
        return 0.0
    tilt = _solve(slope, total)
    law = np.exp(tilted(tilt))
    law /= law.sum(axis=1, keepdims=True)
    cumulant = float(special.logsumexp(logs + tilt * places, axis=1).sum())
    laws = list(law)
    while len(laws) > 1:  # positive sums again, of laws that grow in pairs
        pairs = [np.convolve(one, two) for one, two in zip(laws[::2], laws[1::2], strict=False)]
        laws = pairs + laws[len(pairs) * 2 :]
    beyond = laws[0][total:]
    return _log10(float(beyond @ np.exp(-tilt * np.arange(len(beyond)))), cumulant - tilt * total)


def _solve(slope: Callable[[float], float], target: float) -> float:
    """Tilt in [0, 40] whose mean is the target; the tail is exact for any, so a coarse bisection does."""
    if slope(0.0) >= target:
        return 0.0
    low, high = 0.0, _STEEPEST
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) < target else (low, middle)
    return high


def _log10(mass: float, exponent: float) -> float:
    """log10 of mass times e^exponent, at most 0."""
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
        raise ValueError(f"signs (shape {s.shape}) holds other values than +1 and -1")
    return s.astype(np.int64)
