r"""Conformal p-values: a score against the scores of images that are known to be unmarked.

For the scores :math:`s_i` of n unmarked images and the score s of one more image that is exchangeable with them,

.. math:: p = \frac{1 + \#\{s_i \ge s\}}{n + 1}

satisfies :math:`P(p \le \alpha) \le \alpha` for every alpha, whatever the score is (Vovk et al.; ties only help). It is
never below 1 / (n + 1). It is valid only if the images are exchangeable, which nothing here can check: the unmarked images
must be like the tested ones, and all must differ. Where images may have been processed in one of several ways (strata),
the largest of the strata's p-values is valid whichever it was.

Given *one* set of unmarked images, a threshold's true false-positive rate is not the target but random around it:
`threshold_at` gives its interval.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special


def conformal_pvalue(score: float, unmarked: ArrayLike) -> float:
    """Return the p-value of one score against the scores of unmarked images.

    Parameters
    ----------
    score : float
        Larger means 'more likely marked'.
    unmarked : array_like, shape (n,)
        Scores of n >= 1 unmarked images, one each, in any order.

    Returns
    -------
    float
        In [1 / (n + 1), 1].

    Raises
    ------
    ValueError
        If there is no unmarked score, or a value is NaN.

    References
    ----------
    V. Vovk, A. Gammerman, G. Shafer, "Algorithmic Learning in a Random World", 2005, proposition 2.4.
    """
    scores = _scores(unmarked)
    if np.isnan(score):
        raise ValueError("score is NaN; such an image cannot be judged, skip it")
    return float((1 + np.count_nonzero(scores >= score)) / (1 + scores.size))


def worst_stratum(score: float, strata: Mapping[str, ArrayLike]) -> tuple[float, str]:
    """Return the largest conformal p-value over strata, and the name of its stratum.

    The p-value is valid if the image was processed like the images of *any* one stratum.

    Parameters
    ----------
    score : float
        Larger means 'more likely marked'.
    strata : mapping of str to array_like, shape (n,)
        Scores of unmarked images, by the name of how these were processed. Of equal p-values the first counts.

    Raises
    ------
    ValueError
        If there is no stratum, or as `conformal_pvalue`.
    """
    if not strata:
        raise ValueError("strata is empty; pass the scores of unmarked images of at least one stratum")
    pvalues = {name: conformal_pvalue(score, unmarked) for name, unmarked in strata.items()}
    worst = max(pvalues, key=lambda name: pvalues[name])
    return pvalues[worst], worst


@dataclass(frozen=True)
class Threshold:
    """A score above which images are detected, with an interval of its false-positive rate.

    Attributes
    ----------
    target : float
        Wanted false-positive rate.
    value : float
        Images with a larger score are detected; infinite where n unmarked scores cannot reach the target.
    low, high : float
        95 % interval of the true false-positive rate of this threshold, given these unmarked scores (quantiles of a
        beta distribution: exact for scores without ties).
    count : int
        Unmarked scores, n.
    """

    target: float
    value: float
    low: float
    high: float
    count: int


def threshold_at(unmarked: ArrayLike, target: float, confidence: float = 0.95) -> Threshold:
    """Return the lowest threshold beyond which conformal p-values are at most the target.

    Parameters
    ----------
    unmarked : array_like, shape (n,)
        Scores of n >= 1 unmarked images.
    target : float
        False-positive rate in (0, 1).
    confidence : float
        Confidence of the interval, in (0, 1).

    Returns
    -------
    Threshold
        The k-th largest score, k = floor(target (n + 1)). Scores beyond it have p <= k / (n + 1); its true rate is
        distributed as Beta(k, n + 1 - k). If k = 0, infinity, with the interval [0, 0]: nothing is ever detected.

    Raises
    ------
    ValueError
        If the target or the confidence is not in (0, 1), or as `conformal_pvalue`.

    References
    ----------
    V. Vovk, "Conditional validity of inductive conformal predictors", 2012, proposition 2.
    """
    scores = np.sort(_scores(unmarked))[::-1]
    if not 0 < target < 1 or not 0 < confidence < 1:
        raise ValueError(f"target is {target} and confidence {confidence}; pass numbers strictly between 0 and 1")
    n = scores.size
    k = int(np.floor(target * (n + 1) * (1 + 1e-12)))
    if k == 0:
        return Threshold(target, float("inf"), 0.0, 0.0, n)
    tail = (1 - confidence) / 2
    low, high = (float(special.betaincinv(k, n + 1 - k, q)) for q in (tail, 1 - tail))
    return Threshold(target, float(scores[k - 1]), low, high, n)


def _scores(unmarked: ArrayLike) -> NDArray[np.float64]:
    scores = np.asarray(unmarked, dtype=np.float64)
    if scores.ndim != 1 or scores.size == 0:
        raise ValueError(
            f"unmarked has shape {scores.shape}; pass the scores of at least one unmarked image, shape (n,)"
        )
    if np.isnan(scores).any():
        raise ValueError(f"unmarked (shape {scores.shape}) holds NaN; leave out images without a score")
    return scores
