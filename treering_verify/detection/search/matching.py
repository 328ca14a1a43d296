"""Correlate a key's spatial pattern, turned, mirrored and scaled, with the noise of a page at all places at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
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

    _Window = tuple[float, float, float]

_FINER = 4  # a pattern is sampled between cells from one that is so many times finer
_LOUD, _QUIET = 0.12, 0.01  # shares of the strongest window's energy that a window has at least
_SHARES = (0.9, 0.1)  # of a shape's weight: of its loud places, and of its quiet ones where there are any
_ELEMENTS = 1 << 21  # numbers of the spectra that are held at a time
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
    """The best place of one shape on a map: of the loud places, or of the quiet ones.

    Hard edges and charts are louder than any image. A window beside them has little noise in comparison, and it is
    compared with its like only, because places that hold next to nothing have high scores by chance more often.

    Attributes
    ----------
    shape : int
        Which of the shapes.
    score : float
        About the cosine.
    placement : Placement
    places : int
        How many places could have won.
    share : float
        Share of the shape's weight that these places have; it depends on the map alone.
    """

    shape: int
    score: float
    placement: Placement
    places: int
    share: float


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
        rows = torch.fft.fftfreq(self._size[0])[:, None] * (self._rows - 1)
        columns = torch.fft.rfftfreq(self._size[1])[None, :] * (self._columns - 1)
        self._moved = torch.exp(2j * torch.pi * (rows + columns))

    def best(self, keys: Sequence[npt.NDArray[np.float64]]) -> list[list[Match]]:
        """Return the best places of each shape for keys of some numbers, loud and quiet: a list for each key."""
        import torch

        zeros = torch.zeros(1, *self._family.latent_shape)
        write = PATTERNS[self._family.pattern].write
        fine = torch.cat([_fine(write(zeros, self._family, one)[0][self._channels]) for one in keys])
        found: list[list[Match]] = [[] for _ in keys]
        groups = _alike(self._shapes)
        together = max(1, _ELEMENTS // (len(fine) * self._size[0] * self._size[1]))
        for start in range(0, len(groups), together):
            block = groups[start : start + together]
            shapes = [self._shapes[group[0]] for group in block]
            inside, u, v = self._positions(shapes)
            strata, scale = self._energy([_window(shape) for shape in shapes], inside)
            templates = (self._sample(fine, u, v) * inside[:, None]).unflatten(1, (len(keys), -1))
            scale = scale[:, None] / templates.flatten(2).norm(dim=2)[..., None, None].clamp_min(1e-9)
            spectra, places = self._transform(templates), [part.flatten(1).sum(1).tolist() for part in strata]
            for turned in (False, True):
                rows = [row for row, group in enumerate(block) if len(group) > turned and places[0][row]]
                if not rows:
                    continue
                scores = self._back(self._agreement(spectra if len(rows) == len(block) else spectra[rows], turned))
                scores *= scale[rows]
                for part, counts, share in zip(strata, places, _SHARES, strict=True):
                    if not any(counts[row] for row in rows):
                        continue
                    best, where = scores.masked_fill(~part[rows][:, None], -1.0).flatten(2).max(2)
                    for row, *of_keys in zip(rows, best.tolist(), where.tolist(), strict=True):
                        if not counts[row]:
                            continue
                        index, own = block[row][turned], share if places[1][row] else 1.0
                        for some, score, place in zip(found, *of_keys, strict=True):
                            placement = self._placement(self._shapes[index], *divmod(place, self._places[1]))
                            some.append(Match(index, score, placement, counts[row], own))
        return found

    def _agreement(self, templates: torch.Tensor, turned: bool) -> torch.Tensor:
        """Return the spectra of what the map has in common with templates (n, K, C, ...), which may be upside down."""
        import torch

        # A template turned by 180 degrees has the conjugate spectrum, moved by its own size.
        of_map = self._spectrum * self._moved if turned else self._spectrum.conj_physical()
        total = templates[:, :, 0] * of_map[0]
        for channel in range(1, len(of_map)):
            torch.addcmul(total, templates[:, :, channel], of_map[channel], out=total)
        return total if turned else total.conj()

    def _energy(
        self, windows: Sequence[_Window], inside: torch.Tensor
    ) -> tuple[tuple[torch.Tensor, torch.Tensor], torch.Tensor]:
        """Return which places of windows are loud and which are quiet, and one over the root of their energy.

        Each is (n, rows, columns). A place that hangs over the page's edge has little energy for that reason, and counts as
        neither.
        """
        import torch

        unlike = list(dict.fromkeys(windows))
        masks = self._transform(inside[[windows.index(window) for window in unlike]])
        energy = self._back(self._power * masks.conj())
        most = energy.amax((1, 2), keepdim=True)
        loud, enough = (energy > (share * most).clamp_min(1e-9) for share in (_LOUD, _QUIET))
        quiet = enough & ~loud & self._on_page(unlike)
        scale = torch.where(enough, energy.clamp_min(1e-9).rsqrt(), 0.0)
        which = [unlike.index(window) for window in windows]
        return (loud[which], quiet[which]), scale[which]

    def _on_page(self, windows: Sequence[_Window]) -> torch.Tensor:
        """Return at which places windows lie on the page as a whole, but for a cell: (n, rows, columns)."""
        import torch

        rows, columns = self._map.visible.shape
        found = torch.zeros(len(windows), *self._places, dtype=torch.bool)
        for one, (across, down, degrees) in zip(found, windows, strict=True):
            high, wide = (math.ceil(side / 2) - 1 for side in _extent(Shape(across, down, degrees, False)))
            one[high : rows - high + 1, wide : columns - wide + 1] = True
        return found

    def _transform(self, templates: torch.Tensor) -> torch.Tensor:
        import torch

        return torch.fft.rfft2(templates, s=self._size)

    def _back(self, spectrum: torch.Tensor) -> torch.Tensor:
        import torch

        return torch.fft.irfft2(spectrum, s=self._size)[..., : self._places[0], : self._places[1]]

    def _placement(self, shape: Shape, row: int, column: int) -> Placement:
        # The window's centre: row + rows / 2 in the padded map, whose padding is rows / 2.
        across, down = self._map.cells
        return Placement(
            column / across, row / down, shape.across / across, shape.down / down, shape.degrees, shape.mirrored
        )

    def _positions(self, shapes: Sequence[Shape]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return which cells (n, rows, columns) lie inside windows, and what of the image they show, from -1/2 to 1/2."""
        import torch

        y = (torch.arange(self._rows) + 0.5 - self._rows / 2)[:, None]
        x = (torch.arange(self._columns) + 0.5 - self._columns / 2)[None, :]
        turns, across, down = (
            torch.tensor(values, dtype=torch.float64)[:, None, None]
            for values in zip(*((np.deg2rad(one.degrees), one.across, one.down) for one in shapes), strict=True)
        )
        u = (x * turns.cos() - y * turns.sin()) / across
        v = (x * turns.sin() + y * turns.cos()) / down
        inside = ((u.abs() < 0.5) & (v.abs() < 0.5)).float()
        sign = torch.tensor([-1.0 if one.mirrored else 1.0 for one in shapes])[:, None, None]
        return inside, (u * sign).float(), v.float()

    def _sample(self, fine: torch.Tensor, u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Sample patterns (K C, h, w) at positions (n, rows, columns): (n, K C, rows, columns)."""
        import torch

        height, width = fine.shape[-2:]
        # `fine` begins and ends half a cell outside the window: -1 and 1 are its outer edges.
        where = torch.stack([2 * u * self._w * _FINER / width, 2 * v * self._h * _FINER / height], dim=-1)
        flat = where.reshape(1, -1, self._columns, 2)
        sampled = torch.nn.functional.grid_sample(fine[None], flat, mode="bilinear", align_corners=False)[0]
        return sampled.unflatten(1, (-1, self._rows)).transpose(0, 1)


def _window(shape: Shape) -> _Window:
    """Return what shapes with the same cells have in common: mirrored, upside down, of squares turned by 90 degrees."""
    period = 90 if abs(shape.across - shape.down) < 1e-9 else 180
    return shape.across, shape.down, round(shape.degrees % period, 6)


def _alike(shapes: Sequence[Shape]) -> list[list[int]]:
    """Group shapes that are alike but for a turn by 180 degrees; those with the same cells follow each other."""
    groups: dict[tuple[_Window, float, bool], list[int]] = {}
    for index in sorted(range(len(shapes)), key=lambda one: (_window(shapes[one]), shapes[one].degrees)):
        shape = shapes[index]
        groups.setdefault((_window(shape), round(shape.degrees % 180, 6), shape.mirrored), []).append(index)
    return list(groups.values())


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
