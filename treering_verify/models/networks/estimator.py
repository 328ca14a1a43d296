"""A small network that says what the noise was, from several places on the way back to it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin

from treering_verify.models.networks.blocks import residual_block, silent, through


class Estimator(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Residual convolutional network on the latent's grid: points of the way from latent to noise -> E[noise | points].

    Trained to give the expected noise, so each frequency comes out as large as the image lets it be known: the best features
    for a key of normal numbers. It sees the image alone, so whatever it says, p-values stay exact (DESIGN 4.3). See
    `models/landscape/train_estimator.py`.

    Parameters
    ----------
    latent_channels : int
    steps : int
        Of the noise inversion that it was trained on (`noise_inversion.trajectory`).
    points : sequence of int
        What it is shown, ascending: 0 is the latent, k what k steps have made of it. The last says how many steps are taken.
    width, blocks : int
        Channels, and residual blocks of two 3 x 3 convolutions.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        latent_channels: int = 4,
        steps: int = 10,
        points: Sequence[int] = (0, 1, 2, 4, 7, 10),
        width: int = 32,
        blocks: int = 4,
    ) -> None:
        super().__init__()
        self.steps, self.points = int(steps), tuple(int(point) for point in points)
        inputs = latent_channels * len(self.points)
        self.mix = torch.nn.Conv2d(inputs, latent_channels, 1, bias=False)
        with torch.no_grad():  # training begins at the last point, where inversion without the network would end
            self.mix.weight.zero_()
            self.mix.weight[:, -latent_channels:, 0, 0] = torch.eye(latent_channels)
        self.first = torch.nn.Conv2d(inputs, width, 3, padding=1)
        self.body = torch.nn.ModuleList(residual_block(width) for _ in range(blocks))
        self.last = silent(torch.nn.Conv2d(width, latent_channels, 3, padding=1))

    def forward(self, trajectory: Sequence[torch.Tensor]) -> torch.Tensor:
        """Estimate the noise from the points that were passed, (B, C, h, w) each, the latent first."""
        inputs = torch.cat([trajectory[point] for point in self.points], dim=1)
        return self.estimate(inputs.to(self.device)).to(inputs.device)

    def estimate(self, inputs: torch.Tensor) -> torch.Tensor:
        """Estimate the noise, (B, C, h, w), from the points it is shown, one after the other: (B, points C, h, w)."""
        return self.mix(inputs) + self.last(through(self.body, self.first(inputs)))
