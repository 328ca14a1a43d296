"""Rows of pines: one tree in each cell of a row, its place, height and width drawn for each scene."""

from __future__ import annotations

import torch
from torch import Tensor

_TIERS = 5.0


def pines(
    u: Tensor, v: Tensor, ground: Tensor, *, cells: int, height: float, g: torch.Generator, share: float = 1.0
) -> Tensor:
    """Return the opacity of a row of pines, (B, 1, S, S).

    Parameters
    ----------
    u, v : (1, 1, 1, S), (1, 1, S, 1)
        Places in the image, fractions of its side.
    ground : (B, 1, 1, S)
        Where they stand, v by column.
    cells : int
        Places for a tree, side by side.
    height : float
        Height of the tallest tree, as a fraction of the image's side.
    g : torch.Generator
    share : float
        Share of the places that have a tree.
    """
    count, size = ground.shape[0], u.shape[-1]
    drawn = torch.rand(4, count, cells, generator=g)
    cell = (u.flatten() * cells).long().clamp(max=cells - 1)  # (S,)
    place, tall, wide, there = (drawn[i][:, cell].view(count, 1, 1, size) for i in range(4))
    centre = (cell + 0.5).view(1, 1, 1, size) / cells + 0.3 * (place - 0.5) / cells
    column = (centre * size).long().clamp(max=size - 1)
    foot = ground.gather(3, column.expand_as(tall))
    top = foot - height * (0.55 + 0.45 * tall)
    fall = (v - top) / (foot - top)  # 0 at the top, 1 at the foot
    tier = torch.remainder(fall.clamp(min=0) * _TIERS, 1.0)
    reach = (
        fall.clamp(0, 1)
        * (0.62 + 0.38 * tier)
        * torch.minimum((0.30 + 0.12 * wide) * (foot - top), torch.tensor(0.48 / cells))
    )
    inside = torch.sigmoid((reach - (u - centre).abs()) * 1.4 * size) * torch.sigmoid((v - top) * size)
    return inside * torch.sigmoid((foot + 0.03 - v) * size) * (there < share).float()
