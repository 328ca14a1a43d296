"""Search a page for a key's image: at all places, sizes, angles, mirrored or not.

A few maps hold the noise of the whole page (`noise_map`). On each, the key's pattern is correlated with the noise at all
places, for every size, angle and reflection that the map serves (`matching`). The best window of each is tested. The best
of all are refined (`window`): they are cut out of the page, brought to the model's size, and their noise is estimated
again, by the screen and then by the full inversion. What was done to the whole image is tested first (`whole_image`). Last
are boxes on the page: with what was done to them (`changed_windows`), and those of any shape, as pages of their own
(`page_parts`).

Every p-value is divided by a weight that no key has a part in: the guess's share of alpha (`grid`), over the places that
could have won and, of refined ones, over the lattice. docs/search.md has the proof.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from treering_verify.detection.search.changed_windows import changed_boxes
from treering_verify.detection.search.estimates import Estimates, evidence
from treering_verify.detection.search.frames import drawn_sizes
from treering_verify.detection.search.grid import STAGES, Guess, Pass, affordable, fills, passes, size_step
from treering_verify.detection.search.matching import Match, Matcher, Shape
from treering_verify.detection.search.neighbours import AS_IT_IS, NEAR, Neighbourhood, beats
from treering_verify.detection.search.noise_map import NoiseMap, page_map
from treering_verify.detection.search.outcome import Coverage, Found, Searched
from treering_verify.detection.search.page import Page
from treering_verify.detection.search.page_parts import parts_of, passes_of_part
from treering_verify.detection.search.refinement import read, read_noise
from treering_verify.detection.search.settings import LEVELS, Search
from treering_verify.detection.search.target import Target
from treering_verify.detection.search.video_offsets import Timeline
from treering_verify.detection.search.whole_image import WholeImage, covered_share, late_videos, looks, looks_for_covers
from treering_verify.detection.search.window import PROMISING, Candidate, described, refine
from treering_verify.models import LatentModel, makes_videos

if TYPE_CHECKING:
    import torch

    from treering_verify.detection.search.estimates import Invert

_TESTED = 24  # windows of a map, at most: what a window promises by its score is close to its p-value
SMALLEST = 0.35
"""Size of images, in shorter sides of the model's, below which most marks are gone (docs/search.md)."""


def search_page(
    model: LatentModel,
    page: Page,
    image: torch.Tensor,
    noise_hat: torch.Tensor,
    targets: Sequence[Target],
    search: Search,
    invert: Invert,
    alpha: float,
    timeline: Timeline | None = None,
    known: Known | None = None,
) -> Searched:
    """Search a page for keys.

    Parameters
    ----------
    model : LatentModel
    page : Page
        What was given to be judged, at its own size.
    image : (1, 3 F, H, W)
        The page as it was brought to the model's size.
    noise_hat : (C, h, w)
        The image's noise estimate.
    targets : sequence of Target
        At least one, of patterns that live in the spectrum.
    search : Search
    invert : callable
        Images (n, 3 F, H, W) -> noise estimates (n, C, h, w), by the full inversion.
    alpha : float
        A key that reaches it, divided by the count of targets, is not searched any further.
    timeline : Timeline, optional
        For videos, which can begin late: how images lie in latent frames.
    known : Known, optional
        What is known of this page from its search for other keys at the same level; it is added to.
    """
    import torch

    run = Run(model, page, targets, search, Estimates(model, invert), alpha, known)
    planned = passes(page.size, model.image_size, targets[0].family, run.level)
    if makes_videos(model):
        everything = tuple(guess for one in planned for guess in one.guesses)
        planned = [Pass(1.0, 0.0, everything)]
    if page.size == model.image_size[::-1]:
        h, w = model.latent_shape[1:]
        own = NoiseMap(noise_hat, torch.ones(h, w), (w / page.size[0], h / page.size[1]))
        run.maps[1.0] = run.map_at(1.0) if model.screen else own
    if known is None or not known.tests:
        tests = (
            late_videos(run.estimates, image, noise_hat, timeline)
            if timeline
            else looks(run.estimates, image, run.level, run.maps.get(1.0))
        )
    else:
        tests = known.tests
    if known is not None:
        known.tests = tests
    looked = timeline is None and looks_for_covers(image, run.level, model)
    run.test_whole([one for one in tests if one.upright], noise_hat)
    candidates = run.match(affordable(planned, model.image_size, run.level))
    run.refine_best(candidates)
    run.test_whole([one for one in tests if not one.upright], noise_hat)
    if timeline is None:
        run.test_changed_boxes(noise_hat)
        run.search_parts()
    missed = [one for one in planned if one not in run.done]
    return Searched(
        tuple(run.found),
        Coverage.of(planned, run.done, model.image_size),
        run.hypotheses,
        run.windows,
        () if run.finished else (*_left_out(missed), *run.level.left_out(looked or timeline is not None)),
        time.perf_counter() - run.started,
        not any(fills(guess, page.size, model.image_size) for one in missed for guess in one.guesses),
        covered_share(tests) if looked else None,
        unsearched_boxes=() if run.finished or makes_videos(model) else _unsearched_boxes(run),
    )


@dataclass(eq=False)
class Known:
    """What a search estimates of a page whatever the keys, kept for other keys.

    Attributes
    ----------
    maps : dict of float to NoiseMap
        By scale.
    tests : list of WholeImage
    boxes : list of WholeImage
        Tests of boxes that were changed besides; None until they were looked for.
    parts : list of (Page, Known)
        Parts of the page that are searched as pages of their own; None until they were looked for.
    """

    maps: dict[float, NoiseMap] = field(default_factory=dict)
    tests: list[WholeImage] = field(default_factory=list)
    boxes: list[WholeImage] | None = None
    parts: list[tuple[Page, Known]] | None = None


@dataclass(eq=False)
class Run:
    """One search of one page, for targets that are all keys, or the best of `keys`."""

    model: LatentModel
    page: Page
    targets: Sequence[Target]
    search: Search
    estimates: Estimates
    alpha: float
    known: Known | None = None
    keys: int = 0
    started: float = field(default_factory=time.perf_counter)
    hypotheses: int = 0
    windows: int = 0
    maps: dict[float, NoiseMap] = field(default_factory=dict)
    done: list[Pass] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.level = LEVELS[self.search.level]
        self.found: list[Found | None] = [None] * len(self.targets)
        self.chosen_from = max(1, self.keys // max(1, len(self.targets)))
        self.keys = self.keys or len(self.targets)

    def map_at(self, scale: float) -> NoiseMap:
        """Return the map of the page at a scale."""
        kept = self.maps if self.known is None else self.known.maps
        found = self.maps.get(scale) or kept.get(scale) or page_map(self.model, self.page, scale)
        if self.known is not None:
            kept[scale] = found
        return found

    @property
    def late(self) -> bool:
        """Whether the time is up."""
        return self.search.seconds is not None and time.perf_counter() - self.started > self.search.seconds

    @property
    def finished(self) -> bool:
        """Whether all keys were found."""
        return all(map(self.settled, range(len(self.targets))))

    def settled(self, index: int) -> bool:
        """Whether a key was found."""
        one = self.found[index]
        return one is not None and one.log10_pvalue <= np.log10(self.alpha / self.keys)

    def take(self, index: int, found: Found) -> None:
        """Keep what was found for a key, if it is stronger than what is known."""
        before = self.found[index]
        if found.log10_pvalue < 0 and (before is None or found.log10_pvalue < before.log10_pvalue):
            self.found[index] = found

    def search_parts(self) -> None:
        """Search boxes of any shape that are drawn on the page as pages of their own."""
        if self.late or self.finished:
            return
        size, family = self.model.image_size, self.targets[0].family
        parts = None if self.known is None else self.known.parts
        if parts is None:
            parts = [(part, Known()) for part in parts_of(self.page, size, self.level)]
        if self.known is not None:
            self.known.parts = parts
        for part, known in parts:
            inner = replace(self, page=part, known=known, maps={}, done=[], hypotheses=0, windows=0)
            planned = passes_of_part(part, size, family, self.level, len(parts))
            inner.refine_best(inner.match(affordable(planned, size, self.level)))
            self.hypotheses, self.windows = self.hypotheses + inner.hypotheses, self.windows + inner.windows
            for index, found in enumerate(inner.found):
                if found is not None:
                    self.take(index, found)
            if self.late or self.finished:
                return

    def test_changed_boxes(self, noise_hat: torch.Tensor) -> None:
        """Test boxes on the page that were changed besides."""
        if self.late or self.finished:
            return
        tests: Iterable[WholeImage] = changed_boxes(self.estimates, self.page, self.level)
        if self.known is not None:
            self.known.boxes = tests = list(tests) if self.known.boxes is None else self.known.boxes
        self.test_whole(tests, noise_hat)

    def test_whole(self, tests: Iterable[WholeImage], noise_hat: torch.Tensor) -> None:
        """Test what may have been done to the whole image, whose noise as it is was estimated before."""
        plain = noise_hat[None]
        for test in tests:
            if self.late or self.finished:
                return
            self.hypotheses += 1
            self.windows += 1
            noise, weight = test.cheap(), np.log10(test.weight)
            plain = plain if test.words else noise
            for index, target in enumerate(self.targets):
                log10, cosine = evidence(noise, test.visible, target)
                seen = (noise * test.visible)[0]
                words = self.singled_out(test, log10 - weight, noise, plain, target)
                self.take(index, Found(log10 - weight, cosine, words, test.record, seen))
                if test.full is not None and log10 - weight < PROMISING:
                    in_full = test.full()
                    log10, cosine = evidence(in_full, test.visible_in_full, target)
                    seen = (in_full * test.visible_in_full)[0]
                    self.take(index, Found(log10 - weight, cosine, words, test.record, seen))

    def singled_out(
        self, test: WholeImage, log10: float, noise: torch.Tensor, plain: torch.Tensor, target: Target
    ) -> str:
        """Say what was done to the whole image, or near what it was found, if a neighbour shows the key as well."""
        words, visible = test.words, test.visible
        if not words or test.record or log10 > 0:
            return words
        changed, as_it_is = (read_noise(one, visible, target)[0] for one in (noise, plain))
        if not makes_videos(self.model):  # the time that a video began at is no neighbour of places and sizes
            better = Neighbourhood(self.estimates, self.page, target).better_than_whole(changed)
            if better is not None:
                return described(self.page, self.model.image_size, better, near=True)
        return words if beats(changed, as_it_is, target, 1) else NEAR + AS_IT_IS

    def match(self, planned: Sequence[Pass]) -> list[list[Candidate]]:
        """Match maps one after another: per target the best window of each guess."""
        candidates: list[list[Candidate]] = [[] for _ in self.targets]
        for one in planned:
            if self.late or self.finished:
                break
            for index, some in enumerate(self._match_map(self.map_at(one.scale), one.guesses)):
                candidates[index] += some
            self.done.append(one)
        return candidates

    def _match_map(self, noise_map: NoiseMap, guesses: Sequence[Guess]) -> list[list[Candidate]]:
        across, down = noise_map.cells
        shapes = [Shape(one.width * across, one.height * down, one.degrees, one.mirrored) for one in guesses]
        result: list[list[Candidate]] = [[] for _ in self.targets]
        for family in dict.fromkeys(target.family for target in self.targets):
            matcher = Matcher(noise_map, family, shapes)
            indices = [index for index, target in enumerate(self.targets) if target.family == family]
            found = matcher.best([self.targets[index].numbers for index in indices])
            for index, matches in zip(indices, found, strict=True):
                if index == 0:
                    self.hypotheses += len({match.shape for match in matches})
                    self.windows += sum(match.places for match in matches)
                result[index] = _tested(matcher.noise, self.targets[index], matches, guesses)
        return result

    def refine_best(self, candidates: Sequence[Sequence[Candidate]]) -> None:
        """Refine the best candidates of all targets, one find after another, each place once."""
        ordered = [(one, index) for index, some in enumerate(candidates) for one in some]
        ordered.sort(key=lambda item: item[0].log10)
        taken: list[list[Candidate]] = [[] for _ in candidates]
        left = self.level.refined
        for one, index in ordered:
            log10 = one.log10 + np.log10(self.chosen_from)
            if (
                self.late
                or log10 > self.level.promising
                or (left <= 0 and log10 > -2)
                or len(taken[index]) >= max(1, self.level.refined)
            ):
                break
            if any(one.like(other) for other in taken[index]) or (taken[index] and self.settled(index)):
                continue
            taken[index].append(one)
            left -= 1
            found = refine(self.estimates, self.page, self.targets[index], one, self.alpha / self.keys, self.level)
            self.take(index, found)


def _tested(noise_map: NoiseMap, target: Target, matches: Sequence[Match], guesses: Sequence[Guess]) -> list[Candidate]:
    """Test the windows of a map that promise most."""
    if not matches:
        return []
    weights = np.array([guesses[match.shape].weight * match.share / STAGES / match.places for match in matches])
    promise = target.log10_of([match.score for match in matches]) - np.log10(weights)
    chosen = promise.argsort()[:_TESTED]
    read_off = read(noise_map, target, [matches[i].placement for i in chosen])
    cosines, log10s = target.cosines(read_off), target.log10_pvalues(read_off)
    found = []
    for i, cosine, log10 in zip(chosen, cosines, log10s, strict=True):
        match, weight = matches[i], float(weights[i])
        guess = guesses[match.shape]
        corrected = float(log10) - float(np.log10(weight))
        found.append(Candidate(corrected, float(cosine), match.placement, guess, weight, noise_map))
    return found


def _unsearched_boxes(run: Run) -> tuple[float, ...]:
    """Return the sizes of clearly drawn boxes at which nothing was searched, in shorter sides of the model's image."""
    width = run.model.image_size[1]
    upright = [guess.width / width for one in run.done for guess in one.guesses if guess.group == "upright"]
    step = np.log(size_step(run.targets[0].family))
    sizes = drawn_sizes(run.page, run.model.image_size, SMALLEST)
    return tuple(size for size in sizes if all(abs(np.log(size / other)) > step for other in upright))


def _left_out(skipped: Sequence[Pass]) -> tuple[str, ...]:
    """Say what was planned and not searched."""
    guesses = [guess for one in skipped for guess in one.guesses]
    if not guesses:
        return ()
    smallest, largest = (pick(pick((one.width, one.height)) for one in guesses) for pick in (min, max))
    return (f"images of {smallest:.0f} to {largest:.0f} pixels on the page",)
