"""Sign patterns on all values of the noise: the key chooses the signs, the noise keeps its magnitudes.

A unit-normal value is a random sign times a half-normal magnitude, independent of each other. If the sign is a pseudorandom
bit, the marked noise is N(0, I) to anybody without the key, so a mark costs no image quality. Gaussian Shading lets a bit
choose one half of the normal's quantiles, which is the same; the magnitude here is that of the given noise.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from treering_verify.watermark.patterns.base import Layout, Numbers

if TYPE_CHECKING:
    import torch

RADII = (0, 0)  # these patterns have no annulus


def count_values(layout: Layout) -> int:
    """Count the values of the noise in the layout's channels; ValueError if the layout names an annulus."""
    if (layout.inner_radius, layout.outer_radius) != RADII:
        raise ValueError("this pattern is written into all of the noise: leave out --inner-radius and --outer-radius")
    return len(layout.channels) * layout.latent_shape[1] * layout.latent_shape[2]


def write_signs(noise: torch.Tensor, layout: Layout, signs: npt.NDArray[np.float64]) -> torch.Tensor:
    """Give the values of the layout's channels these signs, (B, n), channel by channel and row by row."""
    import torch

    wanted = torch.from_numpy(signs).to(noise).reshape(len(noise), -1, *noise.shape[2:])
    marked = noise.clone()
    marked[:, list(layout.channels)] = noise[:, list(layout.channels)].abs() * wanted
    return marked


def read_values(noise_hat: torch.Tensor, layout: Layout) -> Numbers:
    """Return the values of the layout's channels: (B, C, h, w) -> (B, channels, h w)."""
    import torch

    chosen = noise_hat[:, list(layout.channels)].detach().to("cpu", torch.float64)
    return np.asarray(chosen.flatten(2).numpy())


def features(readings: Numbers, layout: Layout) -> Numbers:
    """Flatten readings, (B, channels, h w) -> (B, n)."""
    return readings.reshape(len(readings), -1)


def digest(noise: torch.Tensor) -> list[bytes]:
    """Return the SHA-256 of each item of noise, (B, C, h, w), as float32, by which choices differ from image to image."""
    import torch

    items = noise.detach().to("cpu", torch.float32).contiguous().numpy().astype("<f4")
    return [hashlib.sha256(item.tobytes()).digest() for item in items]


def stream(key: bytes, nonce: int, size: int) -> bytes:
    """Return `size` bytes of ChaCha20 (RFC 8439) under a key of 32 bytes and a nonce below 2^96, from counter 0."""
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

    counter_and_nonce = bytes(4) + nonce.to_bytes(12, "big")
    encryptor = Cipher(algorithms.ChaCha20(key, counter_and_nonce), mode=None).encryptor()
    return encryptor.update(bytes(size))


def bits_of(data: bytes, count: int) -> npt.NDArray[np.uint8]:
    """Return the first `count` bits of bytes, the highest of each byte first."""
    return np.unpackbits(np.frombuffer(data, dtype=np.uint8))[:count]
