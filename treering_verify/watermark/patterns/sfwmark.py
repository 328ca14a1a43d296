"""Patterns in the spectrum of the noise's *centre*: `centre-rings` and `centre-signs`.

They follow SFWMark's HSTR and HSQR (Lee and Cho, ICCV 2025, arXiv 2509.07647). The middle of the noise, 0.6875 of each side
(44 of 64 in the paper, 22 of 32), is transformed by itself and the rest stays as it is, so a crop that keeps the middle in
its place keeps the pattern. Values go to one half-plane and their conjugates to the other, so the noise is real and nothing
that was written is lost, and real and imaginary parts both carry the key:

* `centre-rings`, after HSTR: two N(0, 1) numbers for each ring and channel, real and imaginary, the same on the whole ring
  (its conjugate on the other half). The exact cosine test applies.
* `centre-signs`, after HSQR: +1 or -1 for the real and the imaginary part of every bin, as the modules of a QR code, but
  drawn like a key. Signs are not spherical, so the cosine's law does not hold; the exact test of fair signs does.
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
    """Rows and columns of the centre; its sides are even."""
    rows, columns = (
        slice((side - inner) // 2, (side - inner) // 2 + inner)
        for side in layout.latent_shape[1:]
        for inner in [2 * round(_SHARE * side / 2)]
    )
    return rows, columns


def bins_of(layout: Layout) -> spectrum.Bins:
    """Half-plane bins of the annulus in the centre's own spectrum; radii are in its bins."""
    rows, columns = centre_of(layout)
    return spectrum.annulus(
        rows.stop - rows.start, columns.stop - columns.start, layout.inner_radius, layout.outer_radius
    )


def read(noise_hat: torch.Tensor, layout: Layout) -> Complex:
    """Coefficients of the centre, (B, channels, n)."""
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
    """Means of real and imaginary parts, each shrunk as those of `rings` are: sqrt 2 m / (1 + s^2 / n), s^2 of both."""
    ring = bins_of(layout).ring - layout.inner_radius
    sizes = np.bincount(ring)
    member = (ring[:, None] == np.arange(len(sizes))[None, :]).astype(np.float64)
    mean = coefficients @ member / sizes
    spread = (np.abs(coefficients - mean[..., ring]) ** 2) @ member / sizes
    shrunk = np.sqrt(2) * mean / (1 + spread / sizes)
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
    law=NORMAL,
    count=_count_rings,
    write=_write(_ring_coefficients),
    features=_ring_features,
    test=cosine_test,
    compared=_count_rings,
    counts="degrees of freedom",
    realistic=0.6,  # 0.58 after JPEG 25 on sixteen images (docs/patterns.md)
    reach=cosine_reach,
    coefficients=_ring_coefficients,
    **_SHARED,
)
CENTRE_SIGNS = Pattern(
    radii=(3, 7),
    law=SIGNS,
    count=_count_signs,
    write=_write(_sign_coefficients),
    features=_sign_features,
    test=sign_test,
    compared=_count_signs,
    counts="signs",
    realistic=0.3,  # 0.29 likewise
    reach=sign_reach,
    cosine=False,
    coefficients=_sign_coefficients,
    **_SHARED,
)
