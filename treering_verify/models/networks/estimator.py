"""A small network that estimates the noise from several points of the noise inversion."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from treering_verify.models.networks.blocks import residual_block, silent, through
from treering_verify.models.networks.network import Network


class Estimator(Network):
    """A residual convolutional network on the latent's grid: points of the noise inversion -> E[noise | points].

    It is trained to give the expected noise, so each frequency is shrunk by its uncertainty, which makes the best features
    for a key of normal numbers. Its output depends on the image alone, so p-values stay exact whatever it is
    (docs/exact-test.md). `treering_verify.training.landscape.train_estimator` trains it.

    Parameters
    ----------
    latent_channels : int
        Channels of the latent.
    steps : int
        Steps of the noise inversion that it was trained on (`inversion.noise.trajectory`).
    points : sequence of int
        Points that it reads, ascending: 0 is the latent, k the point after k steps. No step after the last is needed.
    width, blocks : int
        Number of channels, and of residual blocks of two 3 x 3 convolutions.
    """

    def __init__(
        self,
        latent_channels: int = 4,
        steps: int = 10,
        points: Sequence[int] = (0, 1, 2, 4, 7, 10),
        width: int = 32,
        blocks: int = 4,
    ) -> None:
        super().__init__(latent_channels=latent_channels, steps=steps, points=tuple(points), width=width, blocks=blocks)
        self.steps, self.points = int(steps), tuple(int(point) for point in points)
        inputs = latent_channels * len(self.points)
        self.mix = torch.nn.Conv2d(inputs, latent_channels, 1, bias=False)
        with torch.no_grad():  # training begins at the last point, where inversion without the network ends
            self.mix.weight.zero_()
            self.mix.weight[:, -latent_channels:, 0, 0] = torch.eye(latent_channels)
        self.first = torch.nn.Conv2d(inputs, width, 3, padding=1)
        self.body = torch.nn.ModuleList(residual_block(width) for _ in range(blocks))
        self.last = silent(torch.nn.Conv2d(width, latent_channels, 3, padding=1))

    def forward(self, trajectory: Sequence[torch.Tensor]) -> torch.Tensor:
        """Estimate the noise from the points of the inversion, (B, C, h, w) each, the latent first."""
        inputs = torch.cat([trajectory[point] for point in self.points], dim=1)
        return self.estimate(inputs.to(self.device)).to(inputs.device)

    def estimate(self, inputs: torch.Tensor) -> torch.Tensor:
        """Estimate the noise, (B, C, h, w), from the concatenated points, (B, points C, h, w)."""
        return self.mix(inputs) + self.last(through(self.body, self.first(inputs)))
