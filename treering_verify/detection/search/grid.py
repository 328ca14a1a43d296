"""The hypotheses: which sizes, angles, reflections and aspects are looked for on a page, their weights, and their order.

Everything here depends on the sizes of page and model, on the key's annulus and on the level of the search: never on a key's
numbers, and never on what was found.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from treering_verify.detection.search.settings import Level
from treering_verify.watermark.patterns.base import Layout

IDENTITY = 0.5
"""Share of alpha of an image as it is; the hypotheses of a search have the rest."""
DIRECT = 0.125
"""Share of alpha of what is tried on the whole image: other estimates of its noise, other colours, offsets in time."""
SHARES = {"upright": 0.1875, "quarter": 0.0625, "turned": 0.0625, "stretched": 0.0625}
"""Share of alpha of each group of placements."""
STAGES = 3
"""A placement may be tested on a map, on its window by the screen, and on its window inverted in full."""

# Distances between neighbours, times the key's outer radius: relative size; radians.
_SIZE_STEP, _ANGLE_STEP = 0.7, 0.95  # for a key of radius 9: 8 %, 6 degrees
_LARGEST = 2.1  # side of the largest image that is looked for, in longer sides of the page
_RATIO = 1.5  # between the scales of neighbouring maps
_FINEST = 1.19  # size of a window on its map, in windows of the model, at most
_COARSEST = 0.7  # of turned guesses, where a finer map would serve nothing else
_THINNEST = 8  # pixels of the shorter side of a scaled page: a cell of the usual latent
_MAP_PIXELS = 16_000_000  # of a scaled page, at most
_ASPECTS = (4 / 5, 3 / 4, 2 / 3, 9 / 16)


@dataclass(frozen=True)
class Guess:
    """Size, angle and reflection that an image may have on a page, with its share of alpha.

    Attributes
    ----------
    width, height : float
        Size of the image on the page, in pixels.
    degrees : float
    mirrored : bool
    group : str
        One of `SHARES`.
    weight : float
    """

    width: float
    height: float
    degrees: float
    mirrored: bool
    group: str
    weight: float = 0.0


@dataclass(frozen=True)
class Pass:
    """What one map of the page is searched for.

    Attributes
    ----------
    scale : float
        Factor by which the page's sides are scaled.
    area : float
        Cost, in images of the model's size.
    guesses : tuple of Guess
    shorter_side : float
        Shorter side of the scaled page, in pixels.
    """

    scale: float
    area: float
    guesses: tuple[Guess, ...]
    shorter_side: float = math.inf


def passes(
    page: tuple[int, int],
    image_size: tuple[int, int],
    layout: Layout,
    level: Level,
    share: float = 1.0,
    filled: bool = False,
) -> list[Pass]:
    """Plan a search, the most likely for its cost first. The weights of all guesses sum to at most a share of `SHARES`.

    Parameters
    ----------
    page : (width, height)
    image_size : (height, width)
        Size of the model's images.
    layout : Key or Family
    level : Level
    share : float
    filled : bool
        Whether only images are looked for that fill the page, or reach from edge to edge of it one way.
    """
    found = _guesses(page, image_size, layout, level, filled)
    counts = {group: sum(one.group == group for one in found) for group in SHARES}
    by_scale: dict[int, list[Guess]] = {}
    for one in found:
        weight = share * SHARES[one.group] / counts[one.group]
        by_scale.setdefault(_step_of(one, image_size), []).append(replace(one, weight=weight))
    finest = max(by_scale)
    if finest - 1 in by_scale and all(_coarser_will_do(one, finest, image_size) for one in by_scale[finest]):
        by_scale[finest - 1] += by_scale.pop(finest)
    planned = []
    for step, guesses in by_scale.items():
        scale = _RATIO**step
        pixels = page[0] * page[1] * scale**2
        planned.append(Pass(scale, pixels / (image_size[0] * image_size[1]), tuple(guesses), min(page) * scale))
    planned.sort(key=lambda one: -sum(guess.weight for guess in one.guesses) / (0.2 + one.area))
    return planned


def affordable(planned: list[Pass], image_size: tuple[int, int], level: Level) -> list[Pass]:
    """Return the passes that a level pays for, in their order; the first in any case, unless the page is too thin for it."""
    kept: list[Pass] = []
    left = level.area
    for one in planned:
        if one.shorter_side < _THINNEST:  # scaled to whole pixels, it would be stretched out of all proportion
            continue
        if one.area * image_size[0] * image_size[1] <= _MAP_PIXELS and (one.area <= left or not kept):
            kept.append(one)
            left -= one.area
    return kept


def fills(guess: Guess, page: tuple[int, int], image_size: tuple[int, int]) -> bool:
    """Whether a guess is an upright image that fills a page: whole, or cropped."""
    longest = max(page[0] / image_size[1], page[1] / image_size[0])
    return guess.group == "upright" and guess.width >= 0.95 * longest * image_size[1]


def size_step(layout: Layout) -> float:
    """Return about the ratio of neighbouring sizes."""
    return 1 + _SIZE_STEP / layout.outer_radius


def angle_step(layout: Layout) -> float:
    """Return about the distance between neighbouring angles, in radians."""
    return _ANGLE_STEP / layout.outer_radius


def _step_of(guess: Guess, image_size: tuple[int, int]) -> int:
    """Which map serves a guess: the coarsest on which its window has .8 of the model's cells or more."""
    return math.floor(math.log(_FINEST / _relative(guess, image_size)) / math.log(_RATIO))


def _coarser_will_do(guess: Guess, step: int, image_size: tuple[int, int]) -> bool:
    """Whether a turned guess has .7 of the model's cells or more on the map that is one step coarser and costs half."""
    return guess.group == "turned" and _relative(guess, image_size) * _RATIO ** (step - 1) >= _COARSEST


def _relative(guess: Guess, image_size: tuple[int, int]) -> float:
    return math.sqrt(guess.width * guess.height / (image_size[0] * image_size[1]))


def _guesses(
    page: tuple[int, int], image_size: tuple[int, int], layout: Layout, level: Level, filled: bool
) -> list[Guess]:
    height, width = image_size
    ratio = size_step(layout)
    longest = max(page[0] / width, page[1] / height)
    shortest = min(page[0] / width, page[1] / height)
    low = min(level.smallest, level.smallest * shortest)
    if filled:
        low = shortest / ratio
    elif page[0] * page[1] > 4 * width * height:
        low = level.smallest
    first, last = math.ceil(math.log(low) / math.log(ratio)), math.floor(math.log(_LARGEST * longest) / math.log(ratio))
    sizes = [ratio**i for i in range(first, last + 1)]
    found = []
    for size in sizes:
        for mirrored in (False, True):
            for degrees in (0, 90, 180, 270):
                group = "quarter" if degrees else "upright"
                found.append(Guess(size * width, size * height, float(degrees), mirrored, group))
    if level.turns:
        count = 4 * math.ceil(2 * math.pi / angle_step(layout) / 4)
        turns = [360 * i / count for i in range(count) if 4 * i % count]
        near = [size for size in sizes if level.turns > 1 or 0.93 <= size / shortest <= 1.2]
        found += [
            Guess(size * width, size * height, degrees, mirrored, "turned")
            for degrees in turns
            for size in (*near, *_turned_to_fit(page, image_size, degrees))
            for mirrored in (False, True)
        ]
    for aspect in _aspects(page, image_size, level):
        # The page squeezed or cut to the model's shape, and a little less or more of it.
        for i in range(-3, 4):
            size = math.sqrt(page[0] / width * page[1] / height) * ratio**i
            across, down = size * width * math.sqrt(aspect), size * height / math.sqrt(aspect)
            found += [Guess(across, down, 0.0, mirrored, "stretched") for mirrored in (False, True)]
    return found


def _turned_to_fit(page: tuple[int, int], image_size: tuple[int, int], degrees: float) -> list[float]:
    """Return sizes of a turned image: as an editor enlarges the canvas around it, and as one cuts its corners off."""
    height, width = image_size
    c, s = abs(math.cos(math.radians(degrees))), abs(math.sin(math.radians(degrees)))
    box = width * c + height * s, height * c + width * s
    whole = min(page[0] / box[0], page[1] / box[1])
    # The largest box of the page's shape inside of the turned image.
    cut = max((page[0] * c + page[1] * s) / width, (page[1] * c + page[0] * s) / height)
    return [whole, cut]


def _aspects(page: tuple[int, int], image_size: tuple[int, int], level: Level) -> list[float]:
    """Aspects, relative to the model's, that an image may have been stretched to."""
    own = page[0] / page[1] / (image_size[1] / image_size[0])
    found = [own] if abs(math.log(own)) > 0.04 else []
    if level.stretched:
        found += [
            one for a in _ASPECTS for one in (a, 1 / a) if all(abs(math.log(one / other)) > 0.05 for other in found)
        ]
    return [one for one in found if 1 / 3 < one < 3]
