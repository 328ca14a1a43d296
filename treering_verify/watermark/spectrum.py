"""The Fourier transform of noise, its independent half-plane, annuli of it, and reading and writing of bins.

F = fftshift(fft2(z, norm="ortho")) per channel, so that unit-normal z gives E|F|^2 = 1. DC sits at (h // 2, w // 2) and
radii are measured from there, in bins. A real z has F(-k) = conj F(k), so only one bin of each
conjugate pair is independent. Every key is read and written on the half-plane of such bins that is defined here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Bins:
    """Independent bins of a centred spectrum, and their conjugate partners.

    Attributes
    ----------
    rows, columns : (n,) int64
        Position of each bin, DC at (h // 2, w // 2).
    partner_rows, partner_columns : (n,) int64
        Position of its complex conjugate; never the bin itself.
    ring : (n,) int64
        Distance from DC, rounded to whole bins.
    """

    rows: npt.NDArray[np.int64]
    columns: npt.NDArray[np.int64]
    partner_rows: npt.NDArray[np.int64]
    partner_columns: npt.NDArray[np.int64]
    ring: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    def select(self, mask: npt.NDArray[np.bool_]) -> Bins:
        """Return the bins where `mask`, (n,), is true."""
        fields = (self.rows, self.columns, self.partner_rows, self.partner_columns, self.ring)
        return Bins(*(field[mask] for field in fields))


@lru_cache(maxsize=32)
def half_plane(height: int, width: int) -> Bins:
    """Return one bin of every conjugate pair, without DC and the self-conjugate (Nyquist) bins.

    Parameters
    ----------
    height, width : int
        Size of the latent.

    Returns
    -------
    Bins
        (h w - s) / 2 bins, with s the number of self-conjugate bins: 4 if both sides are even.
    """
    rows, columns = np.divmod(np.arange(height * width), width)
    # Position p holds frequency p - n // 2; its conjugate's position is the negative of that, modulo n.
    partner_rows = (2 * (height // 2) - rows) % height
    partner_columns = (2 * (width // 2) - columns) % width
    radius = np.hypot(rows - height // 2, columns - width // 2)
    every = Bins(rows, columns, partner_rows, partner_columns, np.rint(radius).astype(np.int64))
    return every.select(rows * width + columns > partner_rows * width + partner_columns)


@lru_cache(maxsize=128)
def annulus_bins(height: int, width: int, inner_radius: int, outer_radius: int) -> Bins:
    """Return the half-plane bins whose ring lies between two radii, both included.

    Raises
    ------
    ValueError
        If the annulus is empty or does not fit into the spectrum.
    """
    limit = min(height, width) // 2 - 1
    if not 1 <= inner_radius <= outer_radius <= limit:
        raise ValueError(
            f"radii {inner_radius} to {outer_radius} do not fit a {height} x {width} latent: "
            f"choose 1 <= inner <= outer <= {limit}"
        )
    bins = half_plane(height, width)
    return bins.select((bins.ring >= inner_radius) & (bins.ring <= outer_radius))


def transform(z: torch.Tensor) -> torch.Tensor:
    """Return the centred unitary spectrum of real (..., h, w): complex (..., h, w)."""
    import torch

    return torch.fft.fftshift(torch.fft.fft2(z, norm="ortho"), dim=(-2, -1))


def inverse_transform(spectrum: torch.Tensor) -> torch.Tensor:
    """Return the inverse of `transform`: complex (..., h, w), real to rounding if the spectrum is Hermitian."""
    import torch

    return torch.fft.ifft2(torch.fft.ifftshift(spectrum, dim=(-2, -1)), norm="ortho")


def read(z: torch.Tensor, bins: Bins) -> torch.Tensor:
    """Return the coefficients of z, (B, C, h, w), on some bins: complex (B, C, n)."""
    return transform(z)[..., _index(bins.rows), _index(bins.columns)]


def write(z: torch.Tensor, bins: Bins, channels: tuple[int, ...], values: torch.Tensor) -> torch.Tensor:
    """Replace the coefficients on some bins of some channels; every other bin keeps its value.

    Parameters
    ----------
    z : (B, C, h, w) real
    bins : Bins
    channels : tuple of int
        The c channels to write.
    values : complex (c, n) or (B, c, n)
        New coefficients. Their conjugates are written to the partner bins, so the result is real to rounding.

    Returns
    -------
    (B, C, h, w), of z's dtype.
    """
    import torch

    spectrum = transform(z)
    where = torch.tensor(channels, device=z.device)[:, None]
    values = values.to(device=z.device, dtype=spectrum.dtype)
    spectrum[:, where, _index(bins.rows), _index(bins.columns)] = values
    spectrum[:, where, _index(bins.partner_rows), _index(bins.partner_columns)] = values.conj()
    return inverse_transform(spectrum).real


def _index(positions: npt.NDArray[np.int64]) -> Any:
    import torch

    return torch.from_numpy(positions)
