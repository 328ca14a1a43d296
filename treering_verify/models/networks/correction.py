"""A small network on top of fitted noise filters."""

from __future__ import annotations

import torch

from treering_verify.models.networks.blocks import residual_block, silent, through
from treering_verify.models.networks.network import Network


class Correction(Network):
    """A residual convolutional network on the latent's grid: inputs and estimate of noise filters -> what they miss.

    It begins at zero, where the estimate is the filters' own. Its output depends on the image alone, so p-values stay exact
    (docs/exact-test.md). `treering_verify.training.correction` trains it.

    Parameters
    ----------
    inputs : int
        Channels that the filters read.
    latent_channels : int
        Channels of the noise.
    width, blocks : int
        Number of channels, and of residual blocks of two 3 x 3 convolutions.
    """

    def __init__(self, inputs: int, latent_channels: int, width: int = 48, blocks: int = 4) -> None:
        super().__init__(inputs=inputs, latent_channels=latent_channels, width=width, blocks=blocks)
        self.first = torch.nn.Conv2d(inputs + latent_channels, width, 3, padding=1)
        self.body = torch.nn.ModuleList(residual_block(width) for _ in range(blocks))
        self.last = silent(torch.nn.Conv2d(width, latent_channels, 3, padding=1))

    def forward(self, inputs: torch.Tensor, estimate: torch.Tensor) -> torch.Tensor:
        """Return what to add to an estimate, (B, C, h, w), from the filters' inputs in units of their scale."""
        found: torch.Tensor = self.last(through(self.body, self.first(torch.cat([inputs, estimate], dim=1))))
        return found
