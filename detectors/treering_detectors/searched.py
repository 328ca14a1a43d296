r"""The exact test over many hypotheses about what was done to an image, with the correction that keeps it exact.

Each hypothesis h gives its own features a_h, from the image alone, and with them an exact p_h. The smallest of
them is not a p-value. With weights w_h that are fixed before the image is known and sum to at most 1, this is one:

.. math:: p = \min_h p_h / w_h, \qquad P(p \le \alpha) \le \sum_h P(p_h \le w_h \alpha) = \alpha \sum_h w_h \le \alpha

however the hypotheses depend on each other (weighted Bonferroni; Genovese, Roeder and Wasserman, Biometrika 93, 2006).
Likely hypotheses get large weights. Stopping early, or testing only some of them because of what others gave, costs nothing:
the sum over all that *could* have been tested still bounds it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def weighted_bonferroni(log10_pvalues: ArrayLike, weights: ArrayLike) -> NDArray[np.float64]:
    """Return log10 of min(1, p / w) for log10 of p-values and for weights of one shape."""
    return np.minimum(0.0, np.asarray(log10_pvalues, dtype=np.float64) - np.log10(np.asarray(weights)))
