"""The record that every test returns: statistic, p-value, degrees of freedom."""

from __future__ import annotations

import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class Evidence:
    """Result of one test of one key on one image.

    Attributes
    ----------
    detector : str
        Name of the detector: ``exact-cosine``, ``exact-gaussian``, ``exact-signs``, ``exact-votes`` or
        ``noncentral-chi-square``.
    statistic : float
        The detector's test statistic, signed so that a larger one always means 'more likely marked'.
    pvalue : float
        Probability of a statistic at least as large under the detector's null distribution, in (0, 1]. Below the smallest
        normal float (2.2e-308) it is rounded *up* to that float, so it stays valid and is never 0.
    log10_pvalue : float
        Base-10 logarithm of the p-value, <= 0, accurate where `pvalue` has underflowed.
    degrees_of_freedom : int
        Count of real numbers compared.
    """

    detector: str
    statistic: float
    pvalue: float
    log10_pvalue: float
    degrees_of_freedom: int

    @classmethod
    def from_log10(cls, detector: str, statistic: float, log10_pvalue: float, degrees_of_freedom: int) -> Evidence:
        """Build evidence from the logarithm of its p-value, so that the two fields cannot disagree.

        Parameters
        ----------
        detector, statistic, log10_pvalue, degrees_of_freedom
            As the attributes of the same name.

        Returns
        -------
        Evidence
            With ``pvalue = max(10 ** log10_pvalue, smallest normal float)``.

        Raises
        ------
        ValueError
            If `log10_pvalue` is positive or not a number.
        """
        if not log10_pvalue <= 0:
            raise ValueError(f"log10_pvalue is {log10_pvalue}; a p-value lies in (0, 1], so pass a value <= 0")
        pvalue = max(10.0 ** float(log10_pvalue), sys.float_info.min)
        return cls(detector, float(statistic), pvalue, float(log10_pvalue), int(degrees_of_freedom))
