"""The published geometry and three-class keys, for comparison only: never use them to mark images.

The public reference code centres its disc one row off DC, because it flips one axis of an even-sized grid. The disc is
then not conjugate-symmetric: taking the real part of the inverse transform averages each bin with a partner that holds
another ring's value or none. So even a perfect inversion confuses classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from treering_verify.watermark import spectrum

if TYPE_CHECKING:
    import torch

# Hong et al. (NeurIPS 2024), three classes; ring i holds 80 (2 key[i] - 1) in unnormalised FFT units.
PAPER_KEYS = (
    (1.1, 0.8, 1.2, 0.9, 0.6, 1.4),
    (1.1, 0.6, 1.1, 1.2, 0.8, 1.2),
    (0.7, 1.2, 1.3, 0.8, 0.9, 1.1),
)


def disc(size: int, radius: int, *, centred: bool) -> npt.NDArray[np.int64]:
    """Return the ring number 1 .. radius of each bin of a (size, size) spectrum, 0 outside; one row off unless `centred`."""
    y, x = np.ogrid[:size, :size]
    row = size // 2 if centred else size - 1 - size // 2
    distance = np.hypot(y - row, x - size // 2)
    return np.where(distance <= radius, np.maximum(1, np.ceil(distance)), 0).astype(np.int64)


def patterns(size: int, *, centred: bool) -> npt.NDArray[np.float64]:
    """Return the values of the three keys on the disc's bins, (3, n), in ortho units."""
    rings = disc(size, len(PAPER_KEYS[0]), centred=centred)
    values = 80 * (2 * np.array(PAPER_KEYS) - 1) / size
    return np.asarray(values[:, rings[rings > 0] - 1])


def write(noise: torch.Tensor, label: int, *, centred: bool, channel: int = 0) -> torch.Tensor:
    """Write one of the three keys into (B, C, s, s) noise as published, dropping the imaginary part."""
    import torch

    size = noise.shape[-1]
    mask = torch.from_numpy(disc(size, len(PAPER_KEYS[0]), centred=centred) > 0)
    whole = spectrum.transform(noise)
    whole[:, channel, mask] = torch.from_numpy(patterns(size, centred=centred)[label]).to(whole.dtype)
    return spectrum.inverse_transform(whole).real


def read(noise_hat: torch.Tensor, *, centred: bool, channel: int = 0) -> npt.NDArray[np.complex128]:
    """Return the coefficients on the disc, (B, n), to compare with `patterns` by `treering_detectors.nearest_keys`."""
    import torch

    size = noise_hat.shape[-1]
    mask = torch.from_numpy(disc(size, len(PAPER_KEYS[0]), centred=centred) > 0)
    return spectrum.transform(noise_hat.double())[:, channel, mask].numpy()
