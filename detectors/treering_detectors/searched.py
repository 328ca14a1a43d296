r"""The exact test over many hypotheses about what was done to an image, with the correction that keeps it exact.

Each hypothesis h gives its own features a_h, from the image alone, and with them an exact p_h. The smallest of
them is not a p-value. With weights w_h that are fixed before the image is known and sum to at most 1, this is one:

.. math:: p = \min_h p_h / w_h, \qquad P(p \le \alpha) \le \sum_h P(p_h \le w_h \alpha) = \alpha \sum_h w_h \le \alpha

however the hypotheses depend on each other (weighted Bonferroni; Genovese, Roeder and Wasserman, Biometrika 93, 2006).
Likely hypotheses get large weights. Stopping early, or testing only some of them because of what others gave, costs nothing:
the sum over all that *could* have been tested still bounds it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from treering_detectors.arrays import real_array, unit_rows
from treering_detectors.evidence import Evidence
from treering_detectors.exact import COSINE, cosine_log10_pvalue

SEARCHED = f"{COSINE}-searched"


@dataclass(frozen=True)
class Searched:
    """Result of a search: the corrected evidence, and the index of the hypothesis with the smallest corrected p-value."""

    evidence: Evidence
    winner: int


def searched_cosine_test(features: ArrayLike, numbers: ArrayLike, weights: ArrayLike) -> Searched:
    """Test one image against one key under many hypotheses, and correct for their number.

    Parameters
    ----------
    features : array_like, shape (m, d)
        Features under each hypothesis, finite, from the image alone; a row of zeros carries no evidence.
    numbers : array_like, shape (d,)
        The key's numbers, as for `cosine_test`.
    weights : array_like, shape (m,)
        Share of the false-positive rate that each hypothesis may use, positive, fixed before the image is
        known. Their sum may be below 1 if more hypotheses are to be tested later.

    Returns
    -------
    Searched
        The winner's cosine, and min over h of p_h / w_h, at most 1.

    Raises
    ------
    ValueError
        If shapes do not match, values are not finite, weights are not positive or sum to more than 1, or the key is zero.
    """
    a, k, w = (
        real_array(name, value, (axes,))
        for name, value, axes in (("features", features, 2), ("numbers", numbers, 1), ("weights", weights, 1))
    )
    if k.shape != a.shape[1:] or w.shape != a.shape[:1] or not len(a):
        raise ValueError(
            f"features has shape {a.shape}, numbers {k.shape} and weights {w.shape}; pass (m, d), (d,) and (m,), m >= 1"
        )
    if not k.any():
        raise ValueError(f"numbers (shape {k.shape}) is all zero; such a key has no p-value")
    if not (w > 0).all() or w.sum() > 1 + 1e-9:
        raise ValueError(f"weights must be positive and sum to at most 1; these sum to {w.sum():.6g}")
    cosine = np.clip(unit_rows(a) @ unit_rows(k), -1.0, np.nextafter(1.0, 0.0))
    log10 = weighted_bonferroni(np.where(a.any(axis=1), cosine_log10_pvalue(cosine, len(k)), 0.0), w)
    winner = int(log10.argmin())
    return Searched(Evidence.from_log10(SEARCHED, float(cosine[winner]), float(log10[winner]), len(k)), winner)


def weighted_bonferroni(log10_pvalues: ArrayLike, weights: ArrayLike) -> NDArray[np.float64]:
    """Return log10 of min(1, p / w) for log10 of p-values and for weights of one shape."""
    return np.minimum(0.0, np.asarray(log10_pvalues, dtype=np.float64) - np.log10(np.asarray(weights)))
