"""Refine a candidate: cut its window out of the page, estimate its noise again, and say where the image lies."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from treering_verify.detection.search.changed_windows import OF_A_WINDOW, window_uncovered
from treering_verify.detection.search.estimates import Estimates, evidence
from treering_verify.detection.search.grid import Guess
from treering_verify.detection.search.neighbours import AS_IT_IS, NEAR, Neighbourhood
from treering_verify.detection.search.noise_map import NoiseMap
from treering_verify.detection.search.outcome import Found
from treering_verify.detection.search.page import Page
from treering_verify.detection.search.placement import Placement, whole
from treering_verify.detection.search.refinement import Lattice, composed, read_noise, refined
from treering_verify.detection.search.settings import Level
from treering_verify.detection.search.target import Target
from treering_verify.detection.search.whole_image import covered_words
from treering_verify.models import makes_videos

if TYPE_CHECKING:
    import torch

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

    def lattice(self, shape: tuple[int, ...]) -> Lattice:
        """Return the placements around it, for a latent of (h, w)."""
        group = self.guess.group
        return Lattice(self.placement, (shape[0], shape[1]), group == "turned", group == "stretched")


def refine(estimates: Estimates, page: Page, target: Target, candidate: Candidate, alpha: float, level: Level) -> Found:
    """Return the best evidence there is for a candidate: on its map, by the screen, and inverted in full.

    Evidence that reaches alpha names its hypothesis only if that beats its neighbours (`neighbours`). Where it does not, the
    window is tested without what covers it, too.
    """
    best, placement, refined_to = _refined(estimates, page, target, candidate)
    if best.log10_pvalue > np.log10(alpha):
        if makes_videos(estimates.model):
            return best
        without = _uncovered(estimates, page, target, candidate, refined_to, level)
        return min(best, without, key=lambda one: one.log10_pvalue) if without else best
    confused = Neighbourhood(estimates, page, target).confused(placement)
    if confused is None:
        return best
    said = _say(page, estimates.model.image_size, best.log10_pvalue, best.statistic, confused, near=True)
    return replace(said, noise_hat=best.noise_hat)


def _refined(
    estimates: Estimates, page: Page, target: Target, candidate: Candidate
) -> tuple[Found, Placement, Placement]:
    """Return the best evidence, where it was read, and where the refined window lies."""
    import torch

    size, shape = estimates.model.image_size, estimates.model.latent_shape[1:]
    best = _say(page, size, candidate.log10, candidate.cosine, candidate.placement, near=True)
    where, lattice = candidate.placement, candidate.lattice(shape)
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
        placement = _moved(placement, lattice, noise, cells, target, size)
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
        return best, where, placement
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
    return best, where, placement


def _uncovered(
    estimates: Estimates, page: Page, target: Target, candidate: Candidate, placement: Placement, level: Level
) -> Found | None:
    """Return the evidence of a window without what covers it, which is moved as others are; None if nothing covers it."""
    size, shape = estimates.model.image_size, estimates.model.latent_shape[1:]
    lattice, best = candidate.lattice(shape), None
    weight = np.log10(candidate.weight * OF_A_WINDOW / lattice.count)
    for _ in range(_ROUNDS):
        if (without := window_uncovered(estimates, page, placement, level)) is None:
            break
        (image, shown), cells = without, estimates.cells(without[1])
        noise = estimates.by_screen(image)
        log10, cosine = evidence(noise, cells, target)
        if best is not None and log10 - weight >= best.log10_pvalue:
            break
        best = _covered(page, size, log10 - weight, cosine, placement, shown, noise * cells)
        if best.log10_pvalue < PROMISING:
            in_full = estimates.in_full(image)
            log10, cosine = evidence(in_full, cells, target)
            if log10 - weight < best.log10_pvalue:
                best = _covered(page, size, log10 - weight, cosine, placement, shown, in_full * cells)
        elif best.log10_pvalue > _HOPELESS:
            break
        placement = _moved(placement, lattice, noise, cells, target, size)
    return best


def _moved(
    placement: Placement,
    lattice: Lattice,
    noise: torch.Tensor,
    cells: torch.Tensor,
    target: Target,
    image_size: tuple[int, int],
) -> Placement:
    """Return where on the lattice a window moves to, by its noise (1, C, h, w) and the share of each cell that it shows."""
    (height, width), (h, w) = image_size, noise.shape[-2:]
    local = NoiseMap(noise[0] * cells[0], cells[0, 0], (w / width, h / height))
    middle = whole((width, height))
    inside = refined(local, target, replace(lattice, guess=middle), middle)
    return lattice.at(lattice.nearest(composed(placement, inside, image_size)))


def _covered(
    page: Page,
    image_size: tuple[int, int],
    log10: float,
    cosine: float,
    placement: Placement,
    shown: torch.Tensor,
    noise: torch.Tensor,
) -> Found:
    found = _say(page, image_size, log10, cosine, placement, near=True)
    return replace(found, hypothesis=f"{found.hypothesis}, {covered_words(shown)}", noise_hat=noise[0])


def _say(
    page: Page, image_size: tuple[int, int], log10: float, cosine: float, placement: Placement, near: bool = False
) -> Found:
    return Found(log10, cosine, described(page, image_size, placement, near), page.record(placement, image_size))


def described(page: Page, image_size: tuple[int, int], placement: Placement, near: bool) -> str:
    """Say in words how a page shows an image; with `near`, that it was found near such a placement."""
    words = page.words(placement, image_size)
    return f"{NEAR}{words or AS_IT_IS}" if near else words
