"""Write a key into noise, read coefficients from a noise estimate, and test the key on them."""

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
    """Return the half-plane bins that a key, or every key of a family, occupies in each of its channels.

    They are bins of the noise's spectrum, or, for `centre-rings` and `centre-signs`, of the spectrum of its centre.

    Raises
    ------
    UsageError
        If the pattern is not written into a spectrum.
    """
    bins = PATTERNS[key.pattern].bins
    if bins is None:
        raise UsageError(
            f"pattern {key.pattern} has no bins, because it is written into the noise's values: use a pattern on an annulus"
        )
    return bins(key)


def key_coefficients(key: Key) -> npt.NDArray[np.complex128]:
    """Return the coefficients that a key writes on its bins, (channels, n), in ortho units: E|k|^2 = 1.

    Raises
    ------
    UsageError
        If the pattern is not written into a spectrum.
    """
    coefficients = PATTERNS[key.pattern].coefficients
    if coefficients is None:
        raise UsageError(
            f"pattern {key.pattern} has no coefficients, because it is written into the noise's values: "
            "use a pattern on an annulus"
        )
    return coefficients(key, key.numbers)


def embed(noise: torch.Tensor, key: Key) -> torch.Tensor:
    """Write a key into unit-normal noise.

    Parameters
    ----------
    noise : (B, C, h, w) float32 or float64
        Initial noise.
    key : Key
        Made for (C, h, w).

    Returns
    -------
    (B, C, h, w), of noise's dtype
        The same noise outside the key's bins; for patterns of signs, the same magnitudes with other signs.

    Raises
    ------
    UsageError
        If the key is made for another shape.
    """
    _check_shape(noise, key)
    return PATTERNS[key.pattern].write(noise, key, key.numbers)


def extract(noise_hat: torch.Tensor, key: Key | Family) -> npt.NDArray[Any]:
    """Read a noise estimate where the key is written: (B, C, h, w) -> (B, channels, n).

    Returns complex coefficients on the key's bins, or the values of the noise if the pattern has no bins.
    """
    _check_shape(noise_hat, key)
    return PATTERNS[key.pattern].read(noise_hat, key)


def features(coefficients: npt.NDArray[Any], key: Key | Family) -> npt.NDArray[np.float64]:
    """Compute the features that the key's test compares with its numbers: (B, channels, n) -> (B, d).

    They depend on the image alone: `key.numbers` is not read (a family has none). That makes the test exact
    (docs/exact-test.md). If the key's numbers are normal or signs, the features are estimates of them, and those of
    unchanged noise equal them.
    """
    return PATTERNS[key.pattern].features(coefficients, key)


def key_evidence(noise_hat: torch.Tensor, key: Key) -> list[Evidence]:
    """Test one key on a noise estimate, (B, C, h, w), and return the evidence of each image."""
    return PATTERNS[key.pattern].test(features(extract(noise_hat, key), key), key.numbers)


def groups(family: Key | Family) -> npt.NDArray[np.int64]:
    """Return the group of each of a key's numbers, (d,), for the classifier, which learns one weight for each group.

    A group is one ring of one channel, real and imaginary parts together, for `random`, and one ring of all channels for
    `rings`.
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
