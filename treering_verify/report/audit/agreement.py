"""The agreement of a noise estimate with a key: by ring, and drawn over the key's annulus in cells of several bins.

A drawing of every bin would tell the key. Where F is known, which anyone has who has the image and the model, Re(F conj K)
of a bin is an equation for K. So a cell holds at least `_NUMBERS` of the key's numbers, and one of five levels is drawn:
docs/audit.md says what that tells beyond the images themselves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from treering_verify.watermark.keys.key import Key

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from treering_verify.watermark.spectrum import Bins

_NUMBERS = 32
_LEVELS = 2  # a cosine of 1 is level 2, of -1 level -2
_COLOURS = {-2: (52, 86, 139), -1: (132, 164, 209), 0: (190, 194, 199), 1: (236, 158, 104), 2: (190, 84, 28)}
"""Blue to orange, apart also for those who do not tell red from green; seen on white and on black."""


class Agreement(NamedTuple):
    """How a noise estimate agrees with a key.

    Attributes
    ----------
    rings : tuple of (ring, cosine)
    rows, columns : (m,) int64
        Offset from the centre of the spectrum, of each bin and of its conjugate partner; empty where there is no map.
    levels : (m,) int64
        Level of the bin's cell, from -2 to 2.
    cells : int
        Count of cells in the half-plane.
    agreeing : int
        Count of those whose level is positive.
    """

    rings: tuple[tuple[int, float], ...]
    rows: npt.NDArray[np.int64]
    columns: npt.NDArray[np.int64]
    levels: npt.NDArray[np.int64]
    cells: int
    agreeing: int


def agreement(noise_hat: torch.Tensor, key: Key) -> Agreement | None:
    """Return the agreement of a noise estimate, (C, h, w), with a key; None if the key is not written into a spectrum.

    There is no map of patterns with one number a ring, of which few cells would tell the key.
    """
    from treering_verify.watermark.embedding import extract, features, key_bins
    from treering_verify.watermark.patterns import PATTERNS

    if PATTERNS[key.pattern].bins is None:
        return None
    bins, channels = key_bins(key), len(key.channels)
    a = features(extract(noise_hat[None], key), key).ravel()
    k = key.numbers.ravel()
    if len(a) != len(k):
        return None
    radii = np.unique(bins.ring)
    place = bin_of_numbers(key)
    if place is not None:
        ring_of = bins.ring[place]
    elif len(k) == channels * len(radii):
        ring_of = np.tile(radii, channels)
    else:
        return None
    rings = tuple((int(ring), _cosine(a[ring_of == ring], k[ring_of == ring])) for ring in radii)
    if place is None:
        nothing = np.empty(0, np.int64)
        return Agreement(rings, nothing, nothing, nothing, 0, 0)
    cell = cell_of_bins(key)
    chosen = [cell[place] == one for one in range(cell.max() + 1)]
    level = np.rint([_LEVELS * _cosine(a[mine], k[mine]) for mine in chosen]).astype(np.int64)
    y, x = _offsets(bins)
    return Agreement(
        rings,
        np.concatenate([y, -y]),
        np.concatenate([x, -x]),
        np.tile(level[cell], 2),
        len(level),
        int((level > 0).sum()),
    )


def draw_agreement(found: Agreement, size: int) -> Image.Image:
    """Return the map as an image: orange where image and key agree, blue where they are opposed, transparent elsewhere."""
    from PIL import Image

    half = int(np.abs(found.rows).max()) + 1
    pixels = np.zeros((2 * half + 1, 2 * half + 1, 4), np.uint8)
    pixels[found.rows + half, found.columns + half] = [(*_COLOURS[int(level)], 255) for level in found.levels]
    return Image.fromarray(pixels).resize((size, size), Image.Resampling.NEAREST)


def bin_of_numbers(key: Key) -> npt.NDArray[np.int64] | None:
    """Return the bin of each of a key's numbers, (d,), if each bin has numbers of its own; else None."""
    from treering_verify.watermark.embedding import key_bins

    count = len(key_bins(key))
    for parts in (2, 1):  # real and imaginary parts, or one sign
        if key.numbers.size == len(key.channels) * count * parts:
            return np.tile(np.arange(count), len(key.channels) * parts)
    return None


def cell_of_bins(key: Key) -> npt.NDArray[np.int64]:
    """Return the cell of each bin: neighbours in a ring with `_NUMBERS` or more numbers, or the whole ring."""
    from treering_verify.watermark.embedding import key_bins

    bins = key_bins(key)
    angle = np.arctan2(*_offsets(bins))
    least = max(1, -(-_NUMBERS * len(bins) // key.numbers.size))
    cell_of, first = np.empty(len(bins), np.int64), 0
    for radius in np.unique(bins.ring):
        (members,) = np.nonzero(bins.ring == radius)
        count = max(1, len(members) // least)
        order = members[np.argsort(angle[members], kind="stable")]
        for cell, part in enumerate(np.array_split(order, count)):
            cell_of[part] = first + cell
        first += count
    return cell_of


def _offsets(bins: Bins) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return how far each bin lies from the centre, down and right: half of its distance from its conjugate partner."""
    return (bins.rows - bins.partner_rows) // 2, (bins.columns - bins.partner_columns) // 2


def _cosine(a: npt.NDArray[np.float64], k: npt.NDArray[np.float64]) -> float:
    return float(a @ k / (np.linalg.norm(a) * np.linalg.norm(k) or 1.0))
