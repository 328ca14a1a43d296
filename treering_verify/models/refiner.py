"""A small network that knows what a decoder loses: it corrects a latent from what the image still says about it."""

from __future__ import annotations

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin

from treering_verify.models.blocks import residual_block, silent, through


class Refiner(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Residual convolutional network on the latent's grid: (start, z, residual, image, output) -> z_0 - z.

    Trained to give the expected latent, given the image: it fills in where the decoder is blind, and takes out what an
    attack put in, as far as either can be known. See `models/landscape/train_refiner.py`.

    Parameters
    ----------
    latent_channels : int
    factor : int
        Pixels per latent cell and side.
    width, blocks : int
        Channels, and residual blocks of two 3 x 3 convolutions.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(self, latent_channels: int = 4, factor: int = 4, width: int = 64, blocks: int = 6) -> None:
        super().__init__()
        inputs = 3 * latent_channels + 2 * 3 * factor**2
        self.first = torch.nn.Conv2d(inputs, width, 3, padding=1)
        self.body = torch.nn.ModuleList(residual_block(width) for _ in range(blocks))
        self.last = silent(torch.nn.Conv2d(width, latent_channels, 3, padding=1))  # training begins at a forward step

    def forward(
        self,
        start: torch.Tensor,
        z: torch.Tensor,
        residual: torch.Tensor,
        image: torch.Tensor,
        output: torch.Tensor,
    ) -> torch.Tensor:
        """Estimate z_0 - z, (B, C, h, w), from E(x), z, r(z), x and D(z)."""
        return self.correct(features(start, z, residual, image, output, self.config.factor)) - residual

    def correct(self, inputs: torch.Tensor) -> torch.Tensor:
        """Estimate what a forward step from z leaves to be done, from the `features` of z."""
        return self.last(through(self.body, self.first(inputs)))


def features(
    start: torch.Tensor,
    z: torch.Tensor,
    residual: torch.Tensor,
    image: torch.Tensor,
    output: torch.Tensor,
    factor: int,
) -> torch.Tensor:
    """Stack what is known at z on the latent's grid, scaled to about 1: (B, 3 C + 6 factor^2, h, w)."""
    pixels = torch.cat([image, 8 * (output - image)], dim=1)
    return torch.cat([start, 4 * (z - start), 4 * residual, torch.nn.functional.pixel_unshuffle(pixels, factor)], dim=1)
