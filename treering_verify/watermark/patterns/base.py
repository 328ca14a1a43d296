"""What a pattern is: how a key's numbers get into noise, what is read from noise_hat, and the test that weighs it."""

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


class Layout(Protocol):
    """Where a key lives: what `Key` and `Family` have in common."""

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels that carry it."""

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
    """A `Layout` and nothing else."""

    channels: tuple[int, ...]
    inner_radius: int
    outer_radius: int
    latent_shape: tuple[int, int, int]


@dataclass(frozen=True)
class Law:
    """What the numbers of a key are, and how a secret gives them.

    Attributes
    ----------
    draw : callable
        (secret, info, count) -> numbers (count,); `treering_verify.watermark.keys.key` states the construction.
    fits : callable
        Whether finite numbers can be such a key's.
    words : str
        What they are, for messages.
    """

    draw: Callable[[bytes, str, int], Numbers]
    fits: Callable[[Numbers], bool]
    words: str


@dataclass(frozen=True)
class Pattern:
    """A way to mark noise: plain functions, of which none but `write` and `test` see the key's numbers.

    Attributes
    ----------
    radii : (int, int)
        Annulus of a key that names none; (0, 0) where the pattern has no annulus.
    law : Law
        Of the key's numbers.
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
        What those are, in the plural.
    realistic : float
        Statistic of the test that `keygen` takes for realistic: after strong compression, or of a good image where a pattern
        does not survive that.
    reach : callable
        (statistic, compared) -> log10 p of that statistic.
    cosine : bool
        Whether the test is the exact cosine test of normal numbers, so that keys can be searched by the million.
    searched : bool
        Whether it lives in the spectrum of the whole noise and is tested by the cosine, so that a turned, mirrored or
        cropped image can be searched for it.
    bins : callable, optional
        Layout -> half-plane bins that it writes, of the noise's spectrum or of its centre's.
    coefficients : callable, optional
        (layout, numbers) -> what it writes there, (channels, n) complex.
    """

    radii: tuple[int, int]
    law: Law
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


def cosine_test(features: Numbers, numbers: Numbers) -> list[Evidence]:
    """Test by the exact cosine test, of keys that are N(0, 1)."""
    from treering_detectors import cosine_tests

    return cosine_tests(features, numbers)


def sign_test(features: Numbers, numbers: Numbers) -> list[Evidence]:
    """Test by the exact test of keys that are fair signs."""
    from treering_detectors import sign_tests

    return sign_tests(features, numbers)


def cosine_reach(cosine: float, d: int) -> float:
    """log10 p of a cosine between d numbers; 0 for a single one."""
    from treering_detectors import cosine_log10_pvalue

    return float(cosine_log10_pvalue(cosine, d)) if d > 1 else 0.0


def sign_reach(agreement: float, n: int) -> float:
    """log10 p of an agreement of n signs, weighted by Gaussian features: these count as 2 / pi times as many equal ones."""
    from treering_detectors import signs_log10_pvalue

    equal = max(1, round(2 * n / np.pi))
    return float(signs_log10_pvalue(np.ones(equal, dtype=np.int64), round(agreement * equal)))


def _signs(secret: bytes, info: str, count: int) -> Numbers:
    return np.where(derive_numbers(secret, info, count) >= 0, 1.0, -1.0)


def _bytes(secret: bytes, info: str, count: int) -> Numbers:
    return np.frombuffer(derive_bytes(secret, info, count), dtype=np.uint8).astype(np.float64)


NORMAL = Law(derive_numbers, lambda numbers: True, "finite numbers")
SIGNS = Law(_signs, lambda numbers: bool(np.isin(numbers, (-1, 1)).all()), "numbers +1 or -1")
BYTES = Law(_bytes, lambda numbers: bool(np.isin(numbers, np.arange(256)).all()), "whole numbers from 0 to 255")
