"""Judge images under their keys: p-values, published statistics, and the best score of any other key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from treering_verify.detection.calibration.registry import DETECTORS
from treering_verify.detection.calibration.scores import score
from treering_verify.detection.judge import DEFAULT_ALPHA, Judge
from treering_verify.detection.search.grid import IDENTITY
from treering_verify.detection.search.settings import AUTO
from treering_verify.detection.verification import key_test
from treering_verify.inversion.recovery import InversionOptions, recover_noise, recover_with_naive
from treering_verify.media.conversion import to_tensor
from treering_verify.models import LatentModel
from treering_verify.watermark.embedding import extract, features, key_evidence
from treering_verify.watermark.keys.key import Family, Key
from treering_verify.watermark.patterns import PATTERNS
from treering_verify.watermark.patterns.base import SIGNS

if TYPE_CHECKING:
    import torch
    from PIL import Image

    Arrays = dict[str, NDArray[Any]]

KEYS = 2048
"""Keys in an identification: the image's own and 2047 that mark no image."""
EXACT, SEARCHED = "exact", "exact, with search"
BLANK = "blank"
"""Whether nearly all of an image has one colour, such as white after strong brightening, so that no key can be found."""
_NEARLY_ALL = 0.95


@dataclass(frozen=True, eq=False)
class Recovered:
    """Images (n, 3, H, W), their noise estimates (n, C, h, w), and the estimates that published statistics use."""

    pixels: torch.Tensor
    noise: torch.Tensor
    raw: torch.Tensor | None
    inversion: InversionOptions


def recover(
    model: LatentModel, images: Sequence[Image.Image], inversion: InversionOptions, *, published: bool
) -> Recovered:
    """Invert images to noise estimates; for published statistics also by `naive` noise inversion."""
    import torch

    pixels = torch.cat([to_tensor(image) for image in images])
    if not published:
        return Recovered(pixels, recover_noise(model, pixels, inversion)[0], None, inversion)
    return Recovered(pixels, *recover_with_naive(model, pixels, inversion), inversion)


@dataclass(frozen=True, eq=False)
class Rivals:
    """Keys of one family, (2047, d), that mark no image."""

    family: Family
    numbers: NDArray[np.float64]

    @classmethod
    def draw(cls, family: Family, seed: int) -> Rivals | None:
        """Draw the keys; None for patterns of keystreams and codes, whose keys are not compared by one product."""
        pattern = PATTERNS[family.pattern]
        if not pattern.cosine and pattern.distribution is not SIGNS:
            return None
        numbers = np.random.default_rng(seed).standard_normal((KEYS - 1, family.degrees_of_freedom))
        return cls(family, numbers if pattern.cosine else np.where(numbers >= 0, 1.0, -1.0))

    @cached_property
    def patterns(self) -> NDArray[np.complex128]:
        """Coefficients that each key writes on its bins, (2047, n)."""
        coefficients = PATTERNS[self.family.pattern].coefficients
        assert coefficients is not None  # all patterns that are compared by a product live in a spectrum
        return np.stack([coefficients(self.family, row).ravel() for row in self.numbers])

    def log10_pvalues(self, noise: torch.Tensor) -> NDArray[np.float64]:
        """Return the smallest log10 p of these keys on each image, uncorrected, (n,)."""
        from treering_detectors import cosine_log10_pvalue, sign_weights, signs_log10_pvalue

        a = features(extract(noise, self.family), self.family)
        if PATTERNS[self.family.pattern].cosine:
            sizes = np.linalg.norm(a, axis=1, keepdims=True), np.linalg.norm(self.numbers, axis=1, keepdims=True)
            cosines = (a / np.where(sizes[0] > 0, sizes[0], 1.0)) @ (self.numbers / sizes[1]).T
            return cosine_log10_pvalue(cosines.max(axis=1), self.family.degrees_of_freedom)
        weights = sign_weights(a)
        totals = (weights * np.where(a >= 0, 1, -1)) @ self.numbers.T
        return np.array(
            [signs_log10_pvalue(row, round(total)) for row, total in zip(weights, totals.max(axis=1), strict=True)]
        )

    def distances(self, raw: torch.Tensor) -> NDArray[np.float64]:
        """Return the score of the nearest key by the published distance, larger meaning nearer, (n,)."""
        from treering_detectors import nearest_keys

        read = extract(raw, self.family)
        return -nearest_keys(read.reshape(len(read), -1), self.patterns)[1].min(axis=1)


def evidence_of_each(model: LatentModel, found: Recovered, keys: Sequence[Key], *, searched: bool) -> Arrays:
    """Judge image i under key i.

    Returns
    -------
    dict of (n,) arrays
        `exact`: log10 p; `statistic`; `blank`: whether nearly all of the image is one colour; with `searched` also the
        p-value of the default search, corrected for it; the scores of all detectors where the noise for them is there and
        the pattern has coefficients.
    """
    evidence = [key_evidence(noise[None], key)[0] for noise, key in zip(found.noise, keys, strict=True)]
    arrays: Arrays = {
        EXACT: np.array([e.log10_pvalue for e in evidence]),
        "statistic": np.array([e.statistic for e in evidence]),
        BLANK: np.array([_commonest(image) >= _NEARLY_ALL for image in found.pixels]),
    }
    if searched:
        as_they_are = np.minimum(
            arrays[EXACT] - np.log10(IDENTITY), 0.0
        )  # where these are detected, nothing is searched
        arrays[SEARCHED] = np.array(
            [
                known if known <= np.log10(DEFAULT_ALPHA) else _searched(model, pixels, key, found.inversion)
                for known, pixels, key in zip(as_they_are, found.pixels.split(1), keys, strict=True)
            ]
        )
    if found.raw is not None and PATTERNS[keys[0].pattern].coefficients is not None:
        for detector in DETECTORS:
            arrays[detector] = np.array(
                [score(detector, raw[None], [key])[0, 0] for raw, key in zip(found.raw, keys, strict=True)]
            )
    return arrays


def _searched(model: LatentModel, pixels: torch.Tensor, key: Key, inversion: InversionOptions) -> float:
    """Return log10 p of an image (1, 3, H, W) by the default of verification, corrected for its search."""
    judge = Judge.of(model, key_test(key, model), inversion=inversion, search=AUTO)
    return next(judge.find(pixels)).evidence[0].log10_adjusted


def nearest_rivals(found: Recovered, rivals: Rivals | None) -> Arrays:
    """Return the best scores of other keys: `rival exact`, a log10 p, and `rival distance`, where the pattern has them."""
    if rivals is None:
        return {}
    arrays: Arrays = {f"rival {EXACT}": rivals.log10_pvalues(found.noise)}
    if found.raw is not None:
        arrays["rival distance"] = rivals.distances(found.raw)
    return arrays


def _commonest(image: torch.Tensor) -> float:
    """Return the share of pixels that have the commonest colour of an image (3, H, W)."""
    levels = ((image + 1) * 127.5).round().clamp(0, 255).long().flatten(1)
    colours = (levels[0] << 16) + (levels[1] << 8) + levels[2]
    return float(colours.unique(return_counts=True)[1].max()) / len(colours)
