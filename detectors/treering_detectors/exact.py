r"""The exact key-randomisation test: the image is fixed, the key is random.

Published p-values model the noise of an unmarked image, and real images do not follow the model. Here nothing is
assumed about the image. Let :math:`a \in R^d` be *any* features computed from the image alone and
:math:`k \sim N(0, I_d)` a key drawn independently of it. The distribution of k does not change under rotation, so for
every a

.. math:: t = \langle a, k \rangle / |a| \sim N(0, 1), \qquad
          c = t / |k|, \quad P(C \ge c) = \tfrac12 I_{1 - c^2}\!\left(\tfrac{d - 1}{2}, \tfrac12\right), \; c \ge 0,

exactly. Whitening, weighting or learning a changes the power and never the size of the test; using the key (or an image
marked with the key) to choose a does, and so does trying several a and keeping the best: correct those with
`bonferroni` or `holm`.

Features and numbers are real; stack the real and imaginary parts of complex coefficients on one axis, each independent
bin once. All logarithms of p-values are base 10.
"""

from __future__ import annotations

import sys

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from treering_detectors.arrays import real_array, unit_rows
from treering_detectors.evidence import Evidence

COSINE = "exact-cosine"
GAUSSIAN = "exact-gaussian"

_LARGEST_COSINE = float(np.nextafter(1.0, 0.0))
_NODES, _WEIGHTS = np.polynomial.laguerre.laggauss(24)


def cosine_log10_pvalue(cosine: ArrayLike, degrees_of_freedom: int) -> NDArray[np.float64]:
    r"""Return log10 of P(C >= cosine) for the cosine C of a fixed vector and a Gaussian one in R^d.

    Parameters
    ----------
    cosine : array_like
        Cosines in [-1, 1], any shape.
    degrees_of_freedom : int
        Dimension d >= 2.

    Returns
    -------
    ndarray of float64
        Same shape, in [-inf, 0]; -inf only at a cosine of exactly 1. The relative error of the logarithm is near
        rounding, deep in the tail too.

    Raises
    ------
    ValueError
        If d < 2 (in one dimension the cosine is a sign) or a cosine is not in [-1, 1].

    Notes
    -----
    The tail is :math:`\tfrac12 I_x(a, \tfrac12)` with :math:`a = (d - 1) / 2`, :math:`x = 1 - c^2` [1]_. Where that
    underflows, the hypergeometric form ([2]_, 8.17.8, after Pfaff's and Euler's 15.8.1 and 15.6.1) is taken in logs:

    .. math:: \tfrac12 I_x(a, \tfrac12) = \frac{x^a}{2 a B(a, 1/2) c}
              \int_0^\infty e^{-u} \left(1 + \tfrac{x}{c^2} (1 - e^{-u/a})\right)^{-1/2} du .

    The integrand's only singularity, :math:`u = a \log x`, is below -600 there, so 24 Gauss-Laguerre nodes are exact to
    rounding, at sizes where the series for 2F1 gives NaN.

    References
    ----------
    .. [1] R. J. Muirhead, "Aspects of Multivariate Statistical Theory", 1982, theorem 1.5.7.
    .. [2] NIST Digital Library of Mathematical Functions, https://dlmf.nist.gov/8.17
    """
    c = np.asarray(cosine, dtype=np.float64)
    _check_dimension(degrees_of_freedom)
    if not np.all(np.abs(c) <= 1):  # also false for NaN
        raise ValueError(f"cosine (shape {c.shape}) holds values outside [-1, 1]; divide <a, k> by both norms first")
    a = (degrees_of_freedom - 1) / 2
    size = np.abs(c)
    x = (1 - size) * (1 + size)  # keeps its digits next to |c| = 1, where 1 - c * c loses them
    tail = special.betainc(a, 0.5, x) / 2
    with np.errstate(divide="ignore"):
        log_p = np.where(c < 0, np.log1p(-tail), np.log(tail))
    deep = (c > 0) & (tail < 1e-290) & (x > 0)
    if deep.any():
        cd, xd = size[deep], x[deep]
        integral = (1 - (xd / cd**2)[:, None] * np.expm1(-_NODES / a)) ** -0.5 @ _WEIGHTS
        log_p[deep] = a * np.log(xd) - np.log(2 * a * cd) - special.betaln(a, 0.5) + np.log(integral)
    log10_p: NDArray[np.float64] = np.asarray(log_p / np.log(10.0))
    return log10_p


def cosine_test(features: ArrayLike, numbers: ArrayLike) -> Evidence:
    """Test one image against one key by their cosine: exact given the image and given the key's length.

    Parameters
    ----------
    features : array_like, shape (d,)
        Any finite real features computed from the image alone; their scale does not matter.
    numbers : array_like, shape (d,)
        The key's numbers, drawn i.i.d. N(0, 1) independently of the image. Any other distribution that
        rotations do not change serves as well.

    Returns
    -------
    Evidence
        Detector ``exact-cosine``, statistic in [-1, 1], one-sided p-value. Features that are all zero carry no
        evidence: statistic 0 and p = 1.

    Raises
    ------
    ValueError
        If the shapes differ, d < 2, a value is complex or not finite, or the key is all zero.

    References
    ----------
    docs/exact-test.md has the proof, `cosine_log10_pvalue` the null distribution.
    """
    a, k = _vectors(features, numbers)
    return cosine_tests(a, k)[0]


def cosine_tests(features: ArrayLike, numbers: ArrayLike) -> list[Evidence]:
    """Run `cosine_test` on many images, many keys, or pairs of them.

    Parameters
    ----------
    features : array_like, shape (B, d) or (d,)
        One row per image; one row alone is compared with every key.
    numbers : array_like, shape (d,) or (B, d)
        One key for all, or one row per key.

    Returns
    -------
    list of Evidence
        B of them, in order. P-values are not corrected for their number: see `holm`.

    Raises
    ------
    ValueError
        As `cosine_test`.
    """
    a, k = _pairs(features, numbers)
    present = a.any(axis=-1)
    dot = np.sum(unit_rows(a) * unit_rows(k), axis=-1)
    # A cosine is known to rounding only, so 1 itself (p = 0) is never claimed.
    cosine = np.clip(dot, -1.0, _LARGEST_COSINE)
    log10_p = np.where(present, cosine_log10_pvalue(cosine, k.shape[-1]), 0.0)
    return _evidence(COSINE, cosine, log10_p, k.shape[-1])


def gaussian_test(features: ArrayLike, numbers: ArrayLike) -> Evidence:
    """Test one image against one key by t = <a, k> / |a|, which is N(0, 1) without the key.

    Exact too, but it needs keys of exactly N(0, 1) numbers where `cosine_test` needs only their direction.

    Parameters
    ----------
    features : array_like, shape (d,)
        Any finite real features computed from the image alone; their scale does not matter.
    numbers : array_like, shape (d,)
        The key's numbers, drawn i.i.d. N(0, 1) independently of the image.

    Returns
    -------
    Evidence
        Detector ``exact-gaussian``, statistic t, one-sided p-value. Features that are all zero carry no evidence:
        statistic 0 and p = 1.

    Raises
    ------
    ValueError
        If the shapes differ, d < 2, a value is complex or not finite, or the key is all zero.

    References
    ----------
    docs/exact-test.md has the proof.
    """
    a, k = _vectors(features, numbers)
    return gaussian_tests(a, k)[0]


def gaussian_tests(features: ArrayLike, numbers: ArrayLike) -> list[Evidence]:
    """Run `gaussian_test` on many images, many keys, or pairs of them.

    Parameters
    ----------
    features : array_like, shape (B, d) or (d,)
        One row per image; one row alone is compared with every key.
    numbers : array_like, shape (d,) or (B, d)
        One key for all, or one row per key.

    Returns
    -------
    list of Evidence
        B of them, in order. P-values are not corrected for their number: see `holm`.

    Raises
    ------
    ValueError
        As `gaussian_test`.
    """
    a, k = _pairs(features, numbers)
    t = np.sum(unit_rows(a) * k, axis=-1)
    log10_p = np.where(a.any(axis=-1), special.log_ndtr(-t) / np.log(10.0), 0.0)
    return _evidence(GAUSSIAN, t, log10_p, k.shape[-1])


def cosine_needed(degrees_of_freedom: int, alpha: float) -> float:
    """Return the cosine at which `cosine_test` reaches p = alpha: about z_alpha / sqrt(d) for a large d.

    Parameters
    ----------
    degrees_of_freedom : int
        Dimension d >= 2.
    alpha : float
        False-positive rate in (0, 1).

    Returns
    -------
    float
        Cosine in (-1, 1); an image at or above it is detected at `alpha`.

    Raises
    ------
    ValueError
        If d < 2 or `alpha` is not in (0, 1).
    """
    _check_dimension(degrees_of_freedom)
    if not 0 < alpha < 1:
        raise ValueError(f"alpha is {alpha}; pass a false-positive rate strictly between 0 and 1, such as 1e-6")
    if alpha > 0.5:
        return -cosine_needed(degrees_of_freedom, 1 - alpha)
    # C^2 ~ Beta(1/2, (d - 1) / 2), and its upper tail is 2 alpha: the complement keeps a tiny alpha's digits.
    return float(np.sqrt(special.betainccinv(0.5, (degrees_of_freedom - 1) / 2, 2 * alpha)))


def smallest_pvalue(degrees_of_freedom: int, cosine: float) -> float:
    """Return the smallest p-value that a key of d numbers can reach when inversion recovers it with this cosine.

    Use it to choose how many numbers a key needs. The unit is that of `Evidence.pvalue`.

    Parameters
    ----------
    degrees_of_freedom : int
        Dimension d >= 2.
    cosine : float
        Cosine between recovered and written numbers, in [-1, 1].

    Returns
    -------
    float
        P-value in (0, 1], rounded up to the smallest normal float where it would underflow.

    Raises
    ------
    ValueError
        As `cosine_log10_pvalue`.
    """
    return max(float(10.0 ** cosine_log10_pvalue(cosine, degrees_of_freedom)), sys.float_info.min)


def bonferroni(pvalue: float, hypotheses: int) -> float:
    """Correct the smallest p-value of a search for the number of hypotheses searched.

    Parameters
    ----------
    pvalue : float
        Smallest p-value found, in [0, 1].
    hypotheses : int
        Count m >= 1 of everything tried (rotations x scales x crops x keys), with what failed.

    Returns
    -------
    float
        min(1, m p): valid however the hypotheses depend on each other.

    Raises
    ------
    ValueError
        If `pvalue` is not in [0, 1] or `hypotheses` < 1.
    """
    if not 0 <= pvalue <= 1:
        raise ValueError(f"pvalue is {pvalue}; pass a number in [0, 1]")
    if hypotheses < 1:
        raise ValueError(f"hypotheses is {hypotheses}; count every hypothesis tried, at least 1")
    return min(1.0, float(pvalue) * hypotheses)


def holm(pvalues: ArrayLike) -> NDArray[np.float64]:
    """Return Holm-adjusted p-values: rejecting those <= alpha keeps P(any false rejection) <= alpha.

    Parameters
    ----------
    pvalues : array_like, shape (m,)
        One p-value per key, in [0, 1], in any order and with any dependence.

    Returns
    -------
    ndarray of float64, shape (m,)
        Adjusted p-values in the order given: max over ranks j <= i of min(1, (m - j + 1) p_(j)).

    Raises
    ------
    ValueError
        If `pvalues` is not one-dimensional or holds values outside [0, 1].

    References
    ----------
    S. Holm, "A simple sequentially rejective multiple test procedure", Scand. J. Statist. 6, 1979.
    """
    p = np.asarray(pvalues, dtype=np.float64)
    if p.ndim != 1:
        raise ValueError(f"pvalues has shape {p.shape}; pass one p-value per key, shape (m,)")
    if not np.all((p >= 0) & (p <= 1)):
        raise ValueError(f"pvalues (shape {p.shape}) holds values outside [0, 1]; drop the images that gave none")
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(np.arange(p.size, 0, -1) * p[order]))
    return adjusted


def _check_dimension(degrees_of_freedom: int) -> None:
    if degrees_of_freedom < 2:
        raise ValueError(f"degrees_of_freedom is {degrees_of_freedom}; the test needs a key of at least 2 numbers")


def _vectors(features: ArrayLike, numbers: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return real_array("features", features, (1,)), real_array("numbers", numbers, (1,))


def _pairs(features: ArrayLike, numbers: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    a, k = (np.atleast_2d(real_array(n, v, (1, 2))) for n, v in (("features", features), ("numbers", numbers)))
    if a.shape[-1] != k.shape[-1] or (a.shape[0] != k.shape[0] and 1 not in (a.shape[0], k.shape[0])):
        raise ValueError(
            f"features has shape {np.shape(features)} and numbers {np.shape(numbers)}; their last axes must match, and "
            "their first axes too unless one of them is a single vector"
        )
    _check_dimension(k.shape[-1])
    if not k.any(axis=-1).all():
        raise ValueError(f"numbers (shape {np.shape(numbers)}) is all zero in a row; such a key has no p-value")
    return a, k


def _evidence(
    detector: str, statistics: NDArray[np.float64], log10_pvalues: NDArray[np.float64], degrees_of_freedom: int
) -> list[Evidence]:
    pairs = zip(statistics.tolist(), log10_pvalues.tolist(), strict=True)
    return [Evidence.from_log10(detector, s, p, degrees_of_freedom) for s, p in pairs]
