"""Keys of every pattern, white noise, and the features of a key in noise."""

from __future__ import annotations

import numpy as np
import torch

from treering_verify.watermark.embedding import extract, features
from treering_verify.watermark.keys.key import Key
from treering_verify.watermark.patterns import PATTERNS

SHAPE = (4, 32, 32)
SMALL = (2, 24, 24)  # where many tests of signs are run
SECRET = bytes(range(32))
ON_A_SPECTRUM = [name for name, pattern in PATTERNS.items() if pattern.bins]
ON_ALL_VALUES = [name for name in PATTERNS if name not in ON_A_SPECTRUM]
BY_SIGNS = [name for name, pattern in PATTERNS.items() if not pattern.cosine]


def white(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def keys_of(pattern: str, count: int, shape: tuple[int, int, int] = SHAPE, first: int = 0) -> list[Key]:
    return [Key.generate(shape, pattern=pattern, seed=first + i) for i in range(count)]


def recovered(noise_hat: torch.Tensor, key: Key) -> np.ndarray:
    return features(extract(noise_hat, key), key)
