"""Correlate a key's spatial pattern, turned, mirrored and scaled, with the noise of a page at all places at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from treering_verify.detection.search.noise_map import NoiseMap
from treering_verify.detection.search.placement import Placement
from treering_verify.watermark.patterns import PATTERNS

if TYPE_CHECKING:
    import torch

    from treering_verify.watermark.keys.key_family import Family

_FINER = 4  # a pattern is sampled between cells from one that is so many times finer
_ENERGY = 0.12  # share of the strongest window's energy that a window has at least
_BLOCK = 32  # shapes that are transformed together
_EDGE = 1.5  # rings beyond the key's that a map keeps


@dataclass(frozen=True)
class Shape:
    """What placements have in common that differ by their place alone: size in cells of a map, angle, reflection."""

    across: float
    down: float
    degrees: float
    mirrored: bool


@dataclass(frozen=True, eq=False)
class Match:
    """The best places of one shape on a map.

    Attributes
    ----------
    shape : int
        Which of the shapes.
    score : float
        About the cosine.
    placement : Placement
    places : int
        How many places of that shape could have won.
    """

    shape: int
    score: float
    placement: Placement
    places: int


class Matcher:
    """The spectrum of a map, padded by half a window, its noise limited to the frequencies of a family of keys.

    Parameters
    ----------
    noise_map : NoiseMap
    family : Family
        Any of the keys: their annulus counts.
    shapes : sequence of Shape
        What will be looked for.
    """

    def __init__(self, noise_map: NoiseMap, family: Family, shapes: list[Shape]) -> None:
        import torch

        self._map, self._family, self._shapes = noise_map, family, shapes
        self._channels = list(family.channels)
        self._h, self._w = family.latent_shape[1:]
        extents = [_extent(shape) for shape in shapes]
        # Even, so that a window of the model's own size lies on the cells.
        self._rows, self._columns = (2 * int(np.ceil(max(e[axis] for e in extents) / 2)) for axis in (0, 1))
        top, left = self._rows // 2, self._columns // 2
        smallest = min(min(s.across / self._w, s.down / self._h) for s in shapes)
        largest = max(max(s.across / self._w, s.down / self._h) for s in shapes)
        noise = _banded(
            noise_map.noise[self._channels],
            (family.inner_radius - _EDGE) / (max(self._h, self._w) * largest),
            (family.outer_radius + _EDGE) / (min(self._h, self._w) * smallest),
        )
        whole = torch.zeros_like(noise_map.noise)
        whole[self._channels] = noise * (noise_map.visible > 0.5)
        self.noise = NoiseMap(whole, noise_map.visible, noise_map.cells)
        padded = torch.nn.functional.pad(whole[self._channels], (left, left, top, top))
        self._size = tuple(_fast(length) for length in padded.shape[-2:])
        self._places = (padded.shape[-2] - self._rows + 1, padded.shape[-1] - self._columns + 1)
        self._spectrum = torch.fft.rfft2(padded, s=self._size)
        self._power = torch.fft.rfft2(padded.square().sum(0), s=self._size)

    def best(self, numbers: npt.NDArray[np.float64]) -> list[Match]:
        """Return the best place of each shape for a key of some numbers."""
        import torch

        zeros = torch.zeros(1, *self._family.latent_shape)
        fine = _fine(PATTERNS[self._family.pattern].write(zeros, self._family, numbers)[0][self._channels])
        found = []
        for start in range(0, len(self._shapes), _BLOCK):
            block = self._shapes[start : start + _BLOCK]
            templates, masks = self._templates(fine, block)
            product = self._correlate(self._spectrum, templates).sum(1)
            product = torch.fft.irfft2(product, s=self._size)[:, : self._places[0], : self._places[1]]
            energy = self._correlate(self._power, masks)
            energy = torch.fft.irfft2(energy, s=self._size)[:, : self._places[0], : self._places[1]]
            top = energy.amax((1, 2), keepdim=True)
            enough = energy > (_ENERGY * top).clamp_min(1e-9)
            lengths = templates.flatten(1).norm(dim=1)[:, None, None].clamp_min(1e-9)
            scores = torch.where(enough, product / energy.clamp_min(1e-9).sqrt() / lengths, -1.0)
            best, where = scores.flatten(1).max(1)
            counts = enough.flatten(1).sum(1)
            for i, shape in enumerate(block):
                if counts[i]:
                    row, column = divmod(int(where[i]), scores.shape[2])
                    found.append(Match(start + i, float(best[i]), self._placement(shape, row, column), int(counts[i])))
        return found

    def _correlate(self, spectrum: torch.Tensor, templates: torch.Tensor) -> torch.Tensor:
        import torch

        return spectrum * torch.fft.rfft2(templates, s=self._size).conj()

    def _placement(self, shape: Shape, row: int, column: int) -> Placement:
        # The window's centre: row + rows / 2 in the padded map, whose padding is rows / 2.
        across, down = self._map.cells
        return Placement(
            column / across, row / down, shape.across / across, shape.down / down, shape.degrees, shape.mirrored
        )

    def _templates(self, fine: torch.Tensor, shapes: list[Shape]) -> tuple[torch.Tensor, torch.Tensor]:
        """Patterns (n, C, rows, columns), turned, mirrored and scaled, and masks of their windows (n, rows, columns)."""
        import torch

        y, x = np.meshgrid(
            np.arange(self._rows) + 0.5 - self._rows / 2,
            np.arange(self._columns) + 0.5 - self._columns / 2,
            indexing="ij",
        )
        turns = np.deg2rad([shape.degrees for shape in shapes])[:, None, None]
        right = x * np.cos(turns) - y * np.sin(turns)
        down = x * np.sin(turns) + y * np.cos(turns)
        sign = np.array([-1.0 if shape.mirrored else 1.0 for shape in shapes])[:, None, None]
        u = sign * right / np.array([shape.across for shape in shapes])[:, None, None]
        v = down / np.array([shape.down for shape in shapes])[:, None, None]
        masks = torch.from_numpy((np.abs(u) < 0.5) & (np.abs(v) < 0.5)).float()
        height, width = fine.shape[-2:]
        # `fine` begins and ends half a cell outside the window: -1 and 1 are its outer edges.
        grid = np.stack([2 * u * self._w * _FINER / width, 2 * v * self._h * _FINER / height], axis=-1)
        sampled = torch.nn.functional.grid_sample(
            fine[None],
            torch.from_numpy(grid).float().reshape(1, -1, self._columns, 2),
            mode="bilinear",
            align_corners=False,
        )[0]
        return sampled.unflatten(1, (-1, self._rows)).transpose(0, 1) * masks[:, None], masks


def _extent(shape: Shape) -> tuple[float, float]:
    """Rows and columns of the box around a turned window."""
    turn = np.deg2rad(shape.degrees)
    c, s = abs(np.cos(turn)), abs(np.sin(turn))
    return float(shape.down * c + shape.across * s), float(shape.across * c + shape.down * s)


def _fine(pattern: torch.Tensor) -> torch.Tensor:
    """Pattern (C, h, w), periodic, sampled finer, with a margin of one cell: (C, 4 h + 8, 4 w + 8)."""
    import torch

    h, w = pattern.shape[-2:]
    spectrum = torch.fft.fftshift(torch.fft.fft2(pattern), dim=(-2, -1))
    rows, columns = _FINER * h, _FINER * w
    padded = torch.zeros(len(pattern), rows, columns, dtype=spectrum.dtype)
    padded[:, rows // 2 - h // 2 : rows // 2 - h // 2 + h, columns // 2 - w // 2 : columns // 2 - w // 2 + w] = spectrum
    # Samples lie at cell k / 4; moved by 3/8 of a cell, they lie symmetrically about the window's centre.
    shift = (1 / _FINER - 1) / 2
    fy, fx = (torch.fft.fftshift(torch.fft.fftfreq(n)) * n / side for n, side in ((rows, h), (columns, w)))
    padded = padded * torch.exp(2j * torch.pi * shift * (fy[:, None] + fx[None, :]))
    fine = torch.fft.ifft2(torch.fft.ifftshift(padded, dim=(-2, -1))).real * _FINER**2
    return torch.nn.functional.pad(fine[None], [_FINER] * 4, mode="circular")[0].float()


def _banded(noise: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """Noise (C, h, w) limited to frequencies from low to high, in cycles a cell."""
    import torch

    h, w = noise.shape[-2:]
    size = (_fast(h + 16), _fast(w + 16))
    radius = torch.hypot(torch.fft.fftfreq(size[0])[:, None], torch.fft.rfftfreq(size[1])[None, :])
    spectrum = torch.fft.rfft2(noise, s=size) * ((radius >= low) & (radius <= high))
    return torch.fft.irfft2(spectrum, s=size)[:, :h, :w]


def _fast(length: int) -> int:
    """Return the next length that a Fourier transform is fast at."""
    from scipy.fft import next_fast_len

    return int(next_fast_len(length, real=True))
