"""Patterns on an annulus of the noise's spectrum: `rings`, `random`, and `mixed-rings`, which combines both.

`mixed-rings` follows RingID's multi-channel heterogeneous watermark (Ci et al., ECCV 2024, arXiv 2404.14055): the first half
of the key's channels carries a random (Gaussian) key, the others rings. A ring is constant, so its variation in the noise
estimate is error. That error says how far to trust the random channels at each radius.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from treering_verify.watermark import spectrum
from treering_verify.watermark.patterns.base import (
    NORMAL,
    Agreement,
    Layout,
    Numbers,
    Pattern,
    cosine_reach,
    cosine_test,
)

if TYPE_CHECKING:
    import torch

    Complex = npt.NDArray[np.complex128]


def bins_of(layout: Layout) -> spectrum.Bins:
    """Return the half-plane bins of the annulus, the same in each channel."""
    _, height, width = layout.latent_shape
    return spectrum.annulus_bins(height, width, layout.inner_radius, layout.outer_radius)


def read(noise_hat: torch.Tensor, layout: Layout) -> Complex:
    """Return the coefficients of noise_hat, (B, C, h, w), on the layout's bins and channels: (B, channels, n)."""
    import torch

    chosen = noise_hat[:, list(layout.channels)].detach().to("cpu", torch.float64)
    return np.asarray(spectrum.read(chosen, bins_of(layout)).numpy())


def rings_of(layout: Layout) -> int:
    """Return the number of rings."""
    return layout.outer_radius - layout.inner_radius + 1


def count_rings(layout: Layout) -> int:
    """Count a key's numbers: one for each ring and channel."""
    bins_of(layout)
    return len(layout.channels) * rings_of(layout)


def count_random(layout: Layout) -> int:
    """Count a key's numbers: two for each bin and channel."""
    return len(layout.channels) * 2 * len(bins_of(layout))


def count_mixed(layout: Layout) -> int:
    """Count a key's numbers: two for each bin of the first half of the channels, one for each ring of the others."""
    if len(layout.channels) < 2:
        raise ValueError("mixed-rings needs at least two channels: name more --channels")
    half = _half(layout)
    return half * 2 * len(bins_of(layout)) + (len(layout.channels) - half) * rings_of(layout)


def ring_coefficients(layout: Layout, numbers: Numbers) -> Complex:
    """Return one real coefficient for each whole ring, so that turning the image by 180 degrees changes nothing."""
    numbers = numbers.reshape(-1, rings_of(layout))
    return numbers[:, bins_of(layout).ring - layout.inner_radius].astype(np.complex128)


def random_coefficients(layout: Layout, numbers: Numbers) -> Complex:
    """Return (a + i b) / sqrt 2 with a, b ~ N(0, 1), so that over random keys the marked noise is exactly N(0, I)."""
    real, imaginary = np.split(numbers.reshape(-1, 2 * len(bins_of(layout))), 2, axis=1)
    return np.asarray((real + 1j * imaginary) / np.sqrt(2))


def mixed_coefficients(layout: Layout, numbers: Numbers) -> Complex:
    """Return the coefficients of the random channels, then those of the ring channels."""
    first = _half(layout) * 2 * len(bins_of(layout))
    return np.concatenate([random_coefficients(layout, numbers[:first]), ring_coefficients(layout, numbers[first:])])


def ring_features(coefficients: Complex, layout: Layout) -> Numbers:
    """Estimate the number of each ring by its posterior mean, m / (1 + s^2 / n).

    The prior is N(0, 1). The n bins of the ring measure the number with mean m and variance s^2, which is estimated from
    the ring itself. So large rings get more weight when the estimate is noisy, and unchanged noise gives the key's
    numbers exactly.
    """
    mean, variance, sizes = _rings(coefficients, layout)
    return np.asarray((mean / (1 + variance / sizes)).reshape(len(coefficients), -1))


def random_features(coefficients: Complex, layout: Layout) -> Numbers:
    """Return real and imaginary parts times sqrt 2."""
    parts = np.concatenate([coefficients.real, coefficients.imag], axis=2)
    return np.asarray(np.sqrt(2) * parts.reshape(len(coefficients), -1))


def mixed_features(coefficients: Complex, layout: Layout) -> Numbers:
    """Return the features of both kinds of channels, with the random bins shrunk by the error at their radius.

    The posterior mean of a bin y is y / (1 + e), with e the power of the error. The ring channels estimate e: it is twice
    the variance of a ring's real part, averaged over these channels.
    """
    half = _half(layout)
    _, variance, _ = _rings(coefficients[:, half:], layout)
    error = 2 * variance.mean(axis=1)[:, bins_of(layout).ring - layout.inner_radius]
    first = random_features(coefficients[:, :half] / (1 + error)[:, None], layout)
    return np.concatenate([first, ring_features(coefficients[:, half:], layout)], axis=1)


def _half(layout: Layout) -> int:
    """Return the number of channels with a random key: half of them, rounded up."""
    return -(-len(layout.channels) // 2)


def _rings(coefficients: Complex, layout: Layout) -> tuple[Numbers, Numbers, npt.NDArray[np.int64]]:
    """Return mean and variance of the real parts on each ring, (B, channels, rings), and the rings' sizes."""
    ring = bins_of(layout).ring - layout.inner_radius
    sizes = np.bincount(ring)
    # (n, rings): 1 where a bin lies on the ring, so that a product sums over each ring.
    on_ring = (ring[:, None] == np.arange(len(sizes))[None, :]).astype(np.float64)
    mean = coefficients.real @ on_ring / sizes
    variance = (np.abs(coefficients - mean[..., ring]) ** 2) @ on_ring / sizes / 2  # half of both parts' power
    return mean, variance, sizes


def _pattern(
    radii: tuple[int, int],
    realistic: float,
    count: Callable[[Layout], int],
    coefficients: Callable[[Layout, Numbers], Complex],
    features: Callable[[npt.NDArray[Any], Layout], Numbers],
    agreement: Agreement,
) -> Pattern:
    def write(noise: torch.Tensor, layout: Layout, numbers: Numbers) -> torch.Tensor:
        import torch

        values = torch.from_numpy(coefficients(layout, numbers))
        return spectrum.write(noise, bins_of(layout), layout.channels, values)

    return Pattern(
        radii=radii,
        distribution=NORMAL,
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
        agreement=agreement,
    )


# The annuli that measured best for detection and for the diversity of images (docs/patterns.md, docs/robustness.md).
# Mean cosines after JPEG 25, sixteen images: random .38, rings .66, so that half of them reach p = 1e-6 under a default key
# of rings (docs/patterns.md). On clean images rings have .97 (docs/exact-test.md).
RINGS = _pattern((3, 12), 0.7, count_rings, ring_coefficients, ring_features, Agreement(2.06, 0.255))
RANDOM = _pattern((4, 9), 0.3, count_random, random_coefficients, random_features, Agreement(1.34, 0.101))
# mixed-rings: mean cosine .38 after JPEG 25, sixteen images (docs/patterns.md).
MIXED_RINGS = _pattern((4, 12), 0.3, count_mixed, mixed_coefficients, mixed_features, Agreement(1.32, 0.165))
