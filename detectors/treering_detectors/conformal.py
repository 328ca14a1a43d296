r"""Conformal p-values: a score against the scores of images that are known to be unmarked.

For n null scores and one more of an image that is exchangeable with theirs,

.. math:: p = \frac{1 + \#\{s_i \ge s\}}{n + 1}

satisfies :math:`P(p \le \alpha) \le \alpha` for every alpha, whatever the score is (Vovk et al.; ties only help). It is
never below 1 / (n + 1), and its validity is that of the exchangeability, which nothing here can check: the null images must
be like the images in question, and none of them the same. Where images may have been processed in one of several ways
(strata), the largest of the strata's p-values is valid whichever it was.

Given *this* null, a threshold's true false-positive rate is not the target but random around it: `threshold_at` gives
its interval.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special


def conformal_pvalue(score: float, null: ArrayLike) -> float:
    """P-value of one score against null scores.

    Parameters
    ----------
    score : float
        Larger means 'more likely marked'.
    null : array_like, shape (n,)
        Scores of n >= 1 unmarked images, one each, in any order.

    Returns
    -------
    float
        In [1 / (n + 1), 1].

    Raises
    ------
    ValueError
        If there is no null score, or a value is NaN.

    References
    ----------
    V. Vovk, A. Gammerman, G. Shafer, "Algorithmic Learning in a Random World", 2005, proposition 2.4.
    """
    scores = _null(null)
    if np.isnan(score):
        raise ValueError("score is NaN; such an image cannot be judged, skip it")
    return float((1 + np.count_nonzero(scores >= score)) / (1 + scores.size))


def worst_stratum(score: float, nulls: Mapping[str, ArrayLike]) -> tuple[float, str]:
    """Largest conformal p-value over strata, and the stratum that gives it.

    Valid if the image was processed like the images of *any* one of them. The first of equals.

    Raises
    ------
    ValueError
        If there is no stratum, or as `conformal_pvalue`.
    """
    if not nulls:
        raise ValueError("nulls is empty; pass the null scores of at least one stratum")
    pvalues = {name: conformal_pvalue(score, null) for name, null in nulls.items()}
    worst = max(pvalues, key=lambda name: pvalues[name])
    return pvalues[worst], worst


@dataclass(frozen=True)
class Threshold:
    """A score above which images are detected, with what is known of its false-positive rate.

    Attributes
    ----------
    target : float
        Wanted false-positive rate.
    value : float
        Images with a larger score are detected; infinite where n null scores cannot reach the target.
    low, high : float
        95 % interval of the true false-positive rate of this very threshold, given these null scores (Beta quantiles:
        exact for scores without ties).
    count : int
        Null scores, n.
    """

    target: float
    value: float
    low: float
    high: float
    count: int


def threshold_at(null: ArrayLike, target: float, confidence: float = 0.95) -> Threshold:
    """Threshold whose conformal p-value is just at most the target.

    Parameters
    ----------
    null : array_like, shape (n,)
    target : float
        False-positive rate in (0, 1).
    confidence : float
        Of the interval.

    Returns
    -------
    Threshold
        With k = floor(target (n + 1)): the k-th largest score. Scores beyond it have p <= k / (n + 1); its true rate has the
        law Beta(k, n + 1 - k). If k = 0, infinity, with the interval [0, 0]: nothing is ever detected.

    Raises
    ------
    ValueError
        If the target or the confidence is not in (0, 1), or as `conformal_pvalue`.

    References
    ----------
    V. Vovk, "Conditional validity of inductive conformal predictors", 2012, proposition 2.
    """
    scores = np.sort(_null(null))[::-1]
    if not 0 < target < 1 or not 0 < confidence < 1:
        raise ValueError(f"target is {target} and confidence {confidence}; pass numbers strictly between 0 and 1")
    n = scores.size
    k = int(np.floor(target * (n + 1) * (1 + 1e-12)))
    if k == 0:
        return Threshold(target, float("inf"), 0.0, 0.0, n)
    tail = (1 - confidence) / 2
    low, high = (float(special.betaincinv(k, n + 1 - k, q)) for q in (tail, 1 - tail))
    return Threshold(target, float(scores[k - 1]), low, high, n)


def _null(null: ArrayLike) -> NDArray[np.float64]:
    scores = np.asarray(null, dtype=np.float64)
    if scores.ndim != 1 or scores.size == 0:
        raise ValueError(f"null has shape {scores.shape}; pass the scores of at least one unmarked image, shape (n,)")
    if np.isnan(scores).any():
        raise ValueError(f"null (shape {scores.shape}) holds NaN; leave out images without a score")
    return scores
