"""Over-exposed images: those that were brightened until parts of them became white, and by which factor.

An image of 8 bits that is multiplied by f has values only near multiples of f, up to where it becomes white. So the gaps in
its histogram tell f, and the values that are not white can be restored. Of the others is known how bright they were at
least. Another processing after it, such as a codec or a resampling, fills the gaps, and then no factor is found.

All of it depends on the image alone, never on a key, so p-values stay exact (docs/exact-test.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

    Levels = npt.NDArray[np.uint8]

LEAST_CLIPPED = 0.02
"""Share of pixels with a value of 255, in any channel, below which no image counts as over-exposed."""
WHITE = 255
_LEAST, _MOST = 1.15, 8.0  # factors: below the least hardly a value is missing, above the most hardly one is left
_FINENESS = 1e-4  # of the factors that are tried, relative
_EXPLAINED = 0.97  # share of the values that are multiples of the factor, rounded
_COMMON = 0.02  # most that one value counts, as a share: a flat area says nothing of the others
_MOST_BLACK, _PILED = (
    0.002,
    3,
)  # share of values that are 0 in an image of more contrast, and how often those of the level above
_SEEN = 0.5  # share of the multiples between an image's least and largest value that it has: one of few levels has less
_FEWEST = 300  # values below white, of which a factor can be told


def clipped_values(image: torch.Tensor) -> torch.Tensor:
    """Return which values of images in [-1, 1], (B, 3, H, W), are white, and so may have been any brighter: bool."""
    return ((image + 1) * 127.5).round() >= WHITE


def brightness_factors(image: torch.Tensor) -> list[float]:
    """Return by which factor each image, (B, 3, H, W) in [-1, 1], was brightened: 1 where it is not over-exposed."""
    import torch

    factors = []
    for one in image.detach().cpu():
        levels = ((one + 1) * 127.5).round().clamp(0, WHITE).to(torch.uint8).numpy()
        clipped = float((levels == WHITE).any(axis=0).mean())
        factors.append(_factor(levels) if clipped >= LEAST_CLIPPED else 1.0)
    return factors


def divided(image: torch.Tensor, factors: torch.Tensor, clipped: torch.Tensor) -> torch.Tensor:
    """Return images in [-1, 1] divided by their factors, (B,); clipped values become the least that they can have been."""
    import torch

    scale = factors.view(-1, 1, 1, 1)
    levels = ((image + 1) * 127.5).round()
    restored = ((levels + 0.5) / scale).round()  # rounded down by most programs: the middle of what rounds down to it
    return torch.where(clipped, WHITE / scale, restored.clamp_max(WHITE)) / 127.5 - 1


def _factor(levels: Levels) -> float:
    """Return the largest factor whose multiples, rounded, explain an image's values; 1 if none does."""
    counts = np.bincount(levels.ravel(), minlength=WHITE + 1)[:WHITE].astype(np.float64)
    if counts.sum() < _FEWEST:
        return 1.0
    counts = np.minimum(counts, _COMMON * counts.sum())
    present = np.flatnonzero(counts)
    counts = counts[present] / counts.sum()
    factors = np.exp(np.arange(np.log(_MOST), np.log(_LEAST), -_FINENESS))
    found = 1.0
    for shift in (0.0, 0.5):
        # the least level of the image before that can have become this value, and what it becomes
        before = np.ceil((present - shift) / factors[:, None])
        explained = (np.floor(before * factors[:, None] + shift) == present) @ counts
        enough = np.flatnonzero(explained >= _EXPLAINED)
        if len(enough):
            near = enough[(enough < enough[0] + 60)]
            best = near[explained[near] >= explained[near].max() - 1e-9]
            found = max(found, float(factors[best].mean()))
    multiples = int((present[-1] - present[0]) / found) + 1
    return found if len(present) > _SEEN * multiples and not _piled_up(levels, found) else 1.0


def _piled_up(levels: Levels, factor: float) -> bool:
    """Return whether values pile up at black, as where contrast was raised, which has gaps as well; brightness has none."""
    black = float((levels == 0).mean())
    above = float(((levels > 0) & (levels <= factor)).mean())
    return black > _MOST_BLACK and black > _PILED * above
