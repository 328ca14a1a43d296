"""Whether what a search found can be told from its neighbours: placements of another kind that lie a step away.

An image in a frame looks to the search a little as if it were turned by two degrees, and one that was turned by two degrees
a little as if it were only moved. What is said of an image is the kind of placement that its noise singles out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from treering_verify.detection.search.estimates import Estimates
from treering_verify.detection.search.grid import angle_step
from treering_verify.detection.search.noise_map import NoiseMap
from treering_verify.detection.search.page import Page
from treering_verify.detection.search.placement import Placement, whole
from treering_verify.detection.search.refinement import ANGLES, SIZES, Lattice, composed, read_noise, refined

if TYPE_CHECKING:
    import torch

    from treering_verify.detection.search.target import Target

    Features = npt.NDArray[np.float64]

NEAR, AS_IT_IS = "found near: ", "the image as it is"
MARGIN = 3.0
"""Decades of p by which a placement must beat those of another kind: less happens by chance once in 1000 images."""
_ALIKE = 0.005  # difference of relative width and height, below which nothing was stretched


def beats(features: Features, others: Features, target: Target, tried: int) -> bool:
    """Whether features agree with a key better than those of another hypothesis, by more than chance explains.

    Both are scaled to length 1. If the key favours neither, its part along their difference is random, so the exact cosine
    test of that difference says how often chance alone gives such a lead. It is corrected for the hypotheses tried.

    Parameters
    ----------
    features, others : (d,)
    target : Target
        The key.
    tried : int
        From how many the first was chosen.
    """
    lengths = np.linalg.norm(features), np.linalg.norm(others)
    if not lengths[0] or not lengths[1]:
        return bool(lengths[0])
    lead = features / lengths[0] - others / lengths[1]
    return bool(float(target.log10_pvalues(lead[None])[0]) + math.log10(tried) <= -MARGIN)


@dataclass(frozen=True, eq=False)
class Neighbourhood:
    """The neighbours of a placement, and what a page shows of them.

    Attributes
    ----------
    estimates : Estimates
    page : Page
    target : Target
        The key.
    """

    estimates: Estimates
    page: Page
    target: Target

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the model's images."""
        return self.estimates.model.image_size

    def screened(self, placement: Placement) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the noise of a window by the screen, (1, C, h, w), and what it shows of the page, (1, 1, h, w)."""
        image, visible = self.page.window(placement, self.image_size)
        return self.estimates.by_screen(image), self.estimates.cells(visible)

    def confused(self, found: Placement) -> Placement | None:
        """Return None if a placement stands out from its neighbours; else the plainer one that does as well, or itself."""
        own = self.features(found)
        turned, stretched = self.is_turned(found), self.is_stretched(found)
        for plainer, tried, kind in self._plainer(found, turned, stretched):
            plain = self.settled(plainer, *kind)
            if not beats(own, self.features(plain), self.target, tried):
                return plain
        if turned or stretched:
            return None
        for tried, kind in ((ANGLES, (True, False)), (SIZES, (False, True))):
            other = self.settled(found, *kind)
            differs = self.is_turned(other) or self.is_stretched(other)
            if differs and beats(self.features(other), own, self.target, tried):
                return found
        return None

    def better_than_whole(self, features: Features) -> Placement | None:
        """Return a placement that shows the key better than the whole page, whose features are given; None if none does."""
        (width, height), (down, across) = self.page.size, self.image_size
        scale = min(width / across, height / down)
        start = Placement(width / 2, height / 2, scale * across, scale * down)
        best = self.settled(start, turned=False, stretched=False)
        tried = self._lattice(start, turned=False, stretched=False).count
        return best if best != start and beats(self.features(best), features, self.target, tried) else None

    def _lattice(self, start: Placement, turned: bool, stretched: bool) -> Lattice:
        _, h, w = self.target.family.latent_shape
        return Lattice(start, (h, w), turned, stretched)

    def _plainer(
        self, found: Placement, turned: bool, stretched: bool
    ) -> list[tuple[Placement, int, tuple[bool, bool]]]:
        neighbours = []
        quarter = 90.0 * round(found.degrees / 90) % 360
        away = abs((found.degrees - quarter + 180) % 360 - 180)
        if turned and away <= math.degrees(angle_step(self.target.family)):
            neighbours.append((replace(found, degrees=quarter), ANGLES, (False, stretched)))
        if stretched:
            height, width = self.image_size
            size = math.sqrt(found.width * found.height / (width * height))
            neighbours.append((replace(found, width=size * width, height=size * height), SIZES, (turned, False)))
        return neighbours

    def is_turned(self, placement: Placement) -> bool:
        """Return whether a placement is turned by an angle that is no multiple of 90 degrees."""
        return placement.degrees % 90 != 0

    def is_stretched(self, placement: Placement) -> bool:
        """Return whether a placement scales width and height differently."""
        across, down = placement.width / self.image_size[1], placement.height / self.image_size[0]
        return abs(math.log(across / down)) > _ALIKE

    def features(self, placement: Placement) -> Features:
        """Return the features (d,) of the noise that the page shows at a placement."""
        return read_noise(*self.screened(placement), self.target)[0]

    def settled(self, start: Placement, turned: bool, stretched: bool) -> Placement:
        """Return the placement near another at which the key shows best; `turned` and `stretched` say what may vary."""
        height, width = self.image_size
        lattice = self._lattice(start, turned, stretched)
        noise, cells = self.screened(start)
        local = NoiseMap(noise[0] * cells[0], cells[0, 0], (lattice.shape[1] / width, lattice.shape[0] / height))
        middle = whole((width, height))
        inside = refined(local, self.target, replace(lattice, guess=middle), middle)
        best = lattice.at(lattice.nearest(composed(start, inside, self.image_size)))
        choices = [start, best, *lattice.aligned(best, self.page.size, self.image_size)]
        return max(choices, key=lambda one: float(self.target.cosines(self.features(one)[None])[0]))
