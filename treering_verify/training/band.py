"""The error of a noise estimate by frequency: keys live on a band, and a loss should have its weight there."""

from __future__ import annotations

import numpy as np
import torch

# Finer frequencies are lost in most images.
_INNER, _OUTER, _ELSEWHERE = 2, 14, 0.1


def band_weights(height: int, width: int) -> torch.Tensor:
    """Return the weight of each frequency in the loss, (h, w // 2 + 1) as `rfft2` orders them."""
    rows, columns = np.fft.fftfreq(height) * height, np.fft.rfftfreq(width) * width
    radius = np.rint(np.hypot(rows[:, None], columns[None, :]))
    return torch.from_numpy(np.where((radius >= _INNER) & (radius <= _OUTER), 1.0, _ELSEWHERE)).float()


def band_error(estimate: torch.Tensor, noise: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return the weighted mean squared error of the spectrum, (B,): 1 for an estimate of zero."""
    power = torch.fft.rfft2(estimate - noise, norm="ortho").abs().pow(2) * weights
    return power.mean(dim=1).sum(dim=(-2, -1)) / weights.sum()
