"""Detection and false-positive rates with exact intervals, confusion matrices, ROC curves."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special


def clopper_pearson(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the exact two-sided confidence interval of a binomial proportion.

    Parameters
    ----------
    successes, trials : int
        0 <= successes <= trials.
    confidence : float
        In (0, 1); the coverage is at least this, whatever the true proportion.

    Returns
    -------
    low, high : float
        In [0, 1]; (0, 1) if there are no trials.

    Raises
    ------
    ValueError
        If the counts are impossible or `confidence` is not in (0, 1).

    References
    ----------
    C. J. Clopper, E. S. Pearson, "The use of confidence or fiducial limits", Biometrika 26, 1934.
    """
    _check_counts(successes, trials)
    low, high = _clopper_pearson(np.asarray([successes]), trials, confidence)
    return float(low[0]), float(high[0])


@dataclass(frozen=True)
class Rate:
    """A proportion with its counts; prints as ``200/200 = 100.0 % [98.2, 100.0]``.

    Attributes
    ----------
    successes, trials : int
        0 <= successes <= trials; without trials the value is NaN and the interval [0, 1].

    Raises
    ------
    ValueError
        If the counts are impossible.
    """

    successes: int
    trials: int

    def __post_init__(self) -> None:
        """Raise ValueError for impossible counts."""
        _check_counts(self.successes, self.trials)

    @property
    def value(self) -> float:
        """The proportion in [0, 1], or NaN without trials."""
        return self.successes / self.trials if self.trials else float("nan")

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Return the Clopper-Pearson interval: see `clopper_pearson`."""
        return clopper_pearson(self.successes, self.trials, confidence)

    def __str__(self) -> str:
        """Show counts, percentage and 95 % interval."""
        low, high = self.interval()
        percentage = f"{100 * self.value:.1f} %" if self.trials else "n/a"
        return f"{self.successes}/{self.trials} = {percentage} [{100 * low:.1f}, {100 * high:.1f}]"


@dataclass(frozen=True, eq=False)
class ConfusionMatrix:
    """Counts of actual against predicted labels.

    Attributes
    ----------
    labels : tuple
        The m labels, in the order of rows and columns.
    counts : ndarray of int, shape (m, m)
        Rows are actual, columns predicted; read-only.
    """

    labels: tuple[Hashable, ...]
    counts: NDArray[np.int64]

    @property
    def accuracy(self) -> Rate:
        """Rate of correct predictions, those on the diagonal."""
        return Rate(int(np.trace(self.counts)), int(self.counts.sum()))

    def recall(self, label: Hashable) -> Rate:
        """Return the rate at which images of `label` are predicted as such; ValueError for an unknown label."""
        if label not in self.labels:
            raise ValueError(f"label {label!r} is not one of {self.labels}")
        row = self.labels.index(label)
        return Rate(int(self.counts[row, row]), int(self.counts[row].sum()))

    @property
    def rates(self) -> dict[Hashable, Rate]:
        """Recall of each label, in order."""
        return {label: self.recall(label) for label in self.labels}


def confusion_matrix(
    actual: Sequence[Hashable], predicted: Sequence[Hashable], labels: Sequence[Hashable]
) -> ConfusionMatrix:
    """Count predicted labels against actual ones.

    Parameters
    ----------
    actual, predicted : sequence, length N >= 1
        One label for each image. For an open set include one for 'no key', such as ``None``.
    labels : sequence
        All labels, distinct, in the order of rows and columns.

    Returns
    -------
    ConfusionMatrix
        With rows and columns in the order of `labels`.

    Raises
    ------
    ValueError
        If the lengths differ or are zero, labels repeat, or a label is not in `labels` (it would be dropped silently).
    """
    from sklearn.metrics import confusion_matrix as count

    if len(actual) != len(predicted) or len(actual) == 0:
        raise ValueError(f"actual has {len(actual)} labels and predicted {len(predicted)}; pass one of each per image")
    position = {label: i for i, label in enumerate(labels)}
    if len(position) != len(labels):
        raise ValueError(f"labels holds repeats in {tuple(labels)}; pass each label once")
    if unknown := {*actual, *predicted} - position.keys():
        raise ValueError(f"labels lacks {sorted(map(repr, unknown))}, which actual or predicted use; add them")
    # By position: scikit-learn cannot sort labels of mixed types (a key's name and None).
    rows, columns = ([position[label] for label in side] for side in (actual, predicted))
    # With one position too many, which is cut off again: it warns of a single label even if the caller named them all.
    counts = np.asarray(count(rows, columns, labels=np.arange(len(labels) + 1))[:-1, :-1], dtype=np.int64)
    counts.flags.writeable = False
    return ConfusionMatrix(tuple(labels), counts)


@dataclass(frozen=True, eq=False)
class Roc:
    """Empirical ROC curve; every array runs along falling thresholds, from (0, 0) to (1, 1).

    Attributes
    ----------
    fpr, tpr : ndarray of float64, shape (p,)
        Rates of unmarked and marked images with score >= threshold.
    thresholds : ndarray of float64, shape (p,)
        Falling; the first is infinite (nothing detected).
    auc : float
        Area under the curve: P(marked score > unmarked score) + P(equal) / 2.
    marked, unmarked : int
        Counts of images.
    """

    fpr: NDArray[np.float64]
    tpr: NDArray[np.float64]
    thresholds: NDArray[np.float64]
    auc: float
    marked: int
    unmarked: int

    def threshold_at(self, fpr: float) -> float:
        """Return the lowest threshold whose empirical false-positive rate does not exceed `fpr`.

        Parameters
        ----------
        fpr : float
            Target in [0, 1]. The data cannot resolve one below 1 / `unmarked`: the threshold is then above every
            unmarked score, so there are no false positives in the sample, but there may be in truth.

        Returns
        -------
        float
            An image is detected at score >= threshold. Infinite if the largest score is an unmarked image's and no
            false positive is allowed.

        Raises
        ------
        ValueError
            If `fpr` is not in [0, 1].
        """
        return float(self.thresholds[self._index(fpr)])

    def tpr_at(self, fpr: float) -> Rate:
        """Return the true-positive rate at the threshold of a false-positive rate, never interpolated.

        Parameters
        ----------
        fpr : float
            Target in [0, 1], as for `threshold_at`.

        Returns
        -------
        Rate
            Detected among the marked images. Its interval takes the threshold as given.

        Raises
        ------
        ValueError
            If `fpr` is not in [0, 1].
        """
        return Rate(round(float(self.tpr[self._index(fpr)]) * self.marked), self.marked)

    def band(self, confidence: float = 0.95) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return a pointwise Clopper-Pearson band of the true-positive rate.

        Parameters
        ----------
        confidence : float
            In (0, 1), for each threshold by itself.

        Returns
        -------
        low, high : ndarray of float64, shape (p,)
            Along `tpr`.

        Raises
        ------
        ValueError
            If `confidence` is not in (0, 1).
        """
        return _clopper_pearson(np.rint(self.tpr * self.marked), self.marked, confidence)

    def _index(self, fpr: float) -> int:
        if not 0 <= fpr <= 1:
            raise ValueError(f"fpr is {fpr}; pass a false-positive rate in [0, 1]")
        return int(np.searchsorted(self.fpr, fpr, side="right")) - 1  # last of equals: the largest tpr at that fpr


def roc(marked_scores: ArrayLike, unmarked_scores: ArrayLike) -> Roc:
    """Compute the empirical ROC curve of scores where larger means 'more likely marked'.

    Parameters
    ----------
    marked_scores, unmarked_scores : array_like, shapes (N,) and (M,)
        Finite scores, at least one of each; `Evidence.statistic` or ``-Evidence.log10_pvalue``.

    Returns
    -------
    Roc
        With one point per distinct score, and (0, 0).

    Raises
    ------
    ValueError
        If a side is empty, not one-dimensional or not finite.
    """
    from sklearn.metrics import auc, roc_curve

    sides = {"marked_scores": marked_scores, "unmarked_scores": unmarked_scores}
    arrays = {name: np.asarray(value, dtype=np.float64) for name, value in sides.items()}
    for name, scores in arrays.items():
        if scores.ndim != 1 or scores.size == 0:
            raise ValueError(f"{name} has shape {scores.shape}; pass at least one score, shape (N,)")
        if not np.isfinite(scores).all():
            raise ValueError(f"{name} (shape {scores.shape}) holds NaN or infinity; leave out images without a score")
    marked, unmarked = arrays.values()
    truth = np.repeat([1, 0], [marked.size, unmarked.size])
    curve = roc_curve(truth, np.concatenate([marked, unmarked]), drop_intermediate=False)
    for array in curve:
        array.flags.writeable = False
    fpr, tpr, thresholds = curve
    return Roc(fpr, tpr, thresholds, float(auc(fpr, tpr)), marked.size, unmarked.size)


def _check_counts(successes: int, trials: int) -> None:
    if not 0 <= successes <= trials:
        raise ValueError(f"successes is {successes} of {trials} trials; pass 0 <= successes <= trials")


def _clopper_pearson(
    successes: NDArray[np.generic], trials: int, confidence: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}; pass a probability strictly between 0 and 1, such as 0.95")
    k = np.asarray(successes, dtype=np.float64)
    tail = (1 - confidence) / 2
    with np.errstate(invalid="ignore"):
        low = np.where(k > 0, special.betaincinv(k, trials - k + 1, tail), 0.0)
        high = np.where(k < trials, special.betainccinv(k + 1, trials - k, tail), 1.0)
    return low, high
