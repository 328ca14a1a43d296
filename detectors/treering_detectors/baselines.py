"""The tests of the literature, for comparison: Tree-Ring's p-value and nearest-key classification.

Their p-values and thresholds model the noise of an unmarked image as white. On real images (crops, JPEGs, photographs)
it is coloured, so their real false-positive rate is not the nominal one. It is not on white noise either, because the
variance is estimated from the same bins. Print the real rate beside them, and decide by `treering_detectors.exact`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from treering_detectors.evidence import Evidence

NONCENTRAL_CHI_SQUARE = "noncentral-chi-square"

# Above this noncentrality scipy's series takes seconds and returns NaN; the saddlepoint is exact to rounding there.
_LARGEST_NONCENTRALITY = 1e8
# Its series returns 0 from about 1e-145 on, long before floats underflow.
_SMALLEST_TAIL = 1e-120


def noncentral_chi_square_test(coefficients: ArrayLike, pattern: ArrayLike, variance: float | None = None) -> Evidence:
    r"""Compute Tree-Ring's p-value: the probability that white noise lies as close to the pattern.

    With :math:`\sigma^2 = E|y|^2` the real and imaginary parts have variance :math:`\sigma^2 / 2` each, so for white noise

    .. math:: \eta = \sum_i \frac{|k_i - y_i|^2}{\sigma^2 / 2} \sim
              \chi^2\!\left(2n, \; \lambda = \sum_i \frac{|k_i|^2}{\sigma^2 / 2}\right),

    and the p-value is its left tail at :math:`\eta`.

    Parameters
    ----------
    coefficients : array_like of complex, shape (n,)
        y, the spectrum on the key's bins, in the pattern's units.
    pattern : array_like of complex, shape (n,)
        k, what the key wrote there.
    variance : float, optional
        :math:`\sigma^2` per complex bin, > 0 (1 for unit-normal noise in ortho units). Default, as published:
        estimated from the image as the mean of :math:`|y|^2` over the examined bins.

    Returns
    -------
    Evidence
        Detector ``noncentral-chi-square``, statistic :math:`-\eta`, 2n degrees of freedom. With an estimated variance
        :math:`\eta` has another distribution in each image: compare p-values then, not statistics. Coefficients that are all
        zero (and no `variance`) carry no evidence: statistic 0, p = 1.

    Raises
    ------
    ValueError
        If the shapes differ or are not (n,), n < 1, a value is not finite, or `variance` is not positive.

    Notes
    -----
    **Not exact on real images:** it assumes independent bins of equal variance. The paper writes n degrees of freedom;
    each complex bin is two real numbers, and the published code counts 2n. That code also takes the *centred* standard
    deviation of those 2n numbers, with an off-centre disc that counts dependent bins twice; here sigma^2 is the paper's
    uncentred mean, and the caller passes each independent bin once.

    Its errors go both ways. With an estimated variance and independent bins it is conservative, even on white noise. With
    a fixed variance, or bins that depend on each other, it detects marks where there are none.

    Below 1e-120 the logarithm comes from the Barndorff-Nielsen saddlepoint :math:`r^*` (relative error of p about
    0.1 / n), because scipy's series returns zero there.

    References
    ----------
    Y. Wen et al., "Tree-Ring Watermarks", NeurIPS 2023, arXiv 2305.20030, section 4, the p-value of
    :math:`\eta = \frac{1}{\sigma^2} \sum |k_i^* - y_i|^2`.
    """
    y, k = _complexes("coefficients", coefficients, 1), _complexes("pattern", pattern, 1)
    if y.shape != k.shape or y.size < 1:
        raise ValueError(f"coefficients has shape {y.shape} and pattern {k.shape}; pass both on the same n >= 1 bins")
    degrees = 2 * y.size
    if variance is None:
        variance = float(np.mean(np.abs(y) ** 2))
        if variance == 0:
            return Evidence.from_log10(NONCENTRAL_CHI_SQUARE, 0.0, 0.0, degrees)
    if not 0 < variance < np.inf:
        raise ValueError(f"variance is {variance}; pass E|y|^2 of one complex bin, positive and finite")
    eta = float(np.sum(np.abs(k - y) ** 2)) / (variance / 2)
    noncentrality = float(np.sum(np.abs(k) ** 2)) / (variance / 2)
    log10_p = _left_tail_log10(eta, degrees, noncentrality)
    return Evidence.from_log10(NONCENTRAL_CHI_SQUARE, -eta, log10_p, degrees)


def nearest_key(coefficients: ArrayLike, patterns: ArrayLike) -> tuple[int, NDArray[np.float64]]:
    """Return the key whose pattern has the smallest mean absolute difference (closed-set classification).

    It names a key for every image, unmarked ones included, and gives no p-value.

    Parameters
    ----------
    coefficients : array_like of complex, shape (n,)
        y, the spectrum on the keys' bins.
    patterns : array_like of complex, shape (m, n)
        What each of the m keys writes there, in the same units.

    Returns
    -------
    index : int
        Row of the nearest pattern; the first of equals.
    distances : ndarray of float64, shape (m,)
        Mean of |y - k| for each pattern k.

    Raises
    ------
    ValueError
        If the shapes do not match, there is no pattern or bin, or a value is not finite.

    References
    ----------
    S. Hong et al., NeurIPS 2024, arXiv 2409.18442, watermark classification.
    """
    indices, distances = nearest_keys(_complexes("coefficients", coefficients, 1)[None], patterns)
    return int(indices[0]), distances[0]


def nearest_keys(coefficients: ArrayLike, patterns: ArrayLike) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Run `nearest_key` on a batch.

    Parameters
    ----------
    coefficients : array_like of complex, shape (B, n)
        One spectrum per image.
    patterns : array_like of complex, shape (m, n)
        What each key writes there.

    Returns
    -------
    indices : ndarray of int, shape (B,)
        Nearest pattern per image.
    distances : ndarray of float64, shape (B, m)
        Mean of |y - k| per image and pattern.

    Raises
    ------
    ValueError
        As `nearest_key`.
    """
    y, k = _complexes("coefficients", coefficients, 2), _complexes("patterns", patterns, 2)
    if y.shape[1] != k.shape[1] or k.size < 1:
        raise ValueError(
            f"coefficients has shape {y.shape} and patterns {k.shape}; pass (B, n) and (m, n) on the same n >= 1 bins"
        )
    # One pattern at a time: (B, m, n) at once would not fit for thousands of keys.
    distances = np.stack([np.abs(y - pattern).mean(axis=1) for pattern in k], axis=1)
    return distances.argmin(axis=1), distances


def _complexes(name: str, value: ArrayLike, dimensions: int) -> NDArray[np.complex128]:
    array = np.asarray(value, dtype=np.complex128)
    if array.ndim != dimensions:
        raise ValueError(f"{name} has shape {array.shape}; pass {dimensions} axes, the last one over bins")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} (shape {array.shape}) holds NaN or infinity; such an image cannot be judged, skip it")
    return array


def _left_tail_log10(x: float, degrees: int, noncentrality: float) -> float:
    """Return log10 P(X <= x) for X ~ noncentral chi-square, by a saddlepoint approximation where scipy fails."""
    x = max(x, 1e-200)  # x = 0 is known to rounding only, so p = 0 is never claimed
    if noncentrality <= _LARGEST_NONCENTRALITY:
        from scipy.stats import ncx2

        try:
            tail = float(ncx2.cdf(x, degrees, noncentrality))
        except OverflowError:  # scipy before 1.17, for x next to 0
            tail = 0.0
        if tail > _SMALLEST_TAIL:
            return min(0.0, float(np.log10(tail)))
    # Barndorff-Nielsen: r* = w + log(v / w) / w. The cumulant generating function of X is K(t) = lambda t / (1 - 2t) -
    # (degrees / 2) log(1 - 2t), and K'(t) = x is quadratic in u = 1 / (1 - 2t). The difference t x - K(t) is grouped so
    # that it keeps its digits where t x and K(t) are huge and nearly equal.
    u = 2 * x / (degrees + np.sqrt(degrees**2 + 4 * noncentrality * x))
    t = (u - 1) / (2 * u)
    w = np.sign(t) * np.sqrt(max(0.0, 2 * t * (x - noncentrality * u) - degrees * np.log(u)))
    v = t * u * np.sqrt(4 * noncentrality * u + 2 * degrees)
    r = w + np.log(v / w) / w if abs(w) > 1e-3 else w  # the correction vanishes next to the mean
    return float(special.log_ndtr(r) / np.log(10.0))
