"""Search a page for the keys of an index: at places that the page alone suggests, since each key would cost a search.

The noise of each candidate window is estimated once and tested for all keys in one pass over the index. Windows are boxes
of straight edges (`frames`), a grid of crops, and the whole page, each turned by quarters and mirrored too; and the whole
page in other colours (`whole_image`). The best keys are refined where they were found, as those of `search_page` are.

Each test's p-value is divided by a weight that depends on the page, the level and the count of keys alone. docs/search.md
has the proof.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Protocol

import numpy as np

from treering_verify.detection.search.changed_windows import changed_boxes
from treering_verify.detection.search.estimates import Estimates
from treering_verify.detection.search.frames import boxes
from treering_verify.detection.search.grid import SHARES, STAGES, Guess
from treering_verify.detection.search.noise_map import NoiseMap, page_map
from treering_verify.detection.search.outcome import Coverage, Found, Searched
from treering_verify.detection.search.page import Page
from treering_verify.detection.search.placement import Placement, whole
from treering_verify.detection.search.search import Run
from treering_verify.detection.search.settings import LEVELS, Level, Search
from treering_verify.detection.search.target import Target
from treering_verify.detection.search.whole_image import WholeImage, covered_share, looks, looks_for_covers
from treering_verify.detection.search.window import PROMISING, Candidate, described
from treering_verify.models import LatentModel

if TYPE_CHECKING:
    import torch

    from treering_verify.detection.search.estimates import Invert

_CROPS = (1.11, 1.25, 1.43)  # sides of an image of which the page is a part, in sides of the page
_MAPS = ((1.0, 1.19), (1 / 1.5, 1.8))  # scales of maps, and the largest image, in sides of the page, that each serves
_WAYS = 8  # quarter turns, mirrored or not
_TOGETHER = 256  # windows that are tested in one pass over the index
_BEST = 8  # keys of a window that are kept, and of a page that are refined or reported, at most
_KINDS = {"box": "upright", "crop": "upright", "turned box": "quarter", "turned crop": "quarter"}
_SHARES = {
    "box": SHARES["upright"],
    "crop": SHARES["quarter"],
    "turned box": SHARES["turned"],
    "turned crop": SHARES["stretched"],
}
"""Share of alpha of each kind of window: those that search_page has for its groups."""


Best = list[tuple[int, float, float]]
"""The best keys of a window: number, log10 p and cosine."""


class Index(Protocol):
    """Many keys that windows are tested for at once."""

    @property
    def keys_tried(self) -> int:
        """Count of keys."""

    def nearest(self, noise: torch.Tensor, visible: torch.Tensor, keep: int) -> list[Best]:
        """Return the best keys of windows' noise (n, C, h, w) where it is visible: per window (key, log10 p, cosine)."""

    def target(self, key: int) -> Target:
        """Return one of the keys that `nearest` named."""


@dataclass(frozen=True, eq=False)
class _Window:
    """A candidate: where it lies, its kind, and the map that its noise is read from, at a place on that map."""

    placement: Placement
    kind: str
    noise_map: NoiseMap
    on_map: Placement
    kept: bool  # whether the map is the page's, so that refining can begin there


@dataclass(frozen=True)
class _Hit:
    log10: float
    cosine: float
    window: _Window
    weight: float


def search_index(
    model: LatentModel,
    page: Page,
    image: torch.Tensor,
    noise_hat: torch.Tensor,
    index: Index,
    search: Search,
    invert: Invert,
    alpha: float,
) -> tuple[list[Target], Searched]:
    """Search a page for the keys of an index.

    Parameters are those of `search_page`; alpha is over all keys.

    Returns
    -------
    targets : list of Target
        The best keys.
    searched : Searched
        What was found for each of them.
    """
    started, level, estimates = time.perf_counter(), LEVELS[search.level], Estimates(model, invert)

    def late() -> bool:
        return search.seconds is not None and time.perf_counter() - started > search.seconds

    most, each_way = _afforded(level, index.keys_tried)
    found_boxes, places = boxes(page, model.image_size, most), _crops(page, model.image_size, each_way)
    counts = _counts(len(found_boxes), len(places))
    hits: dict[int, list[_Hit]] = {}
    windows = 0
    own = NoiseMap(noise_hat, noise_hat.new_ones(noise_hat.shape[1:]), _cells(model))
    framed = _framed(model, page, own, estimates, found_boxes, late)
    for group in (framed, _cropped(model, page, places, late)):
        if late() or any(hit.log10 <= np.log10(alpha / index.keys_tried) for some in hits.values() for hit in some):
            break  # a page that is found in a frame is no crop of a larger image
        while some := list(islice(group, _TOGETHER)):
            windows += len(some)
            noise, visible = _read(some, model.latent_shape[1:])
            for window, keys in zip(some, index.nearest(noise, visible, _BEST), strict=True):
                weight = _SHARES[window.kind] / counts[window.kind] / STAGES
                for key, log10, cosine in keys:
                    hits.setdefault(key, []).append(_Hit(log10 - float(np.log10(weight)), cosine, window, weight))
    tests = [] if late() else looks(estimates, image, level)
    whole_page = _looked(index, tests, late)

    def strongest(key: int) -> float:
        return min(_strongest(hits.get(key)), _strongest_of(whole_page.get(key)))

    changed: list[WholeImage] = []
    if not late() and min(map(strongest, {*hits, *whole_page}), default=0.0) > np.log10(alpha / index.keys_tried):
        changed += changed_boxes(estimates, page, level)
        for key, some_found in _looked(index, changed, late).items():
            whole_page.setdefault(key, []).extend(some_found)
    best = sorted({*hits, *whole_page}, key=strongest)
    chosen = best[:_BEST]
    targets = [index.target(key) for key in chosen]
    run = Run(model, page, targets, search, estimates, alpha, keys=index.keys_tried, started=started)
    candidates = [[_candidate(hit) for hit in hits.get(key, [])] for key in chosen]
    for number, key in enumerate(chosen):
        for one in whole_page.get(key, []):
            run.take(number, one)
        for candidate in candidates[number]:
            if candidate.log10 < 0:
                words = described(page, model.image_size, candidate.placement, near=True)
                record = page.record(candidate.placement, model.image_size)
                run.take(number, Found(candidate.log10, candidate.cosine, words, record))
    run.refine_best(candidates)
    planned = sum(counts.values())
    return targets, Searched(
        tuple(run.found),
        Coverage(round(min(1.0, windows / max(1, planned)), 4), None, None, 4, ()),
        len(tests) + len(changed) + len(found_boxes) + len(places),
        len(tests) + len(changed) + windows,
        () if targets and run.finished else _left_out(index.keys_tried),
        time.perf_counter() - started,
        False,
        covered_share(tests) if tests and looks_for_covers(image, level, model) else None,
        candidates=len(found_boxes),
    )


def _afforded(level: Level, keys: int) -> tuple[int, int]:
    """Return how many boxes are tested, and how many places each way the grid of crops has: fewer of many keys."""
    windows = level.products / max(1, keys) / _WAYS
    return int(max(1, min(level.boxes, windows))), int(max(1, min(level.crops, np.sqrt(windows / len(_CROPS)))))


def _crops(page: Page, image_size: tuple[int, int], places: int) -> list[Placement]:
    """Return placements of images of which the page is a part."""
    height, width = image_size
    longest = max(page.size[0] / width, page.size[1] / height)
    found = []
    for size in _CROPS:
        across, down = size * longest * width, size * longest * height
        # From where the image's left or upper edge is the page's to where its right or lower edge is.
        x, y = (
            np.linspace(length - side / 2, side / 2, places if places > 1 else 1) if places > 1 else [length / 2]
            for length, side in zip(page.size, (across, down), strict=True)
        )
        found += [Placement(float(one), float(other), across, down) for one in x for other in y]
    return found


def _counts(found: int, places: int) -> dict[str, int]:
    """Return how many windows of each kind there are; the whole page, turned or mirrored, counts among the boxes."""
    return {"box": 2 * (found + 1), "crop": 2 * places, "turned box": 6 * (found + 1), "turned crop": 6 * places}


def _framed(
    model: LatentModel,
    page: Page,
    own: NoiseMap,
    estimates: Estimates,
    found: Sequence[Placement],
    late: Callable[[], bool],
) -> Iterator[_Window]:
    """Yield the whole page and its boxes, in all ways."""
    size = model.image_size[::-1]
    for box in (whole(page.size), *found):
        if late():
            return
        noise_map = own if box == whole(size) == whole(page.size) else _cut(page, box, estimates)
        yield from _ways(box, "box", noise_map, whole(size), kept=noise_map is own)


def _cropped(
    model: LatentModel, page: Page, places: Sequence[Placement], late: Callable[[], bool]
) -> Iterator[_Window]:
    """Yield the images of which the page may be a part, in all ways, from as few maps as serve them."""
    longest = max(length / side for length, side in zip(page.size, model.image_size[::-1], strict=True))
    least = 0.0
    for scale, most in _MAPS:
        served = [one for one in places if least < one.width / model.image_size[1] / longest <= most]
        if not served or late():
            return
        noise_map = page_map(model, page, scale / longest)
        for one in served:
            yield from _ways(one, "crop", noise_map, one, kept=True)
        least = most


def _ways(placement: Placement, kind: str, noise_map: NoiseMap, on_map: Placement, kept: bool) -> Iterator[_Window]:
    """Yield a window as it is, mirrored, and both by quarter turns: a map turned is nearly the map of what was turned."""
    for degrees in (0.0, 90.0, 180.0, 270.0):
        for mirrored in (False, True):
            there, here = (_turned(one, degrees, mirrored) for one in (placement, on_map))
            yield _Window(there, f"turned {kind}" if degrees else kind, noise_map, here, kept)


def _turned(one: Placement, degrees: float, mirrored: bool) -> Placement:
    across, down = (one.width, one.height) if degrees % 180 == 0 else (one.height, one.width)
    return Placement(one.x, one.y, across, down, degrees, mirrored)


def _cut(page: Page, placement: Placement, estimates: Estimates) -> NoiseMap:
    """Return the noise of a window, brought to the model's size, as a map of its own."""
    image, visible = page.window(placement, estimates.model.image_size)
    noise, cells = estimates.by_screen(image), estimates.cells(visible)
    return NoiseMap(noise[0] * cells[0], cells[0, 0], _cells(estimates.model))


def _cells(model: LatentModel) -> tuple[float, float]:
    (height, width), (h, w) = model.image_size, model.latent_shape[1:]
    return w / width, h / height


def _read(windows: Iterable[_Window], shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the noise of windows, (n, C, h, w), and what they show, (n, 1, h, w), in their order."""
    import torch

    parts: list[tuple[NoiseMap, list[Placement]]] = []
    for one in windows:
        if not parts or parts[-1][0] is not one.noise_map:
            parts.append((one.noise_map, []))
        parts[-1][1].append(one.on_map)
    read = [noise_map.windows(places, (shape[0], shape[1])) for noise_map, places in parts]
    return torch.cat([noise for noise, _ in read]), torch.cat([visible for _, visible in read])


def _looked(index: Index, tests: Sequence[WholeImage], late: Callable[[], bool]) -> dict[int, list[Found]]:
    """Test the whole page in other ways: what was found for keys."""
    import torch

    found: dict[int, list[Found]] = {}
    if not tests:
        return found

    def kept(test: WholeImage, noise: torch.Tensor, visible: torch.Tensor, best: Best) -> bool:
        for key, log10, cosine in best:
            corrected = log10 - float(np.log10(test.weight))
            if corrected < 0:
                one = Found(corrected, cosine, test.words, test.record, (noise * visible)[0])
                found.setdefault(key, []).append(one)
        return bool(best) and best[0][1] - np.log10(test.weight) + np.log10(index.keys_tried) <= PROMISING

    noise, visible = (torch.cat(some) for some in zip(*((one.cheap(), one.visible) for one in tests), strict=True))
    nearest = index.nearest(noise, visible, _BEST)
    promising = [one for one, best in zip(tests, nearest, strict=True) if kept(one, one.cheap(), one.visible, best)]
    for test in promising:
        if test.full is not None and not late():
            noise = test.full()
            kept(test, noise, test.visible_in_full, index.nearest(noise, test.visible_in_full, _BEST)[0])
    return found


def _candidate(hit: _Hit) -> Candidate:
    window = hit.window
    place = window.placement
    guess = Guess(place.width, place.height, place.degrees, place.mirrored, _KINDS[window.kind], hit.weight * STAGES)
    return Candidate(hit.log10, hit.cosine, place, guess, hit.weight, window.noise_map if window.kept else None)


def _strongest(hits: Sequence[_Hit] | None) -> float:
    return min((hit.log10 for hit in hits or ()), default=np.inf)


def _strongest_of(found: Sequence[Found] | None) -> float:
    return min((one.log10_pvalue for one in found or ()), default=np.inf)


def _left_out(keys: int) -> tuple[str, ...]:
    """Say what is not searched under many keys."""
    return (
        "images that no straight edges frame, unless the whole page is one of them or a crop of it",
        "other turns than by quarters",
        f"places between those of the grid (all are searched for fewer keys than {keys})",
    )
