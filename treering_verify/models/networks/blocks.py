"""Layers of the small convolutional networks `Refiner` and `Estimator`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch


def residual_block(width: int) -> torch.nn.Sequential:
    """Return two 3 x 3 convolutions, the second initialised to zero; the output is added to the input."""
    last = silent(torch.nn.Conv2d(width, width, 3, padding=1))
    return torch.nn.Sequential(torch.nn.SiLU(), torch.nn.Conv2d(width, width, 3, padding=1), torch.nn.SiLU(), last)


def silent(layer: torch.nn.Conv2d) -> torch.nn.Conv2d:
    """Initialise a layer to zero, so that training begins at the identity of what the network is added to."""
    for parameter in layer.parameters():
        torch.nn.init.zeros_(parameter)
    return layer


def through(body: Iterable[torch.nn.Module], hidden: torch.Tensor) -> torch.Tensor:
    """Run (B, width, h, w) through residual blocks and the last activation."""
    for block in body:
        hidden = hidden + cast(torch.Tensor, block(hidden))
    return torch.nn.functional.silu(hidden)
