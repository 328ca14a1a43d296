"""Refine a guess: where exactly the image lies, by the key, on a lattice that is fixed beforehand."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from treering_verify.detection.search.noise_map import NoiseMap
from treering_verify.detection.search.placement import Placement
from treering_verify.media.blank_areas import mask_occluded
from treering_verify.watermark.embedding import extract, features

if TYPE_CHECKING:
    import torch

    from treering_verify.detection.search.target import Target

_PLACE, _SIZE, _ANGLE = 0.125, 0.01, 0.5  # steps: cells of the model, relative size, degrees
_MOST_PLACE, _MOST_SIZE, _MOST_ANGLE = 12, 8, 8  # of them each way
_NEAR_OWN_SIZE = 0.05  # of 1:1: maps mistake a frame for a smaller image by up to 3 %
SIZES, ANGLES = 2 * _MOST_SIZE + 1, 2 * _MOST_ANGLE + 1
"""How many sizes and angles a lattice has."""


@dataclass(frozen=True)
class Lattice:
    """Placements around a guess.

    Attributes
    ----------
    guess : Placement
    shape : (h, w)
        Height and width of the model's latent.
    turned : bool
        Whether the angle is refined too.
    stretched : bool
        Whether width and height are refined apart.
    """

    guess: Placement
    shape: tuple[int, int]
    turned: bool
    stretched: bool

    @property
    def count(self) -> int:
        """How many placements there are, those that are aligned with the page's pixels among them."""
        sizes = SIZES ** (2 if self.stretched else 1)
        angles = ANGLES if self.turned else 1
        return int((2 * _MOST_PLACE + 1) ** 2 * sizes * angles + self._aligned)

    @property
    def _aligned(self) -> int:
        """How many placements `aligned` can give: all corners on whole pixels, and, at each step, edges on the page's."""
        (h, w), reach = self.shape, _MOST_PLACE * _PLACE
        sides = (
            2 * math.ceil(reach * side / cells) + 4 for side, cells in ((self.guess.width, w), (self.guess.height, h))
        )
        return math.prod(sides) + 2 * (2 * _MOST_PLACE + 1) + 1

    def at(self, steps: npt.NDArray[np.int64]) -> Placement:
        """Return the placement so many steps from the guess, (5,): right, down, width, height, angle."""
        g, (h, w) = self.guess, self.shape
        return replace(
            g,
            x=g.x + steps[0] * _PLACE * g.width / w,
            y=g.y + steps[1] * _PLACE * g.height / h,
            width=g.width * (1 + _SIZE) ** steps[2],
            height=g.height * (1 + _SIZE) ** steps[3],
            degrees=(g.degrees + steps[4] * _ANGLE) % 360,
        )

    def nearest(self, placement: Placement) -> npt.NDArray[np.int64]:
        """Return the steps to the lattice's point nearest to a placement."""
        g, (h, w) = self.guess, self.shape
        sizes = [np.log(placement.width / g.width), np.log(placement.height / g.height)]
        if not self.stretched:
            sizes = [sum(sizes) / 2] * 2
        turn = (placement.degrees - g.degrees + 180) % 360 - 180 if self.turned else 0.0
        steps = np.array(
            [
                (placement.x - g.x) * w / g.width / _PLACE,
                (placement.y - g.y) * h / g.height / _PLACE,
                *(size / np.log(1 + _SIZE) for size in sizes),
                turn / _ANGLE,
            ]
        )
        most = [_MOST_PLACE, _MOST_PLACE, _MOST_SIZE, _MOST_SIZE, _MOST_ANGLE]
        return np.clip(np.rint(steps), np.negative(most), most).astype(np.int64)

    def aligned(self, placement: Placement, page: tuple[int, int], image_size: tuple[int, int]) -> list[Placement]:
        """Return what is close to a placement and likelier: at 1:1 on whole pixels, or with its edges on the page's."""
        if placement.degrees % 90:
            return []
        height, width = image_size if placement.degrees % 180 == 0 else image_size[::-1]
        across, down = (
            (placement.width, placement.height) if placement.degrees % 180 == 0 else (placement.height, placement.width)
        )
        found = []
        left, top = placement.x - across / 2, placement.y - down / 2
        if abs(across / width - 1) < _NEAR_OWN_SIZE and abs(down / height - 1) < _NEAR_OWN_SIZE:
            near = round(left + (across - width) / 2), round(top + (down - height) / 2)
            moves = [(x, y) for x in (-1, 0, 1) for y in (-1, 0, 1)]
            found += [_boxed(placement, near[0] + x, near[1] + y, width, height) for x, y in moves]
        wide, high = abs(across / page[0] - 1) < 0.02, abs(down / page[1] - 1) < 0.02
        if wide and high:
            found.append(_boxed(placement, 0, 0, *page))
        elif wide and not self.stretched:
            scaled = page[0] * down / across
            found.append(_boxed(placement, 0, top + (down - scaled) / 2, page[0], scaled))
        elif high and not self.stretched:
            scaled = page[1] * across / down
            found.append(_boxed(placement, left + (across - scaled) / 2, 0, scaled, page[1]))
        return found


def _boxed(like: Placement, left: float, top: float, across: float, down: float) -> Placement:
    width, height = (across, down) if like.degrees % 180 == 0 else (down, across)
    return replace(like, x=left + across / 2, y=top + down / 2, width=float(width), height=float(height))


def refined(noise_map: NoiseMap, target: Target, lattice: Lattice, start: Placement) -> Placement:
    """Return the lattice's placement at which a map agrees most with a key, as far as a climb from a start finds it."""
    best = lattice.nearest(start)
    score = _cosines(noise_map, target, [lattice.at(best)])[0]
    for moves in _moves(lattice):
        some = np.unique(np.clip(best + moves, -_BOUNDS, _BOUNDS), axis=0)
        cosines = _cosines(noise_map, target, [lattice.at(steps) for steps in some])
        winner = int(cosines.argmax())
        if cosines[winner] > score:
            best, score = some[winner], cosines[winner]
    return lattice.at(best)


_BOUNDS = np.array([_MOST_PLACE, _MOST_PLACE, _MOST_SIZE, _MOST_SIZE, _MOST_ANGLE])


def _moves(lattice: Lattice) -> Iterator[npt.NDArray[np.int64]]:
    """Yield steps that are tried together: places, then sizes and angles, by halves."""
    line = np.arange(-2, 3)
    for unit in (4, 2, 1, 1):
        places = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2) * unit
        yield np.pad(places, ((0, 0), (0, 3)))
        if lattice.stretched:
            sizes = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2) * max(1, unit // 2)
            yield np.pad(sizes, ((0, 0), (2, 1)))
        else:
            angles = line * max(1, unit // 2) if lattice.turned else np.zeros(1, dtype=np.int64)
            both = np.stack(np.meshgrid(line * max(1, unit // 2), angles), axis=-1).reshape(-1, 2)
            yield np.pad(both[:, [0, 0, 1]], ((0, 0), (2, 0)))


def _cosines(noise_map: NoiseMap, target: Target, placements: list[Placement]) -> npt.NDArray[np.float64]:
    return target.cosines(read(noise_map, target, placements))


def read(noise_map: NoiseMap, target: Target, placements: list[Placement]) -> npt.NDArray[np.float64]:
    """Read the features of a map's windows, (n, d), as the key's test takes them."""
    noise, visible = noise_map.windows(placements, target.family.latent_shape[1:])
    return read_noise(noise, visible, target)


def read_noise(noise: torch.Tensor, visible: torch.Tensor, target: Target) -> npt.NDArray[np.float64]:
    """Read the features of noise (n, C, h, w) where it is visible, (n, 1, h, w)."""
    return features(extract(mask_occluded(noise, visible), target.family), target.family)


def composed(outer: Placement, inner: Placement, image_size: tuple[int, int]) -> Placement:
    """Return where on the page something lies whose placement (`inner`) within a window (`outer`) is known.

    `image_size` is the size of the window as it was cut out, (height, width).
    """
    height, width = image_size
    x, y = outer.to_page(np.array(inner.x / width - 0.5), np.array(inner.y / height - 0.5))
    return replace(
        outer,
        x=float(x),
        y=float(y),
        width=outer.width * inner.width / width,
        height=outer.height * inner.height / height,
        degrees=(outer.degrees + (-inner.degrees if outer.mirrored else inner.degrees)) % 360,
    )
