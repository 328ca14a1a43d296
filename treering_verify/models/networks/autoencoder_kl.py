"""The embedded model's autoencoder: that of latent diffusion (Rombach et al., arXiv 2112.10752), in plain torch."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from treering_verify.models.networks.config import Fields, require
from treering_verify.models.networks.network import Network
from treering_verify.models.networks.unet_blocks import Downsample, Middle, ResnetBlock, Stage, Upsample

_EPS = 1e-6


class AutoencoderKL(Network):
    """Architecture, configuration and file format of the class of that name in diffusers, without its attention.

    Parameters
    ----------
    in_channels, out_channels, latent_channels : int
    block_out_channels : sequence of int
        Channels of each resolution, the highest first.
    layers_per_block, norm_num_groups : int
    scaling_factor, shift_factor : float
        How the latent is normalised, outside this class.
    **rest
        Other fields of the configuration; ValueError if they ask for more than is implemented.
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        out_channels: int = 3,
        latent_channels: int = 4,
        block_out_channels: Sequence[int] = (64,),
        layers_per_block: int = 1,
        norm_num_groups: int = 32,
        scaling_factor: float = 0.18215,
        shift_factor: float | None = None,
        **rest: Any,
    ) -> None:
        super().__init__(
            in_channels=in_channels,
            out_channels=out_channels,
            latent_channels=latent_channels,
            block_out_channels=tuple(block_out_channels),
            layers_per_block=layers_per_block,
            norm_num_groups=norm_num_groups,
            scaling_factor=scaling_factor,
            shift_factor=shift_factor,
            **rest,
        )
        stages = len(block_out_channels)
        require(
            self.config,
            act_fn="silu",
            down_block_types=["DownEncoderBlock2D"] * stages,
            up_block_types=["UpDecoderBlock2D"] * stages,
            mid_block_add_attention=False,
            use_quant_conv=True,
            use_post_quant_conv=True,
        )
        widths, groups = tuple(block_out_channels), norm_num_groups
        self.encoder = Encoder(in_channels, 2 * latent_channels, widths, layers_per_block, groups)
        self.decoder = Decoder(latent_channels, out_channels, widths[::-1], layers_per_block + 1, groups)
        self.quant_conv = nn.Conv2d(2 * latent_channels, 2 * latent_channels, 1)
        self.post_quant_conv = nn.Conv2d(latent_channels, latent_channels, 1)

    def encode(self, image: torch.Tensor) -> Fields:
        """Encode an image (B, 3, H, W) -> `latent`: the posterior's mean (its mode), (B, C, h, w), not normalised."""
        mean, _log_variance = self.quant_conv(self.encoder(image)).chunk(2, dim=1)
        return Fields(latent=mean)

    def decode(self, latent: torch.Tensor) -> Fields:
        """Decode a latent (B, C, h, w), not normalised -> `sample`: image (B, 3, H, W), not clamped."""
        return Fields(sample=self.decoder(self.post_quant_conv(latent)))


class Encoder(nn.Module):
    """Image -> mean and log-variance of the posterior; `widths` from the highest resolution to the lowest."""

    def __init__(self, inputs: int, outputs: int, widths: Sequence[int], layers: int, groups: int) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(inputs, widths[0], 3, padding=1)
        self.down_blocks = nn.ModuleList()
        for i, (before, width) in enumerate(pairwise((widths[0], *widths))):
            down = Downsample(width, padding=0) if i < len(widths) - 1 else None
            self.down_blocks.append(Stage(_resnets(before, width, layers, groups), down=down))
        self.mid_block = Middle(widths[-1], groups, _EPS)
        self.conv_norm_out = nn.GroupNorm(groups, widths[-1], _EPS)
        self.conv_out = nn.Conv2d(widths[-1], outputs, 3, padding=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Map (B, 3, H, W) -> (B, 2 C, h, w)."""
        x = self.conv_in(image)
        for stage in self.down_blocks:
            x = stage(x)
        return self.conv_out(nn.functional.silu(self.conv_norm_out(self.mid_block(x))))


class Decoder(nn.Module):
    """Latent -> image; `widths` from the lowest resolution to the highest."""

    def __init__(self, inputs: int, outputs: int, widths: Sequence[int], layers: int, groups: int) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(inputs, widths[0], 3, padding=1)
        self.mid_block = Middle(widths[0], groups, _EPS)
        self.up_blocks = nn.ModuleList()
        for i, (before, width) in enumerate(pairwise((widths[0], *widths))):
            up = Upsample(width) if i < len(widths) - 1 else None
            self.up_blocks.append(Stage(_resnets(before, width, layers, groups), up=up))
        self.conv_norm_out = nn.GroupNorm(groups, widths[-1], _EPS)
        self.conv_out = nn.Conv2d(widths[-1], outputs, 3, padding=1)

    def forward(self, latent: torch.Tensor) -> torch.Tensor:
        """Map (B, C, h, w) -> (B, 3, H, W)."""
        x = self.mid_block(self.conv_in(latent))
        for stage in self.up_blocks:
            x = stage(x)
        return self.conv_out(nn.functional.silu(self.conv_norm_out(x)))


def _resnets(before: int, width: int, layers: int, groups: int) -> list[ResnetBlock]:
    return [ResnetBlock(width if i else before, width, groups, _EPS) for i in range(layers)]
