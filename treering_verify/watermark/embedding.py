"""Write a key into noise, and read it back: noise + key -> noise; noise_hat -> coefficients -> features."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from treering_verify.errors import UsageError
from treering_verify.watermark import spectrum
from treering_verify.watermark.keys.key import Family, Key
from treering_verify.watermark.patterns import PATTERNS

if TYPE_CHECKING:
    import torch
    from treering_detectors import Evidence


def key_bins(key: Key | Family) -> spectrum.Bins:
    """Half-plane bins that the key, or every key of the family, occupies, the same in each of its channels.

    Of the noise's spectrum, or, for `centre-rings` and `centre-signs`, of its centre's.

    Raises
    ------
    UsageError
        If the pattern does not live in a spectrum.
    """
    bins = PATTERNS[key.pattern].bins
    if bins is None:
        raise UsageError(f"pattern {key.pattern} has no bins: it lives on the noise's values")
    return bins(key)


def key_coefficients(key: Key) -> npt.NDArray[np.complex128]:
    """Coefficients that the key writes on its bins, (channels, n), in ortho units: E|k|^2 = 1.

    Raises
    ------
    UsageError
        If the pattern does not live in a spectrum.
    """
    coefficients = PATTERNS[key.pattern].coefficients
    if coefficients is None:
        raise UsageError(f"pattern {key.pattern} has no coefficients: it lives on the noise's values")
    return coefficients(key, key.numbers)


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
        The same noise outside the key's bins, or with the same sizes and other signs.

    Raises
    ------
    UsageError
        If the key is made for another shape.
    """
    _check_shape(noise, key)
    return PATTERNS[key.pattern].write(noise, key, key.numbers)


def extract(noise_hat: torch.Tensor, key: Key | Family) -> npt.NDArray[Any]:
    """Read noise_hat, (B, C, h, w), where the key lives: (B, channels, n).

    Complex coefficients on the key's bins, or the noise's own values where the pattern has no bins.
    """
    _check_shape(noise_hat, key)
    return PATTERNS[key.pattern].read(noise_hat, key)


def features(coefficients: npt.NDArray[Any], key: Key | Family) -> npt.NDArray[np.float64]:
    """Compute what the key's test compares with its numbers, from the image alone: (B, channels, n) -> (B, d).

    Nothing here looks at `key.numbers` (a family has none), which is what makes the test exact (DESIGN 4.3). Where numbers
    are normal or signs, these are estimates of them, and reading back untouched noise gives them exactly.
    """
    return PATTERNS[key.pattern].features(coefficients, key)


def key_evidence(noise_hat: torch.Tensor, key: Key) -> list[Evidence]:
    """Test of the key's pattern on noise_hat, (B, C, h, w): the evidence of each image."""
    return PATTERNS[key.pattern].test(features(extract(noise_hat, key), key), key.numbers)


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
