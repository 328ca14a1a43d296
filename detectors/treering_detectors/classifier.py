r"""The Fourier-domain classifier: which of m keys marked an image, or none, as a scikit-learn pipeline.

    features (B, d) --RingWhitening--> (B, d) --KeyClassifier--> probabilities of (key 1, ..., key m, none)

Whitening divides each number by the root mean square of its group, a ring of the spectrum, in the same image. Key k then
agrees with an image x in group g by

.. math:: A_g(x, k) = n_g^{-1/2} \sum_{i \in g} x_i k_i, \qquad
          s(x, k) = b + \sum_g w_g A_g(x, k), \qquad
          P(k \mid x) = \frac{e^{\alpha s(x, k) + \beta}}{1 + \sum_j e^{\alpha s(x, j) + \beta}} .

Weights w and b come from a logistic regression over pairs of images and keys (does this key mark this image?). Its features
are one agreement for each group, never a key's own numbers. So what is learned on some keys serves others and holds no
secret. :math:`a'_i = w_{g(i)} x_i n_g^{-1/2}` are features for the exact test of any key that the weights were not learned
from. :math:`\alpha, \beta` are fitted on a split of their own, which the regression never used.

The probabilities assume that keys, 'none' and kinds of images come as often as in training, so they are not p-values. Decide
by `treering_detectors.exact`, or calibrate the score with `treering_detectors.conformal`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupShuffleSplit
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

NONE = "none"
STATE = ("weights", "intercept", "scale", "shift")  # all that is learned


class RingWhitening(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Divide features by the root mean square of their group in the same image; groups of zeros stay zero.

    Parameters
    ----------
    groups : array_like of int, shape (d,)
        Group of each number, 0 .. G - 1, all in use.
    """

    def __init__(self, groups: ArrayLike) -> None:
        self.groups = groups

    def fit(self, X: ArrayLike, y: object = None) -> Self:
        """Check the shape; nothing is learned, because each image is whitened by itself."""
        self.n_features_in_ = _images(X, _groups(self.groups)).shape[1]
        return self

    def transform(self, X: ArrayLike) -> NDArray[np.float64]:
        """Whiten features, (B, d) -> (B, d)."""
        group = _groups(self.groups)
        x = _images(X, group)
        sizes = np.bincount(group)
        power = np.stack([np.bincount(group, weights=row, minlength=sizes.size) for row in x**2]) / sizes
        root = np.sqrt(np.where(power > 0, power, 1.0))
        return np.asarray(x / root[:, group])


class KeyClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Classify whitened features: which of m keys, or none of them.

    Parameters
    ----------
    names : sequence of str, length m
        Names of the keys; none is called ``none``.
    numbers : array_like, shape (m, d)
        The keys' numbers. They are secrets: `repr` does not show them, and `state` does not hold them.
    groups : array_like of int, shape (d,)
        As for `RingWhitening`.
    strength : float
        Inverse of the ridge penalty on the weights, scikit-learn's C.
    calibration_share : float
        Share of the images, drawn at random, that only calibrate; in (0, 1).
    seed : int
        Seed of that draw.

    Attributes
    ----------
    classes_ : ndarray of str, shape (m + 1,)
        The names, then ``none``.
    weights_ : ndarray, shape (G,)
    intercept_, scale_, shift_ : float
        b, alpha and beta of the module's formula.
    """

    def __init__(
        self,
        names: Sequence[str],
        numbers: ArrayLike,
        groups: ArrayLike,
        strength: float = 1.0,
        calibration_share: float = 0.3,
        seed: int = 0,
    ) -> None:
        self.names = names
        self.numbers = numbers
        self.groups = groups
        self.strength = strength
        self.calibration_share = calibration_share
        self.seed = seed

    def __repr__(self, *_: Any, **__: Any) -> str:
        """Show how many keys it has, and nothing else of them."""
        return f"KeyClassifier({len(self.names)} keys)"

    def fit(self, X: ArrayLike, y: Sequence[str], images: ArrayLike | None = None) -> Self:
        """Learn the groups' weights on one part of the images and calibrate on the other.

        Parameters
        ----------
        X : array_like, shape (B, d)
            Whitened features.
        y : sequence of str, length B
            The key in each image, or ``none``.
        images : array_like, shape (B,), optional
            Which image each row comes from: rows of one image, such as its attacked copies, stay in one part.

        Raises
        ------
        ValueError
            If shapes or labels do not fit, or one of the two parts lacks marked or unmarked images.
        """
        agreement = self._agreement(X)
        labels = self._positions(y, len(agreement))
        sources = np.arange(len(labels)) if images is None else np.asarray(images)
        learn, calibrate = _split(labels, len(self.names), sources, self.calibration_share, self.seed)
        hits = labels[learn, None] == np.arange(len(self.names))
        regression = LogisticRegression(C=self.strength, max_iter=1000)
        regression.fit(agreement[learn].reshape(-1, agreement.shape[2]), hits.ravel())
        self.weights_, self.intercept_ = regression.coef_[0], float(regression.intercept_[0])
        scores = agreement[calibrate] @ self.weights_ + self.intercept_
        self.scale_, self.shift_ = _calibrated(scores, labels[calibrate])
        self._settle()
        return self

    def decision_function(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return calibrated log-odds of each key against none: (B, d) -> (B, m)."""
        check_is_fitted(self)
        scores = self._agreement(X) @ self.weights_ + self.intercept_
        return np.asarray(self.scale_ * scores + self.shift_)

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return probabilities of the classes: (B, d) -> (B, m + 1), rows sum to 1."""
        return np.asarray(special.softmax(_with_none(self.decision_function(X)), axis=1))

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the name of the likeliest class of each image: (B, d) -> (B,)."""
        best = _with_none(self.decision_function(X)).argmax(axis=1)
        return np.asarray(self.classes_[best])

    def exact_features(self, X: ArrayLike) -> NDArray[np.float64]:
        """Weight whitened features as learned, (B, d) -> (B, d), for `cosine_tests` of keys that were not trained on."""
        check_is_fitted(self)
        group = _groups(self.groups)
        return np.asarray(_images(X, group) * (self.weights_ / np.sqrt(np.bincount(group)))[group])

    def state(self) -> dict[str, list[float] | float]:
        """Return what was learned, as numbers for a file; they hold nothing of a key."""
        check_is_fitted(self)
        return {
            "weights": self.weights_.tolist(),
            "intercept": self.intercept_,
            "scale": self.scale_,
            "shift": self.shift_,
        }

    def restore(self, state: Mapping[str, Any]) -> Self:
        """Set what `state` returned; names and numbers may be of other keys than it was learned on.

        Raises
        ------
        ValueError
            If numbers are missing, not finite, or not one weight per group, or the scale is not positive.
        """
        try:
            weights = np.array(state["weights"], dtype=np.float64)
            intercept, scale, shift = (float(state[name]) for name in STATE[1:])
        except (KeyError, TypeError) as error:
            raise ValueError(f"state lacks numbers of a classifier ({', '.join(STATE)})") from error
        if weights.shape != (_groups(self.groups).max() + 1,):
            raise ValueError(f"state has weights of shape {weights.shape}; the groups need one each")
        if not (np.isfinite(weights).all() and np.isfinite([intercept, shift]).all() and 0 < scale < np.inf):
            raise ValueError("state holds NaN or infinity, or a scale that is not positive")
        self.weights_, self.intercept_, self.scale_, self.shift_ = weights, intercept, scale, shift
        self._settle()
        return self

    def _settle(self) -> None:
        self.classes_ = np.array([*self.names, NONE])
        self.n_features_in_ = len(_groups(self.groups))

    def _agreement(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return A_g(x, k) of every image, key and group: (B, d) -> (B, m, G)."""
        group = _groups(self.groups)
        x, k = _images(X, group), _images(self.numbers, group, "numbers")
        if len(self.names) != len(k) or len(set(self.names)) < len(k) or NONE in self.names:
            raise ValueError(f"{len(self.names)} names for {len(k)} keys; name each once, and none of them {NONE!r}")
        sizes = np.bincount(group)
        parts = [x[:, group == g] @ k[:, group == g].T / np.sqrt(size) for g, size in enumerate(sizes)]
        return np.stack(parts, axis=2)

    def _positions(self, y: Sequence[str], count: int) -> NDArray[np.int64]:
        place = {name: i for i, name in enumerate([*self.names, NONE])}
        if len(y) != count:
            raise ValueError(f"X has {count} images and y {len(y)} labels; pass one label per image")
        if unknown := {*y} - place.keys():
            raise ValueError(f"y names {sorted(map(str, unknown))[:3]}, which are neither keys nor {NONE!r}")
        return np.array([place[label] for label in y])


def key_pipeline(names: Sequence[str], numbers: ArrayLike, groups: ArrayLike, **settings: Any) -> Pipeline:
    """Return a scikit-learn pipeline that whitens and classifies; parameters as those of `KeyClassifier`.

    ``fit(X, y, classify__images=...)``, ``predict_proba``, ``predict`` and ``score`` take features that are not whitened.
    """
    return Pipeline(
        [("whiten", RingWhitening(groups)), ("classify", KeyClassifier(names, numbers, groups, **settings))]
    )


def _groups(groups: ArrayLike) -> NDArray[np.int64]:
    group = np.asarray(groups)
    if group.ndim != 1 or not np.issubdtype(group.dtype, np.integer) or group.size == 0 or group.min() < 0:
        raise ValueError(f"groups has shape {group.shape} and type {group.dtype}; pass (d,) whole numbers from 0")
    if not np.bincount(group).all():
        raise ValueError("groups leaves out a number; count them 0, 1, 2, ...")
    return group.astype(np.int64)


def _images(X: ArrayLike, group: NDArray[np.int64], name: str = "X") -> NDArray[np.float64]:
    x = np.asarray(X, dtype=np.float64)
    if x.ndim != 2 or x.shape[1] != group.size:
        raise ValueError(f"{name} has shape {x.shape}; pass (B, {group.size}), as many numbers as groups")
    if not np.isfinite(x).all():
        raise ValueError(f"{name} (shape {x.shape}) holds NaN or infinity; such an image cannot be judged, skip it")
    return x


def _split(
    labels: NDArray[np.int64], none: int, sources: NDArray[Any], share: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return rows to learn from and rows to calibrate on: no image in both, marked and unmarked ones in each."""
    if not 0 < share < 1:
        raise ValueError(f"calibration_share is {share}; pass a share strictly between 0 and 1")
    learn, calibrate = [], []
    for kind in (labels == none, labels != none):
        rows = np.flatnonzero(kind)
        if len(np.unique(sources[rows])) < 2:
            raise ValueError(
                "y needs at least 2 unmarked and 2 marked images: some to learn from, some to calibrate on"
            )
        splitter = GroupShuffleSplit(n_splits=1, test_size=share, random_state=seed)
        first, second = next(splitter.split(rows, groups=sources[rows]))
        learn.append(rows[first])
        calibrate.append(rows[second])
    return np.concatenate(learn), np.concatenate(calibrate)


def _with_none(log_odds: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.concatenate([log_odds, np.zeros((len(log_odds), 1))], axis=1)


def _calibrated(scores: NDArray[np.float64], labels: NDArray[np.int64]) -> tuple[float, float]:
    """Return the scale alpha and shift beta of largest posterior probability, with priors around 1 and 0.

    log alpha ~ N(0, 1) and beta ~ N(0, 2^2). Without a prior a few perfectly separated images give an infinite scale.
    Targets smoothed as Platt's were tried instead: with five images they put a seventh of the probability on wrong classes.
    """
    rows = np.arange(len(labels))

    def loss(parameters: NDArray[np.float64]) -> float:
        log_odds = _with_none(np.exp(parameters[0]) * scores + parameters[1])
        likelihood = np.sum(special.log_softmax(log_odds, axis=1)[rows, labels])
        return float(parameters[0] ** 2 / 2 + parameters[1] ** 2 / 8 - likelihood)

    best = optimize.minimize(loss, np.zeros(2), method="L-BFGS-B", bounds=[(-7, 7), (None, None)])
    return float(np.exp(best.x[0])), float(best.x[1])
