"""Search: was a key's image turned, mirrored or cropped since? First on the spectrum, then, for the best guesses, again.

Every hypothesis about the geometry, or about a video's beginning, is tested on the noise that was recovered from the image
as it is (`hypotheses`), which costs a thousandth of an inversion each. Those that look best are undone in the image, whose
noise is then recovered again: far more evidence, for one inversion each. All p-values are corrected for all that could have
been tested, by weights fixed beforehand (`treering_detectors.searched_cosine_test`): half of alpha for the image
as it is, the rest for the search.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from treering_verify.detection.search.geometry import (
    IDENTITY_WEIGHT,
    KINDS,
    Hypothesis,
    candidates,
    check_kinds,
    coefficients,
    mask,
)
from treering_verify.detection.search.video_offsets import Timeline
from treering_verify.errors import UsageError
from treering_verify.media.blank_areas import mask_occluded
from treering_verify.watermark.embedding import extract, features
from treering_verify.watermark.keys.key import Key
from treering_verify.watermark.patterns import PATTERNS

if TYPE_CHECKING:
    import torch
    from treering_detectors import Evidence


@dataclass(frozen=True)
class Search:
    """What is searched for, and how much may be spent on it.

    Attributes
    ----------
    kinds : tuple of {"flip", "rotation", "crop", "time"}
        "flip" and "rotation" together include turns of the mirrored image. Crops are those that were scaled up again.
        "time": videos that lost their first frames, or begin with others; where a model makes images, all but that.
    budget : int
        Hypotheses per image, at most, for which the noise is recovered once more; 0 leaves it at the spectrum.

    Raises
    ------
    UsageError
        If a kind does not exist, there is none, or the budget is negative.
    """

    kinds: tuple[str, ...] = KINDS
    budget: int = 2

    def __post_init__(self) -> None:
        object.__setattr__(self, "kinds", check_kinds(self.kinds))
        if not self.kinds or self.budget < 0:
            raise UsageError(f"search needs at least one of {', '.join(KINDS)}, and a budget of 0 or more")

    @property
    def stages(self) -> int:
        """How many times each hypothesis may be tested, and so by how much its weight is divided."""
        return 2 if self.budget else 1

    def check_time(self, name: str, timeline: Timeline | None) -> None:
        """UsageError if "time" was asked for by name, and a model of that name makes nothing that can begin late."""
        if timeline is None and "time" in self.kinds and self.kinds != KINDS:
            others = ", ".join(kind for kind in KINDS if kind != "time")
            raise UsageError(
                f"time is searched in videos, and {name} makes images, or videos of too few frames: "
                f"choose from {others}, or all"
            )


@dataclass(frozen=True)
class Guess:
    """A hypothesis with the evidence for it, corrected for the whole search, and its share of alpha at each stage."""

    evidence: Evidence
    hypothesis: Hypothesis
    weight: float


def as_it_is(evidence: Evidence, key: Key) -> Guess:
    """Correct the evidence of the untouched image for the search that goes with it, if its pattern can be searched."""
    from treering_detectors import Evidence, weighted_bonferroni

    if not PATTERNS[key.pattern].searched:
        return Guess(evidence, Hypothesis(), 1.0)
    log10 = float(weighted_bonferroni(evidence.log10_pvalue, IDENTITY_WEIGHT))
    made = Evidence.from_log10(evidence.detector, evidence.statistic, log10, evidence.degrees_of_freedom)
    return Guess(made, Hypothesis(), IDENTITY_WEIGHT)


def guess(
    noise_hat: torch.Tensor, keys: Sequence[Key], search: Search, timeline: Timeline | None = None
) -> list[list[Guess]]:
    """Test every hypothesis for each key on the noise of one image, (C, h, w): per key the best few, the best first.

    None for keys whose pattern cannot be searched on the spectrum. Videos with a timeline are searched in time too.
    """
    from treering_detectors import searched_cosine_test

    families: dict[object, list[int]] = {}
    for position, key in enumerate(keys):
        if PATTERNS[key.pattern].searched:
            families.setdefault(key.family, []).append(position)
    best: list[list[Guess]] = [[] for _ in keys]
    for members in families.values():
        first = keys[members[0]]
        groups = candidates(first.outer_radius, search.kinds, timeline)
        for block, values in coefficients(noise_hat, first, groups):
            hypotheses = [(group, i) for group in block for i in range(len(group.shifts))]
            weights = np.array([group.weight for group, _ in hypotheses]) / search.stages
            estimates = features(values, first)
            for position in members:
                found = searched_cosine_test(estimates, keys[position].numbers, weights)
                group, i = hypotheses[found.winner]
                best[position].append(Guess(found.evidence, group[i], float(weights[found.winner])))
    keep = max(1, search.budget)
    return [sorted(guesses, key=lambda g: g.evidence.log10_pvalue)[:keep] for guesses in best]


def confirm(noise_hat: torch.Tensor, key: Key, guessed: Guess, visible: torch.Tensor | None = None) -> Guess:
    """Test a key on the noise, (C, h, w), of an image in which a hypothesis was undone, where it shows anything.

    `visible`, (1, 1, H, W): what the image showed before (`visible_area`); all, if left out.
    """
    from treering_detectors import searched_cosine_test

    read = mask_occluded(noise_hat.cpu()[None], mask(key.latent_shape, guessed.hypothesis, visible))
    found = searched_cosine_test(features(extract(read, key), key), key.numbers, [guessed.weight])
    return Guess(found.evidence, guessed.hypothesis, guessed.weight)
