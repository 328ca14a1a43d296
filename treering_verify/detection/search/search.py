"""Search a page for a key's image: at all places, sizes, angles, mirrored or not.

A few maps hold the noise of the whole page (`noise_map`). On each, the key's pattern is correlated with the noise at all
places, for every size, angle and reflection that the map serves (`matching`). The best window of each is tested. The best
of all are refined (`refinement`): their windows are cut out of the page, brought to the model's size, and their noise is
estimated again, by the screen and then by the full inversion.

Every p-value is divided by a weight that no key has a part in: the guess's share of alpha (`grid`), over the places that
could have won and, of refined ones, over the lattice. docs/search.md has the proof.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from treering_verify.detection.screening import read_screen
from treering_verify.detection.search.grid import DIRECT, Guess, Pass, affordable, passes
from treering_verify.detection.search.matching import Match, Matcher, Shape
from treering_verify.detection.search.noise_map import NoiseMap, page_map
from treering_verify.detection.search.page import Page
from treering_verify.detection.search.placement import Placement, whole
from treering_verify.detection.search.refinement import Lattice, composed, read, read_noise, refined
from treering_verify.detection.search.settings import LEVELS, Search
from treering_verify.detection.search.target import Target
from treering_verify.detection.search.video_offsets import Offset, Timeline
from treering_verify.media.blank_areas import drawn_area, fill_occluded
from treering_verify.models import LatentModel, makes_videos

if TYPE_CHECKING:
    import torch

    Invert = Callable[[torch.Tensor], torch.Tensor]

_LOOKS = 4  # tests of a whole image; each has as much of their share of alpha, whether an image needs it or not
LITTLE = 0.08  # share of an image that must be left to be read
_STAGES = 3  # a placement may be tested on a map, on its window by the screen, and on its window inverted in full
_PROMISING = 0.0  # log10 p, corrected, below which a guess is inverted in full
_ALIGNED = 0.02  # of the cosine, that placements on whole pixels or on the page's edges have ahead


@dataclass(frozen=True)
class Found:
    """The strongest evidence that a search has for a key.

    Attributes
    ----------
    log10_pvalue : float
        Corrected for all that the search could have tested.
    statistic : float
        Cosine.
    hypothesis : str
        What was done to the image, in words.
    record : dict, optional
        Where the page shows it (`Placement.record`); None where the whole image was tested.
    """

    log10_pvalue: float
    statistic: float
    hypothesis: str
    record: dict[str, Any] | None = None


@dataclass(frozen=True)
class Searched:
    """What a search did.

    Attributes
    ----------
    found : tuple of Found or None
        For each target.
    hypotheses, windows : int
        Sizes, angles and reflections that were tried, and the places for all of them together.
    left_out : tuple of str
        What was not searched, and why.
    seconds : float
    """

    found: tuple[Found | None, ...]
    hypotheses: int = 0
    windows: int = 0
    left_out: tuple[str, ...] = ()
    seconds: float = 0.0

    def record(self, search: Search) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "level": search.words,
            "hypotheses": self.hypotheses,
            "windows": self.windows,
            "left_out": list(self.left_out),
        }


@dataclass(frozen=True, eq=False)
class _Candidate:
    """A window of a map, with its log10 p before and after correction."""

    log10: float
    cosine: float
    placement: Placement
    guess: Guess
    weight: float
    noise_map: NoiseMap = field(repr=False)


@dataclass(frozen=True, eq=False)
class _Whole:
    """What may have been done to the whole image: two estimates of its noise before, and what they show of it."""

    words: str
    cheap: Callable[[], torch.Tensor]
    visible: torch.Tensor
    full: Callable[[], torch.Tensor] | None
    visible_in_full: torch.Tensor


@dataclass(eq=False)
class _Run:
    """One search of one page."""

    model: LatentModel
    page: Page
    targets: Sequence[Target]
    search: Search
    invert: Invert
    alpha: float
    started: float = field(default_factory=time.perf_counter)
    hypotheses: int = 0
    windows: int = 0

    def __post_init__(self) -> None:
        self.level = LEVELS[self.search.level]
        self.found: list[Found | None] = [None] * len(self.targets)

    @property
    def late(self) -> bool:
        """Whether the time is up."""
        return self.search.seconds is not None and time.perf_counter() - self.started > self.search.seconds

    def settled(self, index: int) -> bool:
        one = self.found[index]
        return one is not None and one.log10_pvalue <= np.log10(self.alpha / len(self.targets))

    def take(self, index: int, found: Found) -> None:
        before = self.found[index]
        if found.log10_pvalue < 0 and (before is None or found.log10_pvalue < before.log10_pvalue):
            self.found[index] = found

    # --- maps ---------------------------------------------------------------------------------------------------------

    def match(self, planned: Sequence[Pass], own: NoiseMap | None) -> tuple[list[list[_Candidate]], int]:
        """Match maps one after another: per target the best window of each guess, and how many passes were done.

        `own` stands for the map at scale 1, if it is known.
        """
        candidates: list[list[_Candidate]] = [[] for _ in self.targets]
        done = 0
        for one in planned:
            if self.late or all(map(self.settled, range(len(self.targets)))):
                break
            noise_map = own if own is not None and one.scale == 1 else page_map(self.model, self.page, one.scale)
            for index, some in enumerate(self.match_map(noise_map, one.guesses)):
                candidates[index] += some
            done += 1
        return candidates, done

    def match_map(self, noise_map: NoiseMap, guesses: Sequence[Guess]) -> list[list[_Candidate]]:
        across, down = noise_map.cells
        shapes = [Shape(one.width * across, one.height * down, one.degrees, one.mirrored) for one in guesses]
        matchers: dict[object, Matcher] = {}
        result = []
        for target in self.targets:
            if target.family not in matchers:
                matchers[target.family] = Matcher(noise_map, target.family, shapes)
            matcher = matchers[target.family]
            matches = matcher.best(target.numbers)
            if target is self.targets[0]:
                self.hypotheses += len(matches)
                self.windows += sum(match.places for match in matches)
            result.append(self.test(matcher.noise, target, matches, guesses) if matches else [])
        return result

    def test(
        self, noise_map: NoiseMap, target: Target, matches: Sequence[Match], guesses: Sequence[Guess]
    ) -> list[_Candidate]:
        read_off = read(noise_map, target, [match.placement for match in matches])
        cosines, log10s = target.cosines(read_off), target.log10_pvalues(read_off)
        found = []
        for match, cosine, log10 in zip(matches, cosines, log10s, strict=True):
            guess = guesses[match.shape]
            weight = guess.weight / _STAGES / match.places
            corrected = float(log10) - float(np.log10(weight))
            found.append(_Candidate(corrected, float(cosine), match.placement, guess, weight, noise_map))
        return found

    def refine_best(self, candidates: Sequence[Sequence[_Candidate]]) -> None:
        """Refine the best candidates of all targets, one find after another, each place once."""
        ordered = [(one, index) for index, some in enumerate(candidates) for one in some]
        ordered.sort(key=lambda item: item[0].log10)
        taken: list[list[_Candidate]] = [[] for _ in candidates]
        left = self.level.refined
        for one, index in ordered:
            if (
                self.late
                or one.log10 > self.level.promising
                or (left <= 0 and one.log10 > -2)
                or len(taken[index]) >= max(1, self.level.refined)
            ):
                break
            if any(_alike(one, other) for other in taken[index]) or (taken[index] and self.settled(index)):
                continue
            taken[index].append(one)
            left -= 1
            self.take(index, self.refine(index, one))

    # --- refinement ---------------------------------------------------------------------------------------------------

    def refine(self, index: int, candidate: _Candidate) -> Found:
        """Refine one candidate, and return the best evidence there is for it."""
        import torch

        target, shape = self.targets[index], (self.model.latent_shape[1], self.model.latent_shape[2])
        size = self.model.image_size
        best = self.say(candidate.log10, candidate.cosine, candidate.placement, near=True)
        lattice = Lattice(
            candidate.placement,
            shape,
            candidate.guess.group == "turned",
            candidate.guess.group == "stretched",
        )
        weight = np.log10(candidate.weight / lattice.count)
        placement = refined(candidate.noise_map, target, lattice, candidate.placement)
        tried: dict[Placement, float] = {}
        for _ in range(2):
            if placement in tried:
                break
            image, visible = self.page.window(placement, size)
            noise, cells = self.screen(image, visible)
            tried[placement] = self.cosine(noise, cells, target)
            local = NoiseMap(noise[0] * cells[0], cells[0, 0], (shape[1] / size[1], shape[0] / size[0]))
            middle = whole((size[1], size[0]))
            inside = refined(local, target, replace(lattice, guess=middle), middle)
            placement = lattice.at(lattice.nearest(composed(placement, inside, size)))
        placement = max(tried, key=lambda one: tried[one])
        promising = best.log10_pvalue < 0 or target.log10_of(tried[placement]) - weight < 0
        if promising and (aligned := lattice.aligned(placement, self.page.size, size)):
            # A window that is off by a pixel loses much of what one on the page's own pixels shows.
            windows = [self.page.window(one, size) for one in aligned]
            noise, cells = self.screen(torch.cat([w[0] for w in windows]), torch.cat([w[1] for w in windows]))
            tried |= dict(zip(aligned, target.cosines(read_noise(noise, cells, target)) + _ALIGNED, strict=True))
            placement = max(tried, key=lambda one: tried[one])
        image, visible = self.page.window(placement, size)
        noise, cells = self.screen(image, visible)
        log10, cosine = self.evidence(noise, cells, target)
        if log10 - weight < best.log10_pvalue:
            best = self.say(log10 - weight, cosine, placement)
        if best.log10_pvalue < _PROMISING:
            noise = self.in_full(image)
            log10, cosine = self.evidence(noise, cells, target)
            if log10 - weight < best.log10_pvalue:
                best = self.say(log10 - weight, cosine, placement)
        return best

    def cells_of(self, visible: torch.Tensor) -> torch.Tensor:
        """Return the share of each cell of the latent that is visible."""
        import torch

        return torch.nn.functional.adaptive_avg_pool2d(visible, self.model.latent_shape[1:])

    def screen(self, image: torch.Tensor, visible: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Noise of a window by the screen, (1, C, h, w), and what it shows of the page, (1, 1, h, w)."""
        return self.by_screen(image), self.cells_of(visible)

    def evidence(self, noise: torch.Tensor, cells: torch.Tensor, target: Target) -> tuple[float, float]:
        read_off = read_noise(noise, cells, target)
        return float(target.log10_pvalues(read_off)[0]), float(target.cosines(read_off)[0])

    def cosine(self, noise: torch.Tensor, cells: torch.Tensor, target: Target) -> float:
        return self.evidence(noise, cells, target)[1]

    def say(self, log10: float, cosine: float, placement: Placement, near: bool = False) -> Found:
        shown = placement.enlarged(self.page.reduced)
        size = tuple(round(length * self.page.reduced) for length in self.page.size)
        words = shown.words((size[0], size[1]), self.model.image_size)
        words = f"found near: {words}" if near and words else words
        return Found(log10, cosine, words, shown.record((size[0], size[1]), self.model.image_size))

    # --- the whole image ----------------------------------------------------------------------------------------------

    def whole(self, image: torch.Tensor, noise_hat: torch.Tensor, timeline: Timeline | None) -> None:
        """Test what needs no place: the screen's estimate, other colours, and videos that began late."""
        tests = self.late_videos(image, noise_hat, timeline) if timeline else self.looks(image)
        weight = float(np.log10(DIRECT / max(_LOOKS, len(tests)) / 2))
        for test in tests:
            if self.late or all(map(self.settled, range(len(self.targets)))):
                return
            self.hypotheses += 1
            self.windows += 1
            noise = test.cheap()
            for index, target in enumerate(self.targets):
                log10, cosine = self.evidence(noise, test.visible, target)
                self.take(index, Found(log10 - weight, cosine, test.words))
                if test.full is not None and log10 - weight < _PROMISING:
                    log10, cosine = self.evidence(test.full(), test.visible_in_full, target)
                    self.take(index, Found(log10 - weight, cosine, test.words))

    def looks(self, image: torch.Tensor) -> list[_Whole]:
        """Return the image as it is, with its colours inverted, and with red and blue swapped."""
        import torch

        everywhere = torch.ones(1, 1, *self.model.latent_shape[1:])
        tests = []
        for words, changed in (("", image), ("colours inverted", -image), ("red and blue swapped", image.flip(1))):
            full = partial(self.in_full, changed) if words else None
            if self.model.screen is not None:
                tests.append(_Whole(words, partial(self.by_screen, changed), everywhere, full, everywhere))
            if not self.level.looks:
                return tests
        shown = self.drawn(image)
        if LITTLE < float(shown.mean()) < 1:
            kept, cells = fill_occluded(image, shown), self.cells_of(shown)
            words = f"{1 - float(shown.mean()):.0%} of it covered"
            tests.append(_Whole(words, partial(self.by_screen, kept), cells, partial(self.in_full, kept), cells))
        return tests

    def drawn(self, image: torch.Tensor) -> torch.Tensor:
        """Return what of an image, (1, 3, H, W), the model's autoencoder can draw: (1, 1, H, W)."""
        import torch

        with torch.inference_mode():
            drawn = self.model.decode(self.model.encode(image)).clamp(-1, 1)
            redrawn = self.model.decode(self.model.encode(drawn)).clamp(-1, 1)
        return drawn_area(image, drawn, redrawn, self.model.image_size[0] // self.model.latent_shape[1])

    def late_videos(self, video: torch.Tensor, noise_hat: torch.Tensor, timeline: Timeline) -> list[_Whole]:
        """Return videos that lost their first frames, or begin with others."""
        import torch

        channels, h, w = noise_hat.shape
        return [
            _Whole(
                offset.changes,
                partial(_undone_in_noise, offset, noise_hat),
                torch.ones(1, 1, h, w),
                partial(self.in_full, offset.undo(video)),
                offset.mask(channels)[None].expand(1, channels, h, w),
            )
            for offset in timeline.offsets()
        ]

    def by_screen(self, image: torch.Tensor) -> torch.Tensor:
        """Estimate the noise of images by the screen, or by the full inversion where the model has none."""
        import torch

        with torch.inference_mode():
            return read_screen(self.model, image)[0].cpu() if self.model.screen else self.in_full(image)

    def in_full(self, image: torch.Tensor) -> torch.Tensor:
        """Estimate the noise of images by the full inversion."""
        return self.invert(image).cpu()


def _undone_in_noise(offset: Offset, noise: torch.Tensor) -> torch.Tensor:
    return offset.undo_in_noise(noise)[None]


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
) -> Searched:
    """Search a page for keys.

    Parameters
    ----------
    model : LatentModel
    page : Page
        At its own size.
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
        Of videos that can begin late.
    """
    import torch

    run = _Run(model, page, targets, search, invert, alpha)
    run.whole(image, noise_hat, timeline)
    planned = passes(page.size, model.image_size, targets[0].family, run.level)
    if makes_videos(model):
        everything = tuple(guess for one in planned for guess in one.guesses)
        planned = [Pass(1.0, 0.0, everything)]
    chosen = affordable(planned, model.image_size, run.level)
    own = None
    if model.screen is None and page.size == model.image_size[::-1]:
        h, w = model.latent_shape[1:]
        own = NoiseMap(noise_hat, torch.ones(h, w), (w / page.size[0], h / page.size[1]))
    candidates, done = run.match(chosen, own)
    run.refine_best(candidates)
    return Searched(
        tuple(run.found), run.hypotheses, run.windows, _left_out(planned, done, run), time.perf_counter() - run.started
    )


def _alike(one: _Candidate, other: _Candidate) -> bool:
    """Whether two candidates are neighbours of each other: about one size, angle and place."""
    a, b = one.placement, other.placement
    turn = abs((a.degrees - b.degrees + 180) % 360 - 180)
    near = np.hypot(a.x - b.x, a.y - b.y) < 0.1 * a.width
    return bool(a.mirrored == b.mirrored and turn < 15 and near and abs(np.log(a.width / b.width)) < 0.2)


def _left_out(planned: Sequence[Pass], done: int, run: _Run) -> tuple[str, ...]:
    """Say what was planned and not searched."""
    if all(map(run.settled, range(len(run.targets)))) or done >= len(planned):
        return ()
    smallest = min(min(guess.width, guess.height) for one in planned[done:] for guess in one.guesses)
    largest = max(max(guess.width, guess.height) for one in planned[done:] for guess in one.guesses)
    return (f"images of {smallest:.0f} to {largest:.0f} pixels on the page",)
