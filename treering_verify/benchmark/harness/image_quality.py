"""Four measures of how a mark changes images, without learned features; images are (n, 3, H, W) in [-1, 1]."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from treering_verify.benchmark.harness.keyed_images import generate_each
from treering_verify.generation.generator import generate
from treering_verify.media.conversion import to_tensor
from treering_verify.models import LatentModel
from treering_verify.watermark.keys.key import Key

if TYPE_CHECKING:
    import torch

COST_HEADER = (
    "difference from twin (grey levels, rms)",
    "diversity within a key",
    "patch distance to other unmarked",
    "point symmetry",
)
COST_NOTE = (
    "Twin: the unmarked image of the same seed. Diversity: mean distance between low-passed images (16 x 16 pixel means) of "
    "one class under one key. Patch distance: sliced Wasserstein distance of 7 x 7 patches. Point symmetry: correlation of "
    "the low-passed image, minus the unmarked images' mean, with itself rotated by 180 degrees. The unmarked row is the "
    "reference."
)
_CELL = 16
_KEYS = 4  # several, because one key may be better or worse than most


@dataclass(frozen=True)
class Cost:
    """The four measures: difference from unmarked twins (grey levels, rms), diversity, patch distance, point symmetry."""

    paired: float
    diversity: float
    distance: float
    symmetry: float

    def cells(self) -> tuple[str, str, str, str]:
        """Return the cells for a table with `COST_HEADER`."""
        return f"{self.paired:.1f}", f"{self.diversity:.2f}", f"{self.distance:.4f}", f"{self.symmetry:.3f}"


def cost(images: torch.Tensor, twins: torch.Tensor, others: torch.Tensor, labels: Sequence[object]) -> Cost:
    """Compare marked images with the unmarked images of the same seeds and of other seeds.

    Parameters
    ----------
    images, twins : (n, 3, H, W) float32
        Marked, and unmarked from the same seeds.
    others : (m, 3, H, W) float32
        Unmarked images of other seeds.
    labels : sequence of n
        Key and class of each image: diversity is measured among images of one label.
    """
    from treering_verify.training.landscape.measure import sliced_wasserstein

    paired = float((images - twins).pow(2).mean(dim=(1, 2, 3)).sqrt().mean()) * 127.5
    return Cost(paired, diversity(images, labels), sliced_wasserstein(images, others), point_symmetry(images, others))


def diversity(images: torch.Tensor, labels: Sequence[object]) -> float:
    """Return the mean distance between low-passed images of one label, averaged over labels; NaN if none has two images."""
    import torch

    low = _low(images).flatten(1)
    order = sorted(range(len(labels)), key=lambda i: repr(labels[i]))
    groups = [list(indices) for _, indices in groupby(order, key=lambda i: repr(labels[i]))]
    means = [float(torch.pdist(low[indices]).mean()) for indices in groups if len(indices) > 1]
    return statistics.fmean(means) if means else math.nan


def point_symmetry(images: torch.Tensor, unmarked: torch.Tensor) -> float:
    """Return the mean correlation of low-passed images with themselves rotated by 180 degrees, in [-1, 1].

    The mean of the unmarked images is subtracted first: what all images of a model have in common, such as a sky that is
    lighter than the ground, is not a symmetry that the mark causes.
    """
    low = _low(images) - _low(unmarked).mean(dim=0)
    turned = low.flip(-2, -1)
    power = low.pow(2).sum(dim=(1, 2, 3))
    return float(((low * turned).sum(dim=(1, 2, 3)) / power.clamp_min(1e-12)).mean())


def keys_among(count: int, classes: int) -> int:
    """Return how many keys share `count` images, if each is to have two of each class: at most four, at least one."""
    return max(1, min(_KEYS, count // (2 * max(1, classes))))


def rendered(model: LatentModel, keys: Sequence[Key], seeds: Sequence[int]) -> tuple[torch.Tensor, list[object]]:
    """Return the images of the seeds and the (key, class) of each; keys take equal runs of seeds, none means unmarked."""
    import torch

    if keys:
        share = -(-len(seeds) // len(keys))
        of = [i // share for i in range(len(seeds))]
        images = generate_each(model, [keys[k] for k in of], seeds, lambda: None)
    else:
        of = [0] * len(seeds)
        images = [made.image for made in generate(model, None, seeds=seeds)]
    classes = max(1, len(model.classes))
    labels: list[object] = [(k, seed % classes) for k, seed in zip(of, seeds, strict=True)]
    return torch.cat([to_tensor(image) for image in images]), labels


def _low(images: torch.Tensor) -> torch.Tensor:
    import torch

    return torch.nn.functional.avg_pool2d(images, _CELL)
