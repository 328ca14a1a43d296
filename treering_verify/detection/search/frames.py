"""Boxes on a page that may each be an image: rectangles of straight, sharp edges, found from the page alone.

An image in a screenshot, a cell of a collage, what a border or a caption leaves: each has four sides that are lines on the
page, or edges of the page itself. No key has a part in this.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from treering_verify.detection.search.placement import Box, Placement

if TYPE_CHECKING:
    from treering_verify.detection.search.page import Page

    Floats = npt.NDArray[np.float64]
    Pairs = Callable[[Floats, Floats], tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]

_PIXELS = 2_000_000  # of a page that is looked at; a larger one is reduced
_COARSER = 3  # steps of the page at which it is looked at, too, where it is large
_CONTRAST = 8  # least difference across an edge, in grey levels
_STANDS_OUT = 1.5  # times the differences two and three pixels away, that an edge has
_RUN, _FULL = 17, 0.7  # pixels along a line of which such a share is edge
_LINES = 64  # lines each way, at most, besides the page's edges
_FEWER_LINES = 24  # the same, where boxes of any shape are looked for
_PAGES_EDGE = 0.7  # what an edge of the page counts for, where a drawn side counts for at most 1
_VERY_CLEAR = (
    np.inf,
    1.9,
    1.6,
    1.6,
    1.6,
)  # of at most 2, by how many sides are none of the page's edges (docs/search.md)
_LEAST_SIDE = 48  # pixels of a very clear box: in smaller images, straight edges are the pattern of a few cells
_NEAR_A_SIDE = 0.1  # of a box's length: lines this near to a side may belong to it
_BLOCK = 8  # pixels of a codec's block, from whose sides an image of low quality takes straight edges
_MOST_BLOCKS = 12  # along a side that such edges make by chance
_GRID, _GRID_STANDS_OUT = 2, 1.6  # grey levels across blocks' sides, and how many times those elsewhere: medians
_SMALLEST = 0.4  # shorter side of a box, in sides of the model's image
_SHAPE = 0.04  # difference of its aspect ratio from the model's, as a logarithm
_SAME = 2.5  # pixels within which the sides of two boxes are the same
CLEAR = 1.3
"""How clearly a box is drawn, of 2, that is looked at: photographs have boxes of a model's shape of 1.2 at most."""
_SMALLEST_PART = 0.6  # shorter side of a box of any shape, in sides of the model's image
_THINNEST = 3.2  # longer side of such a box, in shorter ones, at most
_MOST_OF_PAGE = 0.9  # share of the page that such a box takes, at most
_SAME_PART = 0.7  # share of two boxes together that they have in common, from which on the less clear one is left out
_ONE_COLOUR = 0.6  # share of an image's pixels that have one colour, at most: paper under text has more


def boxes(page: Page, image_size: tuple[int, int], most: int, clear: float = 0.0) -> list[Placement]:
    """Return boxes of about a model's shape, the most clearly drawn first.

    Parameters
    ----------
    page : Page
    image_size : (height, width)
        Size of the model's images.
    most : int
        Number of boxes, at most.
    clear : float
        How clearly they are drawn, at least, from 0 to 2.
    """
    chosen: list[Floats] = []
    found, finest = _ordered(page, image_size, _SMALLEST)
    for box in found:
        if len(chosen) == most or box[4] < clear:
            break
        if all(np.abs(box[:4] - other[:4]).max() > _SAME * finest for other in chosen):
            chosen.append(box)
    return [
        Placement(float(left + right) / 2, float(top + bottom) / 2, float(right - left), float(bottom - top))
        for left, top, right, bottom, *_ in chosen
    ]


def drawn_parts(page: Page, image_size: tuple[int, int], most: int) -> list[Box]:
    """Return boxes of any shape that are drawn clearly and hold an image, the most clearly drawn first.

    Parameters
    ----------
    page : Page
    image_size : (height, width)
        Size of the model's images: a part has at least .6 of its sides.
    most : int
        Number of boxes, at most.
    """
    step, smallest = _step_of(page), _SMALLEST_PART * min(image_size)
    found = _found(page, step, _FEWER_LINES, partial(_of_any_shape, least=smallest / step))
    across, down = found[:, 2] - found[:, 0], found[:, 3] - found[:, 1]
    found = found[(found[:, 4] >= CLEAR) & (across * down <= _MOST_OF_PAGE * page.pixels)]
    size = (found[:, 2] - found[:, 0]) * (found[:, 3] - found[:, 1])
    order = np.lexsort((-size, -found[:, 4].round(1), found[:, 7]))
    chosen: list[Box] = []
    for edges in found[order, :4].round().astype(int).tolist():
        box: Box = tuple(edges)
        if len(chosen) == most:
            break
        if all(_common(box, other) < _SAME_PART for other in chosen) and _holds_image(page, box):
            chosen.append(box)
    return chosen


def drawn_sizes(page: Page, image_size: tuple[int, int], smallest: float) -> list[float]:
    """Return the sizes of all boxes that are drawn very clearly, in shorter sides of the model's image, ascending.

    Sides that are edges of the page do not count, and at least one is none. No drawn line crosses a box: squares of a
    chessboard make none. Nor do blocks of a codec, where they show.

    Parameters
    ----------
    page : Page
    image_size : (height, width)
        Size of the model's images.
    smallest : float
        Least size.
    """
    found, _ = _ordered(page, image_size, smallest)
    edges = np.stack([found[:, 0] == 0, found[:, 1] == 0, found[:, 2] == page.size[0], found[:, 3] == page.size[1]])
    drawn = 4 - edges.sum(axis=0)
    mean, least = found[:, 5] / np.maximum(drawn, 1), found[:, 6]
    large = np.minimum(found[:, 2] - found[:, 0], found[:, 3] - found[:, 1]) >= _LEAST_SIDE
    clear = found[large & (mean + least >= np.array(_VERY_CLEAR)[drawn]) & (found[:, 7] == 0)]
    if len(clear) and _shows_blocks(page):
        within = (clear[:, :4] > 0) & (clear[:, :4] < (*page.size, *page.size))  # sides that are no edges of the page
        small = np.minimum(clear[:, 2] - clear[:, 0], clear[:, 3] - clear[:, 1]) < _MOST_BLOCKS * _BLOCK
        clear = clear[~small | ((clear[:, :4] % _BLOCK != 0) & within).any(axis=1)]
    sizes = np.minimum((clear[:, 2] - clear[:, 0]) / image_size[1], (clear[:, 3] - clear[:, 1]) / image_size[0])
    return [float(size) for size in np.unique(sizes)]


def _shows_blocks(page: Page) -> bool:
    """Whether a page's pixels differ more across the sides of a codec's blocks than elsewhere, along both axes."""
    pixels = np.asarray(page.frames[0], dtype=np.int16)
    for turned in (pixels, pixels.swapaxes(0, 1)):
        steps = np.abs(np.diff(turned, axis=1)).max(axis=2).mean(axis=0)
        on_grid = np.arange(1, len(steps) + 1) % _BLOCK == 0
        across = np.median(steps[on_grid]) if on_grid.any() else 0.0
        if across < max(_GRID, _GRID_STANDS_OUT * np.median(steps[~on_grid])):
            return False
    return True


def _ordered(page: Page, image_size: tuple[int, int], smallest: float) -> tuple[Floats, int]:
    """Return the rectangles of a model's shape, the most clearly drawn first, and the page's step that they are exact to."""
    finest = _step_of(page)
    coarser = _COARSER * finest  # text fades there, and a side that a codec has blurred stands out
    steps = (finest, coarser) if min(page.size) >= coarser * max(image_size) else (finest,)
    shape = image_size[1] / image_size[0]
    found = np.concatenate([_found(page, step, _LINES, partial(_of_shape, shape=shape)) for step in steps])
    across, down = found[:, 2] - found[:, 0], found[:, 3] - found[:, 1]
    fits = np.minimum(across / image_size[1], down / image_size[0]) >= smallest
    fits &= (across < 0.98 * page.size[0]) | (down < 0.98 * page.size[1])  # the whole page is no box on it
    found = found[fits]
    return found[np.argsort(-found[:, 4], kind="stable")], finest


def _step_of(page: Page) -> int:
    """Return by how much the sides of a page are divided at least."""
    return int(np.ceil(np.sqrt(page.pixels / _PIXELS)))


def _found(page: Page, step: int, most: int, pairs: Pairs) -> Floats:
    """Return the rectangles that some lines of a page, whose sides are divided by a step, bound: in pixels of the page."""
    frame = page.frames[0] if step == 1 else page.frames[0].reduce(step)
    pixels = np.asarray(frame, dtype=np.int16)
    columns, beside = _lines(pixels, most)
    rows, above = _lines(pixels.swapaxes(0, 1), most)
    found = _rectangles(columns, rows, _sums(beside, columns), _sums(above, rows), pairs)
    return np.minimum(found * (*[step] * 4, 1, 1, 1, 1), (*page.size, *page.size, *[np.inf] * 4))


def _lines(pixels: npt.NDArray[np.int16], most: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Return places of the longest vertical lines in pixels (rows, columns, 3), outer edges too, and which pixels are edges.

    The second is (rows, columns + 1): at [y, x] between the pixels x - 1 and x of row y.
    """
    from scipy.ndimage import maximum_filter1d, uniform_filter1d

    rows, columns = pixels.shape[:2]
    steps = np.zeros((rows, columns + 1), np.float32)
    steps[:, 1:-1] = np.abs(np.diff(pixels, axis=1)).max(axis=2)
    around = np.maximum(*(0.5 * (np.roll(steps, 2 * side, 1) + np.roll(steps, 3 * side, 1)) for side in (-1, 1)))
    edge = (steps >= _CONTRAST) & (steps == maximum_filter1d(steps, 3, axis=1)) & (steps > _STANDS_OUT * around)
    near = maximum_filter1d(edge, 3, axis=1)  # a line may waver by a pixel
    drawn = (uniform_filter1d(near.astype(np.float32), _RUN, axis=0) >= _FULL) & edge
    lengths = drawn.sum(axis=0)
    peaks = np.flatnonzero((lengths == maximum_filter1d(lengths, 3)) & (lengths >= _RUN))
    longest = peaks[np.argsort(-lengths[peaks], kind="stable")[:most]]
    return np.unique(np.concatenate([[0, columns], longest])), near


def _sums(edge: npt.NDArray[np.bool_], lines: npt.NDArray[np.int64]) -> Floats:
    """Return sums of edges along lines from their beginning: (lines, length + 1)."""
    return np.pad(edge[:, lines].astype(np.float64).cumsum(axis=0), ((1, 0), (0, 0))).T


def _rectangles(
    columns: npt.NDArray[np.int64], rows: npt.NDArray[np.int64], beside: Floats, above: Floats, pairs: Pairs
) -> Floats:
    """Return the rectangles that lines bound, of those that `pairs` chooses by their widths and heights.

    A row for each: left, top, right, bottom; how clearly it is drawn, from 0 to 2; and, without the page's edges, the shares
    of its sides that are drawn: their sum, and the least; and, of clear ones, whether a line crosses it.
    """
    across, down = (np.array(list(combinations(range(len(lines)), 2))) for lines in (columns, rows))
    widths, heights = columns[across[:, 1]] - columns[across[:, 0]], rows[down[:, 1]] - rows[down[:, 0]]
    down = down[order := np.argsort(heights, kind="stable")]
    a, d = pairs(widths, heights[order])
    left, right, top, bottom = across[a, 0], across[a, 1], down[d, 0], down[d, 1]

    def side(
        sums: Floats, line: npt.NDArray[np.int64], begin: npt.NDArray[np.int64], end: npt.NDArray[np.int64]
    ) -> Floats:
        share = (sums[line, end] - sums[line, begin]) / np.maximum(end - begin, 1)
        return np.where((line == 0) | (line == len(sums) - 1), np.nan, share)

    sides = [side(beside, line, rows[top], rows[bottom]) for line in (left, right)]
    sides += [side(above, line, columns[left], columns[right]) for line in (top, bottom)]
    shares = np.stack(sides)
    counted, drawn = (np.where(np.isnan(shares), of_edges, shares) for of_edges in (_PAGES_EDGE, 0.0))
    clear = counted.mean(axis=0) + counted.min(axis=0)
    least = np.where(np.isnan(shares), 1.0, shares).min(axis=0)
    crossed = np.zeros(len(least))
    for i in np.flatnonzero((least >= _VERY_CLEAR[-1] / 2) | (clear >= CLEAR)):
        one_way = _crossed(columns, left[i], right[i], beside, rows[top[i]], rows[bottom[i]])
        crossed[i] = one_way or _crossed(rows, top[i], bottom[i], above, columns[left[i]], columns[right[i]])
    found = [columns[left], rows[top], columns[right], rows[bottom], clear, drawn.sum(axis=0), least, crossed]
    return np.stack(found, axis=1).astype(np.float64)


def _of_shape(widths: Floats, heights: Floats, shape: float) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the pairs of widths and ascending heights that have about a shape."""
    wanted = widths / shape
    first, last = (np.searchsorted(heights, wanted * np.exp(by)) for by in (-_SHAPE, _SHAPE))
    a = np.repeat(np.arange(len(widths)), last - first)
    return a, np.arange(len(a)) - np.repeat(np.cumsum(last - first) - last, last - first)


def _of_any_shape(widths: Floats, heights: Floats, least: float) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the pairs of widths and heights that are not smaller than that, nor very long."""
    shorter, longer = np.minimum.outer(widths, heights), np.maximum.outer(widths, heights)
    a, d = np.nonzero((shorter >= least) & (longer <= _THINNEST * shorter))
    return a, d


def _common(one: Box, other: Box) -> float:
    """Return which share of two boxes together they have in common."""
    low, high = np.maximum(one[:2], other[:2]), np.minimum(one[2:], other[2:])
    shared = float(np.prod(np.maximum(high - low, 0)))
    areas = [(right - left) * (bottom - top) for left, top, right, bottom in (one, other)]
    return shared / (sum(areas) - shared)


def _holds_image(page: Page, box: Box) -> bool:
    """Whether a box of a page has no colour that most of its pixels have, as paper under text has."""
    pixels = np.asarray(page.frames[0].crop(box).convert("P"))
    return bool(np.bincount(pixels.ravel()).max() <= _ONE_COLOUR * pixels.size)


def _crossed(
    lines: npt.NDArray[np.int64], first: np.int64, last: np.int64, sums: Floats, begin: np.int64, end: np.int64
) -> bool:
    """Whether a line between two others, not near them, is drawn from side to side of the box that they bound."""
    margin = _NEAR_A_SIDE * (lines[last] - lines[first])
    within = (lines > lines[first] + margin) & (lines < lines[last] - margin)
    return bool(((sums[within, end] - sums[within, begin]) >= _FULL * (end - begin)).any())
