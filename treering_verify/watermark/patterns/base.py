"""The definition of a pattern: how it writes a key's numbers, what it reads from noise_hat, and how it tests that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from treering_verify.watermark.key_derivation import derive_bytes, derive_numbers

if TYPE_CHECKING:
    import torch
    from treering_detectors import Evidence

    from treering_verify.watermark.spectrum import Bins

Numbers = npt.NDArray[np.float64]
_DEVIATIONS = 4.54  # above the mean: .9999 of a normal population, with confidence .95, from a sample of 48 or more
_FEWEST = 8  # numbers up to which a cosine near 1 tells nothing
_SMALLEST, _LARGEST = 1e-100, 1e100  # of the numbers of a key, whose unit is 1


class Layout(Protocol):
    """Where a key is written: the attributes that `Key` and `Family` have in common."""

    @property
    def channels(self) -> tuple[int, ...]:
        """Latent channels that carry the key."""

    @property
    def inner_radius(self) -> int:
        """First ring, in bins from DC."""

    @property
    def outer_radius(self) -> int:
        """Last ring."""

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Shape (C, h, w) of the noise."""


@dataclass(frozen=True)
class Place:
    """A `Layout` by itself, of no key or family."""

    channels: tuple[int, ...]
    inner_radius: int
    outer_radius: int
    latent_shape: tuple[int, int, int]


@dataclass(frozen=True)
class Distribution:
    """The distribution of a key's numbers, and how a secret gives them.

    Attributes
    ----------
    draw : callable
        (prk, info, count) -> numbers (count,), from the pseudorandom key of a secret; `treering_verify.watermark.keys.key`
        states the construction.
    fits : callable
        Finite numbers -> whether a key can have them.
    words : str
        Name of such numbers, for messages.
    """

    draw: Callable[[bytes, str, int], Numbers]
    fits: Callable[[Numbers], bool]
    words: str


@dataclass(frozen=True)
class Agreement:
    """How well clean marked images agree with their keys, as `treering benchmark agreement` measures it.

    Attributes
    ----------
    mean : float
        Mean of z, the artanh of the cosine or agreement.
    deviation : float
        Standard deviation of z between images, without what a cosine of d numbers adds, 1 / (d - 3) in square.
    """

    mean: float
    deviation: float

    def bound(self, d: int) -> float:
        """Return the cosine or agreement from which on a key of d free numbers counts as fitted (docs/exact-test.md)."""
        if d <= _FEWEST:
            return float("inf")
        return float(np.tanh(self.mean + _DEVIATIONS * np.sqrt(self.deviation**2 + 1 / (d - 3))))


@dataclass(frozen=True)
class Pattern:
    """A way to mark noise, as plain functions; only `write` and `test` get the key's numbers.

    Attributes
    ----------
    radii : (int, int)
        Default annulus, in bins; (0, 0) if the pattern has no annulus.
    distribution : Distribution
        Distribution of the key's numbers.
    count : callable
        Layout -> how many numbers its keys have; ValueError, with what to do, if the layout does not fit.
    write : callable
        (noise (B, C, h, w), layout, numbers) -> marked noise of the same shape and dtype.
    read : callable
        (noise_hat (B, C, h, w), layout) -> readings (B, channels, n), complex128 or float64.
    features : callable
        (readings, layout) -> features (B, d) of the image alone.
    test : callable
        (features, numbers) -> Evidence of each image.
    compared : callable
        Layout -> how many independent numbers, signs or checks the test compares.
    counts : str
        Name of what is compared, in the plural.
    realistic : float
        Statistic by which `keygen` says what a key can reach: that after strong compression, or, if the pattern does not
        survive that, that of a clean image.
    reach : callable
        (statistic, compared) -> log10 p of that statistic.
    cosine : bool
        Whether the test is the exact cosine test of normal numbers, so that an index of keys can be searched.
    searched : bool
        Whether it is written into the spectrum of the whole noise and tested by the cosine, so that it can be searched
        for in a rotated, mirrored or cropped image.
    bins : callable, optional
        Layout -> half-plane bins that it writes, of the spectrum of the noise or of its centre.
    coefficients : callable, optional
        (layout, numbers) -> coefficients that it writes there, (channels, n) complex.
    chosen : int
        How many of the last numbers the owner may choose, as a message; the others of a derived key are derived.
    agreement : Agreement, optional
        Cosines or agreements of clean marked images, above which lies a key that was fitted to an image; None if the
        numbers are bytes of a cipher, which nobody can fit.
    """

    radii: tuple[int, int]
    distribution: Distribution
    count: Callable[[Layout], int]
    write: Callable[[torch.Tensor, Layout, Numbers], torch.Tensor]
    read: Callable[[torch.Tensor, Layout], npt.NDArray[Any]]
    features: Callable[[npt.NDArray[Any], Layout], Numbers]
    test: Callable[[Numbers, Numbers], list[Evidence]]
    compared: Callable[[Layout], int]
    counts: str
    realistic: float
    reach: Callable[[float, int], float]
    cosine: bool = True
    searched: bool = False
    bins: Callable[[Layout], Bins] | None = None
    coefficients: Callable[[Layout, Numbers], npt.NDArray[np.complex128]] | None = None
    chosen: int = 0
    agreement: Agreement | None = None


def cosine_test(features: Numbers, numbers: Numbers) -> list[Evidence]:
    """Test features, (B, d), by the exact cosine test, for keys of N(0, 1) numbers."""
    from treering_detectors import cosine_tests

    return cosine_tests(features, numbers)


def sign_test(features: Numbers, numbers: Numbers) -> list[Evidence]:
    """Test features, (B, n), by the exact test of signs, for keys of signs."""
    from treering_detectors import sign_tests

    return sign_tests(features, numbers)


def cosine_reach(cosine: float, d: int) -> float:
    """Return log10 p of a cosine of d numbers; 0 if d is 1."""
    from treering_detectors import cosine_log10_pvalue

    return float(cosine_log10_pvalue(cosine, d)) if d > 1 else 0.0


def sign_reach(agreement: float, n: int) -> float:
    """Return log10 p of an agreement of n signs with Gaussian weights, which count as 2 n / pi signs of equal weight."""
    from treering_detectors import signs_log10_pvalue

    equal = max(1, round(2 * n / np.pi))
    return float(signs_log10_pvalue(np.ones(equal, dtype=np.int64), round(agreement * equal)))


def _signs(prk: bytes, info: str, count: int) -> Numbers:
    return np.where(derive_numbers(prk, info, count) >= 0, 1.0, -1.0)


def _bytes(prk: bytes, info: str, count: int) -> Numbers:
    return np.frombuffer(derive_bytes(prk, info, count), dtype=np.uint8).astype(np.float64)


def _has_direction(numbers: Numbers) -> bool:
    """Return whether the direction of numbers can be computed: not all zero, and no square over- or underflows."""
    return bool(_SMALLEST < np.abs(numbers).max(initial=0) < _LARGEST)


NORMAL = Distribution(
    derive_numbers, _has_direction, "finite numbers that are not all zero, and whose squares are finite"
)
SIGNS = Distribution(_signs, lambda numbers: bool(np.isin(numbers, (-1, 1)).all()), "numbers +1 or -1")
BYTES = Distribution(
    _bytes, lambda numbers: bool(np.isin(numbers, np.arange(256)).all()), "whole numbers from 0 to 255"
)
