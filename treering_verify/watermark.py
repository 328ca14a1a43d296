"""Write a key into noise, and read it back: noise + key -> noise; noise_hat -> coefficients -> features."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from treering_verify import spectrum
from treering_verify.errors import UsageError
from treering_verify.key import Family, Key

if TYPE_CHECKING:
    import torch


def key_bins(key: Key | Family) -> spectrum.Bins:
    """Half-plane bins that the key, or every key of the family, occupies, the same in each of its channels."""
    _, height, width = key.latent_shape
    return spectrum.annulus(height, width, key.inner_radius, key.outer_radius)


def key_coefficients(key: Key) -> npt.NDArray[np.complex128]:
    """Coefficients that the key writes, (channels, n), in ortho units: E|k|^2 = 1.

    `random`: (a + i b) / sqrt 2 with a, b ~ N(0, 1), so that over random keys the marked noise is exactly N(0, I).
    `rings`: the ring's real number, the same all around, so that turning the picture by 180 degrees changes nothing.
    """
    bins = key_bins(key)
    numbers = key.numbers.reshape(len(key.channels), -1)
    if key.pattern == "random":
        real, imaginary = np.split(numbers, 2, axis=1)
        return np.asarray((real + 1j * imaginary) / np.sqrt(2))
    return numbers[:, bins.ring - key.inner_radius].astype(np.complex128)


def embed(noise: torch.Tensor, key: Key) -> torch.Tensor:
    """Write the key into unit-normal noise.

    Parameters
    ----------
    noise : (B, C, h, w) float32 or float64
    key : Key
        Made for (C, h, w).

    Returns
    -------
    (B, C, h, w), of noise's dtype
        The same noise outside the key's bins.

    Raises
    ------
    UsageError
        If the key is made for another shape.
    """
    import torch

    _check_shape(noise, key)
    return spectrum.write(noise, key_bins(key), key.channels, torch.from_numpy(key_coefficients(key)))


def extract(noise_hat: torch.Tensor, key: Key | Family) -> npt.NDArray[np.complex128]:
    """Coefficients of noise_hat, (B, C, h, w), on the key's bins and channels: (B, channels, n)."""
    import torch

    _check_shape(noise_hat, key)
    chosen = noise_hat[:, list(key.channels)].detach().to("cpu", torch.float64)
    return spectrum.read(chosen, key_bins(key)).numpy()


def features(coefficients: npt.NDArray[np.complex128], key: Key | Family) -> npt.NDArray[np.float64]:
    """Estimate the key's numbers from coefficients of the image alone: (B, channels, n) -> (B, d).

    Nothing here looks at `key.numbers` (a family has none), which is what makes the test exact (DESIGN 4.3).
    `random`: real and imaginary parts times sqrt 2. `rings`: the ring's mean m, shrunk as the posterior mean of an
    N(0, 1) number measured n times with the spread s^2 that the ring itself shows: m / (1 + s^2 / n). Large rings so
    weigh more when the estimate is noisy; reading back untouched noise gives the key's numbers exactly.
    """
    batch = len(coefficients)
    if key.pattern == "random":
        parts = np.concatenate([coefficients.real, coefficients.imag], axis=2)
        return np.asarray(np.sqrt(2) * parts.reshape(batch, -1))
    ring = key_bins(key).ring - key.inner_radius
    sizes = np.bincount(ring)
    member = (ring[:, None] == np.arange(len(sizes))[None, :]).astype(np.float64)
    mean = coefficients.real @ member / sizes
    spread = (np.abs(coefficients - mean[..., ring]) ** 2) @ member / sizes / 2  # of the real part alone
    return np.asarray((mean / (1 + spread / sizes)).reshape(batch, -1))


def groups(family: Key | Family) -> npt.NDArray[np.int64]:
    """Group of each of a key's numbers, (d,): what the classifier whitens together and gives one weight.

    `random`: a ring in a channel, real and imaginary parts alike. `rings`: a ring in all channels.
    """
    ring = key_bins(family).ring - family.inner_radius
    count = family.outer_radius - family.inner_radius + 1
    if family.pattern == "random":
        return np.concatenate([channel * count + np.tile(ring, 2) for channel in range(len(family.channels))])
    return np.tile(np.arange(count), len(family.channels))


def _check_shape(noise: torch.Tensor, key: Key | Family) -> None:
    if noise.ndim != 4 or tuple(noise.shape[1:]) != key.latent_shape:
        label = f"key {key.name!r}" if isinstance(key, Key) else f"the family ({key})"
        raise UsageError(
            f"{label} is made for noise (B, {', '.join(map(str, key.latent_shape))}), "
            f"not {tuple(noise.shape)}: make a key for this model with treering keygen --model"
        )
