"""The published geometry: its defect, reproduced, and the figures with it and without."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

from detectors import clopper_pearson, nearest_keys
from treering_verify import legacy
from treering_verify.spectrum import inverse, transform

SIZE, COUNT = 64, 1000


@cache
def confusion(centred: bool, deviation: float, size: int = SIZE, count: int = COUNT) -> np.ndarray:
    """Counts (true class, nearest class) over `count` noises per class, read with white noise of that deviation."""
    generator = torch.Generator().manual_seed(0)
    counts = np.zeros((3, 3), dtype=int)
    for label in range(3):
        noise = torch.randn(count, 1, size, size, generator=generator)
        noise_hat = legacy.write(noise, label, centred=centred)
        noise_hat += deviation * torch.randn(noise_hat.shape, generator=generator)
        answers, _ = nearest_keys(legacy.read(noise_hat, centred=centred), legacy.patterns(size, centred=centred))
        counts[label] = np.bincount(answers, minlength=3)
    return counts
