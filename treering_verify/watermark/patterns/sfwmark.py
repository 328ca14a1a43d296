"""Patterns in the spectrum of the noise's *centre*: `centre-rings` and `centre-signs`, after SFWMark.

They follow SFWMark's HSTR and HSQR (Lee and Cho, ICCV 2025, arXiv 2509.07647). The middle of the noise, 0.6875 of each side
(44 of 64 in the paper, 22 of 32), is transformed by itself and the rest is unchanged. So a crop that leaves the middle in
its place leaves the pattern whole. Values are written to one half-plane and their conjugates to the other, so the noise is
real, nothing written is lost, and real and imaginary parts both carry the key:

* `centre-rings`, after HSTR: two N(0, 1) numbers for each ring and channel, real and imaginary, the same on the whole ring
  (its conjugate on the other half). The exact cosine test applies.
* `centre-signs`, after HSQR: +1 or -1 for the real and the imaginary part of every bin, as the modules of a QR code, but
  drawn like a key. The exact cosine test does not hold for signs, whose distribution changes under rotation; the exact test
  of signs does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from treering_verify.watermark import spectrum
from treering_verify.watermark.patterns.annulus import rings_of
from treering_verify.watermark.patterns.base import (
    NORMAL,
    SIGNS,
    Agreement,
    Layout,
    Numbers,
    Pattern,
    cosine_reach,
    cosine_test,
    sign_reach,
    sign_test,
)

if TYPE_CHECKING:
    import torch

    Complex = npt.NDArray[np.complex128]

_SHARE = 44 / 64


def centre_of(layout: Layout) -> tuple[slice, slice]:
    """Return the rows and columns of the centre; its sides are even."""
    rows, columns = (
        slice((side - inner) // 2, (side - inner) // 2 + inner)
        for side in layout.latent_shape[1:]
        for inner in [2 * round(_SHARE * side / 2)]
    )
    return rows, columns


def bins_of(layout: Layout) -> spectrum.Bins:
    """Return the half-plane bins of the annulus in the spectrum of the centre, in whose bins the radii are."""
    rows, columns = centre_of(layout)
    return spectrum.annulus_bins(
        rows.stop - rows.start, columns.stop - columns.start, layout.inner_radius, layout.outer_radius
    )


def read(noise_hat: torch.Tensor, layout: Layout) -> Complex:
    """Return the coefficients of the centre of noise_hat, (B, C, h, w): (B, channels, n)."""
    import torch

    chosen = noise_hat[:, list(layout.channels)][..., *centre_of(layout)].detach().to("cpu", torch.float64)
    return np.asarray(spectrum.read(chosen, bins_of(layout)).numpy())


def _count_rings(layout: Layout) -> int:
    bins_of(layout)
    return 2 * len(layout.channels) * rings_of(layout)


def _count_signs(layout: Layout) -> int:
    return 2 * len(layout.channels) * len(bins_of(layout))


def _ring_coefficients(layout: Layout, numbers: Numbers) -> Complex:
    real, imaginary = np.split(numbers.reshape(len(layout.channels), -1), 2, axis=1)
    return np.asarray(((real + 1j * imaginary) / np.sqrt(2))[:, bins_of(layout).ring - layout.inner_radius])


def _sign_coefficients(layout: Layout, numbers: Numbers) -> Complex:
    real, imaginary = np.split(numbers.reshape(len(layout.channels), -1), 2, axis=1)
    return np.asarray((real + 1j * imaginary) / np.sqrt(2))


def _ring_features(coefficients: Complex, layout: Layout) -> Numbers:
    """Estimate the numbers of each ring by their posterior means, sqrt 2 m / (1 + s^2 / n), as for `rings`."""
    ring = bins_of(layout).ring - layout.inner_radius
    sizes = np.bincount(ring)
    # (n, rings): 1 where a bin lies on the ring, so that a product sums over each ring.
    on_ring = (ring[:, None] == np.arange(len(sizes))[None, :]).astype(np.float64)
    mean = coefficients @ on_ring / sizes
    variance = (np.abs(coefficients - mean[..., ring]) ** 2) @ on_ring / sizes  # of real and imaginary part together
    shrunk = np.sqrt(2) * mean / (1 + variance / sizes)
    return np.concatenate([shrunk.real, shrunk.imag], axis=2).reshape(len(coefficients), -1)


def _sign_features(coefficients: Complex, layout: Layout) -> Numbers:
    parts = np.concatenate([coefficients.real, coefficients.imag], axis=2)
    return np.asarray(np.sqrt(2) * parts.reshape(len(coefficients), -1))


def _write(coefficients: Callable[[Layout, Numbers], Complex]) -> Callable[..., torch.Tensor]:
    def write(noise: torch.Tensor, layout: Layout, numbers: Numbers) -> torch.Tensor:
        import torch

        rows, columns = centre_of(layout)
        values = torch.from_numpy(coefficients(layout, numbers))
        marked = noise.clone()
        marked[..., rows, columns] = spectrum.write(noise[..., rows, columns], bins_of(layout), layout.channels, values)
        return marked

    return write


_SHARED: dict[str, Any] = {"read": read, "bins": bins_of}
CENTRE_RINGS = Pattern(
    radii=(3, 10),
    distribution=NORMAL,
    count=_count_rings,
    write=_write(_ring_coefficients),
    features=_ring_features,
    test=cosine_test,
    compared=_count_rings,
    counts="degrees of freedom",
    realistic=0.6,  # mean .59 after JPEG 25, sixteen images (docs/patterns.md)
    reach=cosine_reach,
    coefficients=_ring_coefficients,
    agreement=Agreement(2.09, 0.238),
    **_SHARED,
)
CENTRE_SIGNS = Pattern(
    radii=(3, 7),
    distribution=SIGNS,
    count=_count_signs,
    write=_write(_sign_coefficients),
    features=_sign_features,
    test=sign_test,
    compared=_count_signs,
    counts="signs",
    realistic=0.3,  # mean .47, likewise
    reach=sign_reach,
    cosine=False,
    coefficients=_sign_coefficients,
    agreement=Agreement(2.42, 0.36),
    **_SHARED,
)
