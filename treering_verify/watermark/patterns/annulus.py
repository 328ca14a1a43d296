"""Patterns on an annulus of the noise's spectrum: `rings`, `random`, and `mixed-rings`, which has some of both.

`mixed-rings` follows RingID's multi-channel heterogeneous watermark (Ci et al., ECCV 2024, arXiv 2404.14055): the first half
of the key's channels carries a random (Gaussian) key, the others rings. What rings add is not only their numbers: they are
constant around, so what the recovered noise shows beside that is error, which tells how far to trust each radius.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from treering_verify.watermark import spectrum
from treering_verify.watermark.patterns.base import NORMAL, Layout, Numbers, Pattern, cosine_reach, cosine_test

if TYPE_CHECKING:
    import torch

    Complex = npt.NDArray[np.complex128]


def bins_of(layout: Layout) -> spectrum.Bins:
    """Half-plane bins of the annulus, the same in each channel."""
    _, height, width = layout.latent_shape
    return spectrum.annulus(height, width, layout.inner_radius, layout.outer_radius)


def read(noise_hat: torch.Tensor, layout: Layout) -> Complex:
    """Coefficients of noise_hat, (B, C, h, w), on the layout's bins and channels: (B, channels, n)."""
    import torch

    chosen = noise_hat[:, list(layout.channels)].detach().to("cpu", torch.float64)
    return np.asarray(spectrum.read(chosen, bins_of(layout)).numpy())


def rings_of(layout: Layout) -> int:
    """Count of rings."""
    return layout.outer_radius - layout.inner_radius + 1


def count_rings(layout: Layout) -> int:
    """One number for each ring and channel."""
    bins_of(layout)
    return len(layout.channels) * rings_of(layout)


def count_random(layout: Layout) -> int:
    """Two numbers for each bin and channel."""
    return len(layout.channels) * 2 * len(bins_of(layout))


def count_mixed(layout: Layout) -> int:
    """Two numbers for each bin of the first half of the channels, one for each ring of the others."""
    if len(layout.channels) < 2:
        raise ValueError("mixed-rings needs two channels or more, some for a random key: name more --channels")
    half = _half(layout)
    return half * 2 * len(bins_of(layout)) + (len(layout.channels) - half) * rings_of(layout)


def ring_coefficients(layout: Layout, numbers: Numbers) -> Complex:
    """Take each ring's real number, the same all around, so that turning the image by 180 degrees changes nothing."""
    numbers = numbers.reshape(-1, rings_of(layout))
    return numbers[:, bins_of(layout).ring - layout.inner_radius].astype(np.complex128)


def random_coefficients(layout: Layout, numbers: Numbers) -> Complex:
    """Take (a + i b) / sqrt 2 with a, b ~ N(0, 1), so that over random keys the marked noise is exactly N(0, I)."""
    real, imaginary = np.split(numbers.reshape(-1, 2 * len(bins_of(layout))), 2, axis=1)
    return np.asarray((real + 1j * imaginary) / np.sqrt(2))


def mixed_coefficients(layout: Layout, numbers: Numbers) -> Complex:
    """Stack random channels on ring channels."""
    first = _half(layout) * 2 * len(bins_of(layout))
    return np.concatenate([random_coefficients(layout, numbers[:first]), ring_coefficients(layout, numbers[first:])])


def ring_features(coefficients: Complex, layout: Layout) -> Numbers:
    """Estimate the rings' numbers: the ring's mean m, shrunk.

    It is the posterior mean of an N(0, 1) number measured n times with the spread s^2 that the ring itself shows:
    m / (1 + s^2 / n). Large rings so weigh more when the estimate is noisy; reading back untouched noise gives the key's
    numbers exactly.
    """
    mean, spread, sizes = _rings(coefficients, layout)
    return np.asarray((mean / (1 + spread / sizes)).reshape(len(coefficients), -1))


def random_features(coefficients: Complex, layout: Layout) -> Numbers:
    """Real and imaginary parts times sqrt 2."""
    parts = np.concatenate([coefficients.real, coefficients.imag], axis=2)
    return np.asarray(np.sqrt(2) * parts.reshape(len(coefficients), -1))


def mixed_features(coefficients: Complex, layout: Layout) -> Numbers:
    """Both, and the random channels' bins shrunk by the error that the ring channels show at their radius.

    A bin is one measurement of two numbers, so its posterior mean is y / (1 + e) with e the error's power; e is twice the
    spread of a ring's real part, the mean over the ring channels.
    """
    half = _half(layout)
    _, spread, _ = _rings(coefficients[:, half:], layout)
    error = 2 * spread.mean(axis=1)[:, bins_of(layout).ring - layout.inner_radius]
    first = random_features(coefficients[:, :half] / (1 + error)[:, None], layout)
    return np.concatenate([first, ring_features(coefficients[:, half:], layout)], axis=1)


def _half(layout: Layout) -> int:
    """Channels with a random key: half of them, rounded up."""
    return -(-len(layout.channels) // 2)


def _rings(coefficients: Complex, layout: Layout) -> tuple[Numbers, Numbers, npt.NDArray[np.int64]]:
    """Mean of the real parts and their spread around it, (B, channels, rings), and the rings' sizes."""
    ring = bins_of(layout).ring - layout.inner_radius
    sizes = np.bincount(ring)
    member = (ring[:, None] == np.arange(len(sizes))[None, :]).astype(np.float64)
    mean = coefficients.real @ member / sizes
    spread = (np.abs(coefficients - mean[..., ring]) ** 2) @ member / sizes / 2  # of the real part alone
    return mean, spread, sizes


def _pattern(
    radii: tuple[int, int],
    realistic: float,
    count: Callable[[Layout], int],
    coefficients: Callable[[Layout, Numbers], Complex],
    features: Callable[[npt.NDArray[Any], Layout], Numbers],
) -> Pattern:
    def write(noise: torch.Tensor, layout: Layout, numbers: Numbers) -> torch.Tensor:
        import torch

        values = torch.from_numpy(coefficients(layout, numbers))
        return spectrum.write(noise, bins_of(layout), layout.channels, values)

    return Pattern(
        radii=radii,
        law=NORMAL,
        count=count,
        write=write,
        read=read,
        features=features,
        test=cosine_test,
        compared=count,
        counts="degrees of freedom",
        realistic=realistic,
        reach=cosine_reach,
        searched=True,
        bins=bins_of,
        coefficients=coefficients,
    )


# The annuli that measured best for detection and for the diversity of images (README, "Keys").
# Measured means over 200 images: random 0.33 after JPEG 25; rings 0.65 on clean images, so 0.7 is a good image, and a
# default rings key reaches 1e-6 on fewer than half of them.
RINGS = _pattern((3, 12), 0.7, count_rings, ring_coefficients, ring_features)
RANDOM = _pattern((4, 9), 0.3, count_random, random_coefficients, random_features)
# mixed-rings: 0.28 after JPEG 25 on sixteen images (docs/patterns.md).
MIXED_RINGS = _pattern((4, 12), 0.3, count_mixed, mixed_coefficients, mixed_features)
