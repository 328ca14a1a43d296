"""Run an encoder or decoder on overlapping tiles, so that its memory depends on the tile and not on the image.

Encoder and decoder use pixels around each output, and normalise over their whole input. So the result of a tile differs from
that part of the whole result. Where two tiles overlap their outputs are blended, which spreads the difference over the seam.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

OVERLAP = 4  # neighbours share at least a fourth of a side, unless asked otherwise


def by_tiles(
    run: Callable[[torch.Tensor], torch.Tensor],
    whole: torch.Tensor,
    cells: int,
    grow: int = 1,
    shrink: int = 1,
    overlap: int = OVERLAP,
) -> torch.Tensor:
    """Run a function on square tiles of an input and blend the outputs linearly; differentiable in the input.

    Parameters
    ----------
    run : callable
        (B, C, H, W) -> (B, C', H grow / shrink, W grow / shrink), for any H and W that are multiples of `shrink`.
    whole : (B, C, H, W)
        H and W multiples of `shrink`.
    cells : int
        Side of a tile, in the coarser of input and output: the tile is `cells shrink` on a side.
    grow, shrink : int
        Factors of the sides; one of them is 1.
    overlap : int
        Neighbours share at least this fraction of a side: 4 is a fourth.

    Returns
    -------
    (B, C', H grow / shrink, W grow / shrink)
        The result of `run` on the whole input, if that fits one tile.
    """
    rows, columns = (list(_starts(side // shrink, cells, overlap)) for side in whole.shape[-2:])
    if len(rows) == len(columns) == 1:
        return run(whole)
    output = weight = None
    for top in rows:
        for left in columns:
            height, width = (min(cells, side // shrink) for side in whole.shape[-2:])
            part = whole[..., top * shrink : (top + height) * shrink, left * shrink : (left + width) * shrink]
            found = run(part)
            share = _ramp(rows, top, height, grow, found)[:, None] * _ramp(columns, left, width, grow, found)
            if output is None or weight is None:
                output = found.new_zeros(*found.shape[:2], *(side // shrink * grow for side in whole.shape[-2:]))
                weight = output.new_zeros(output.shape[-2:])
            where = (..., slice(top * grow, (top + height) * grow), slice(left * grow, (left + width) * grow))
            output[where] += share * found
            weight[where] += share
    assert output is not None and weight is not None
    return output / weight


def _starts(side: int, cells: int, overlap: int) -> Iterator[int]:
    """Yield where tiles begin: as few as overlap enough, all of one size, evenly from edge to edge."""
    if side <= cells:
        yield 0
        return
    stride = cells - cells // overlap
    gaps = -(-(side - cells) // stride)
    yield from (round(i * (side - cells) / gaps) for i in range(gaps + 1))


def _ramp(starts: list[int], start: int, cells: int, grow: int, like: torch.Tensor) -> torch.Tensor:
    """Return a tile's weights along an axis: linear where it overlaps a neighbour, 1 elsewhere."""
    import torch

    shares = like.new_ones(cells * grow)
    for first, second in pairwise(starts):
        shared = (first + cells - second) * grow
        rise = (torch.arange(shared, dtype=like.dtype, device=like.device) + 0.5) / shared
        if second == start:
            shares[:shared] *= rise
        if first == start:
            shares[-shared:] *= rise.flip(0)
    return shares
