"""Refine a candidate: cut its window out of the page, estimate its noise again, and say where the image lies."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from treering_verify.detection.search.estimates import Estimates, evidence
from treering_verify.detection.search.grid import Guess
from treering_verify.detection.search.neighbours import AS_IT_IS, NEAR, Neighbourhood
from treering_verify.detection.search.noise_map import NoiseMap
from treering_verify.detection.search.outcome import Found
from treering_verify.detection.search.page import Page
from treering_verify.detection.search.placement import Placement, whole
from treering_verify.detection.search.refinement import Lattice, composed, read_noise, refined
from treering_verify.detection.search.target import Target

PROMISING = 0.0
"""Log10 p, corrected, below which a guess is inverted in full."""
_ROUNDS = 4  # of moving a window, at most
_HOPELESS = 2.0  # log10 p, corrected, from which on a window that was estimated once is not moved again
_ALIGNED = 0.02  # of the cosine, that placements on whole pixels or on the page's edges have ahead


@dataclass(frozen=True, eq=False)
class Candidate:
    """A window of the page that may show the image: where it lies, its corrected log10 p, and the map behind it."""

    log10: float
    cosine: float
    placement: Placement
    guess: Guess
    weight: float
    noise_map: NoiseMap | None = field(repr=False)

    def like(self, other: Candidate) -> bool:
        """Return whether both are neighbours: about one size, angle and place."""
        a, b = self.placement, other.placement
        turn = abs((a.degrees - b.degrees + 180) % 360 - 180)
        near = np.hypot(a.x - b.x, a.y - b.y) < 0.1 * a.width
        return bool(a.mirrored == b.mirrored and turn < 15 and near and abs(np.log(a.width / b.width)) < 0.2)


def refine(estimates: Estimates, page: Page, target: Target, candidate: Candidate, alpha: float) -> Found:
    """Return the best evidence there is for a candidate: on its map, by the screen, and inverted in full.

    Evidence that reaches alpha names its hypothesis only if that beats its neighbours (`neighbours`).
    """
    best, placement = _refined(estimates, page, target, candidate)
    if best.log10_pvalue > np.log10(alpha):
        return best
    confused = Neighbourhood(estimates, page, target).confused(placement)
    if confused is None:
        return best
    said = _say(page, estimates.model.image_size, best.log10_pvalue, best.statistic, confused, near=True)
    return replace(said, noise_hat=best.noise_hat)


def _refined(estimates: Estimates, page: Page, target: Target, candidate: Candidate) -> tuple[Found, Placement]:
    """Return the best evidence, and where it was read."""
    import torch

    size, shape = estimates.model.image_size, estimates.model.latent_shape[1:]
    best = _say(page, size, candidate.log10, candidate.cosine, candidate.placement, near=True)
    where = candidate.placement
    group = candidate.guess.group
    lattice = Lattice(candidate.placement, (shape[0], shape[1]), group == "turned", group == "stretched")
    weight = np.log10(candidate.weight / lattice.count)
    placement = candidate.placement
    if candidate.noise_map is not None:
        placement = refined(candidate.noise_map, target, lattice, placement)
    # A bare latent says too little of where a window lies; a full inversion costs too much where there is no evidence.
    cheap = estimates.fitted or best.log10_pvalue >= PROMISING
    estimate = estimates.by_screen if cheap else estimates.in_full
    tried: dict[Placement, float] = {}
    for _ in range(_ROUNDS):
        if placement in tried or (tried and target.log10_of(max(tried.values())) - weight > _HOPELESS):
            break
        image, visible = page.window(placement, size)
        noise, cells = estimate(image), estimates.cells(visible)
        tried[placement] = evidence(noise, cells, target)[1]
        local = NoiseMap(noise[0] * cells[0], cells[0, 0], (shape[1] / size[1], shape[0] / size[0]))
        middle = whole((size[1], size[0]))
        inside = refined(local, target, replace(lattice, guess=middle), middle)
        placement = lattice.at(lattice.nearest(composed(placement, inside, size)))
    placement = max(tried, key=lambda one: tried[one])
    promising = best.log10_pvalue < 0 or target.log10_of(tried[placement]) - weight < 0
    if promising and (aligned := lattice.aligned(placement, page.size, size)):
        # A window that is off by a pixel loses much of what one on the page's own pixels shows.
        windows = [page.window(one, size) for one in aligned]
        noise = estimate(torch.cat([image for image, _ in windows]))
        cells = estimates.cells(torch.cat([visible for _, visible in windows]))
        tried |= dict(zip(aligned, target.cosines(read_noise(noise, cells, target)) + _ALIGNED, strict=True))
        placement = max(tried, key=lambda one: tried[one])
    if not promising:
        return best, where
    image, visible = page.window(placement, size)
    cells = estimates.cells(visible)
    for one in (estimate, estimates.in_full) if cheap else (estimate,):
        noise = one(image)
        log10, cosine = evidence(noise, cells, target)
        if log10 - weight < best.log10_pvalue:
            best = replace(_say(page, size, log10 - weight, cosine, placement), noise_hat=(noise * cells)[0])
            where = placement
        if best.log10_pvalue >= PROMISING:
            break
    return best, where


def _say(
    page: Page, image_size: tuple[int, int], log10: float, cosine: float, placement: Placement, near: bool = False
) -> Found:
    shown, size = placement.enlarged(page.reduced), _size(page)
    return Found(log10, cosine, described(page, image_size, placement, near), shown.record(size, image_size))


def described(page: Page, image_size: tuple[int, int], placement: Placement, near: bool) -> str:
    """Say in words how a page shows an image; with `near`, that it was found near such a placement."""
    words = placement.enlarged(page.reduced).words(_size(page), image_size)
    return f"{NEAR}{words or AS_IT_IS}" if near else words


def _size(page: Page) -> tuple[int, int]:
    return round(page.size[0] * page.reduced), round(page.size[1] * page.reduced)
