"""What the small convolutional networks beside a model, `Refiner` and `Estimator`, are built of."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch


def residual_block(width: int) -> torch.nn.Sequential:
    """Two 3 x 3 convolutions, the second of which says nothing at first; to be added to its input."""
    last = silent(torch.nn.Conv2d(width, width, 3, padding=1))
    return torch.nn.Sequential(torch.nn.SiLU(), torch.nn.Conv2d(width, width, 3, padding=1), torch.nn.SiLU(), last)


def silent(layer: torch.nn.Conv2d) -> torch.nn.Conv2d:
    """Make a layer say nothing at first, so that training begins at what the network is added to."""
    for parameter in layer.parameters():
        torch.nn.init.zeros_(parameter)
    return layer


def through(body: Iterable[torch.nn.Module], hidden: torch.Tensor) -> torch.Tensor:
    """Pass (B, width, h, w) through residual blocks, and the last activation."""
    for block in body:
        hidden = hidden + cast(torch.Tensor, block(hidden))
    return torch.nn.functional.silu(hidden)
