"""Detection, false-positive and identification rates of scores, at thresholds fixed beforehand."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from treering_detectors import Rate, mcnemar, roc, threshold_at

from treering_verify.report import format_pvalue
from treering_verify.report.findings import Cell

Scores = NDArray[np.float64]

ALPHAS = (1e-2, 1e-3)
"""False-positive rates that a calibration can fix."""
STRICT = 1e-6
"""A rate that only a p-value can resolve."""


def exact_limits() -> dict[float, float]:
    """Return the threshold of -log10 p for each false-positive rate; an exact p-value needs no calibration."""
    return {alpha: -math.log10(alpha) for alpha in (*ALPHAS, STRICT)}


def calibrated_limits(null_scores: Scores) -> dict[float, float]:
    """Return the threshold for each false-positive rate, from scores of unmarked images that are not judged themselves.

    A conformal threshold, which must be exceeded; infinite where there are too few scores for the rate.
    """
    return {alpha: float(np.nextafter(threshold_at(null_scores, alpha).value, np.inf)) for alpha in ALPHAS}


@dataclass(frozen=True, eq=False)
class Series:
    """Scores of one detector under one condition, where larger means more likely marked.

    Attributes
    ----------
    marked, unmarked : (n,), (m,)
        Either may be empty.
    limits : mapping
        Threshold by false-positive rate; infinite where the calibration cannot resolve the rate.
    rivals : (n,), optional
        The best score of any other key on each marked image.
    keys : int
        Number of keys, the images' own and all others.
    """

    marked: Scores
    unmarked: Scores
    limits: Mapping[float, float]
    rivals: Scores | None = None
    keys: int = field(default=1)

    def tpr(self, alpha: float) -> Rate | None:
        """Return the rate of marked images that are detected; None without a threshold for this rate, or without images."""
        return self._reached(self.marked, alpha)

    def fpr(self, alpha: float) -> Rate | None:
        """Return the rate of unmarked images, processed alike, that exceed the same threshold."""
        return self._reached(self.unmarked, alpha)

    @property
    def auc(self) -> float | None:
        """Area under the curve against unmarked images that were processed alike."""
        return roc(self.marked, self.unmarked).auc if len(self.marked) and len(self.unmarked) else None

    def refitted(self, alpha: float) -> Rate | None:
        """Return the TPR at a threshold fitted to these same unmarked images, as the literature does."""
        return roc(self.marked, self.unmarked).tpr_at(alpha) if len(self.marked) and len(self.unmarked) else None

    @property
    def named(self) -> Rate | None:
        """Rate of marked images whose own key is the nearest of all: identification in a closed set."""
        if self.rivals is None:
            return None
        return Rate(int((self.marked > self.rivals).sum()), len(self.marked))

    def named_at(self, alpha: float) -> Rate | None:
        """Return the rate of images named correctly at p <= alpha over all keys; for scores that are -log10 p."""
        if self.rivals is None:
            return None
        significant = self.marked - math.log10(self.keys) >= -math.log10(alpha)
        return Rate(int((significant & (self.marked > self.rivals)).sum()), len(self.marked))

    def _reached(self, scores: Scores, alpha: float) -> Rate | None:
        limit = self.limits.get(alpha, math.inf)
        if not len(scores) or math.isinf(limit):
            return None
        return Rate(int((scores >= limit).sum()), len(scores))


def pooled(rates: Sequence[Rate | None]) -> Rate | None:
    """Return the rate over several conditions together; None if one is missing."""
    known = [rate for rate in rates if rate is not None]
    if not known or len(known) < len(rates):
        return None
    return Rate(sum(rate.successes for rate in known), sum(rate.trials for rate in known))


def mean_of(values: Sequence[float | None]) -> float | None:
    """Return the mean over several conditions; None if one is missing."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known and len(known) == len(values) else None


def paired_cells(log10_pvalues: Sequence[float], others: Sequence[float]) -> tuple[Cell, ...]:
    """Return the cells of a line that compares two ways of judging the same marked images, at `STRICT`.

    Parameters
    ----------
    log10_pvalues, others : (n,)
        log10 p of each image, by the one way and by the other.

    Returns
    -------
    tuple of Cell
        Found by the one, by the other, by only one of both, McNemar's exact p, and both medians of p.
    """
    one, other = np.asarray(log10_pvalues), np.asarray(others)
    found, before = one <= math.log10(STRICT), other <= math.log10(STRICT)
    return (
        Rate(int(found.sum()), len(one)),
        Rate(int(before.sum()), len(one)),
        *only_cells(found, before),
        format_pvalue(float(np.median(one))),
        format_pvalue(float(np.median(other))),
    )


def only_cells(found: NDArray[np.bool_], before: NDArray[np.bool_]) -> tuple[str, str]:
    """Return how many images only the one way finds, and only the other, and McNemar's exact p."""
    return f"{int((found & ~before).sum())}, {int((before & ~found).sum())}", f"{mcnemar(found, before).pvalue:.2g}"
