"""Blocks of convolutional U-Nets and autoencoders, with the names and arithmetic of those of diffusers.

The names are those in the files of weights. The operations come in the order of diffusers, so that results are the same to
the last bit (the tests compare them).
"""

from __future__ import annotations

import torch
from torch import nn

_FEW = 64  # torch's nearest-neighbour upsampling in channels-last layout fails for batches of this many and more


class ResnetBlock(nn.Module):
    """Two 3 x 3 convolutions with group normalisation, added to the input: (B, `inputs`, H, W) -> (B, `outputs`, H, W).

    Parameters
    ----------
    inputs, outputs : int
        Channels.
    groups : int
    eps : float
    time : int, optional
        Width of the time embedding that is added between the convolutions; None where there is none.
    """

    def __init__(self, inputs: int, outputs: int, groups: int, eps: float, time: int | None = None) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, inputs, eps)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.time_emb_proj = None if time is None else nn.Linear(time, outputs)
        self.norm2 = nn.GroupNorm(groups, outputs, eps)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else None

    def forward(self, x: torch.Tensor, time: torch.Tensor | None = None) -> torch.Tensor:
        """Transform (B, C, H, W), with a time embedding (B, T) where the block takes one."""
        hidden = self.conv1(nn.functional.silu(self.norm1(x)))
        if self.time_emb_proj is not None and time is not None:
            hidden = hidden + self.time_emb_proj(nn.functional.silu(time))[:, :, None, None]
        hidden = self.conv2(nn.functional.silu(self.norm2(hidden)))
        return (x if self.conv_shortcut is None else self.conv_shortcut(x)) + hidden


class Attention(nn.Module):
    """Self-attention among the cells of (B, C, H, W), added to the input.

    Parameters
    ----------
    channels, width : int
        Channels, and those of a head.
    groups : int
    eps : float
    """

    def __init__(self, channels: int, width: int, groups: int, eps: float) -> None:
        super().__init__()
        self.width = width
        self.group_norm = nn.GroupNorm(groups, channels, eps)
        inner = channels // width * width
        self.to_q, self.to_k, self.to_v = (nn.Linear(channels, inner) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(inner, channels)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Transform (B, C, H, W)."""
        batch, channels, height, width = x.shape
        cells = self.group_norm(x.view(batch, channels, height * width)).transpose(1, 2)
        heads = (part(cells).view(batch, height * width, -1, self.width) for part in (self.to_q, self.to_k, self.to_v))
        mixed = nn.functional.scaled_dot_product_attention(*(part.transpose(1, 2) for part in heads))
        out = self.to_out[0](mixed.transpose(1, 2).reshape(batch, height * width, -1))
        return out.transpose(1, 2).reshape(batch, channels, height, width) + x


class Downsample(nn.Module):
    """Convolution of stride 2 that halves each side.

    Parameters
    ----------
    channels : int
    padding : {0, 1}
        1: a pixel on every side; 0: one below and on the right alone.
    """

    def __init__(self, channels: int, padding: int) -> None:
        super().__init__()
        self.padding = padding
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=padding)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, C, H, W) -> (B, C, H / 2, W / 2)."""
        return self.conv(x if self.padding else nn.functional.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Nearest-neighbour upsampling that doubles each side, and a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, C, H, W) -> (B, C, 2 H, 2 W)."""
        x = x.contiguous() if len(x) >= _FEW else x
        return self.conv(nn.functional.interpolate(x, scale_factor=2.0, mode="nearest"))


class Stage(nn.Module):
    """What happens at one resolution: residual blocks, each followed by attention if any, then a change of resolution.

    The parts are `resnets`, `attentions`, and one of `downsamplers` and `upsamplers`, where they are not empty.
    """

    def __init__(
        self,
        resnets: list[ResnetBlock],
        attentions: list[Attention] | None = None,
        down: Downsample | None = None,
        up: Upsample | None = None,
    ) -> None:
        super().__init__()
        self.resnets, self.attentions = nn.ModuleList(resnets), nn.ModuleList(attentions or [])
        self.downsamplers = nn.ModuleList([down] if down else [])
        self.upsamplers = nn.ModuleList([up] if up else [])

    def block(self, index: int, x: torch.Tensor, time: torch.Tensor | None = None) -> torch.Tensor:
        """Apply the residual block of an index, and the attention after it."""
        x = self.resnets[index](x, time)
        return self.attentions[index](x) if self.attentions else x

    def resample(self, x: torch.Tensor) -> torch.Tensor:
        """Change the resolution, where the stage does."""
        for part in (*self.downsamplers, *self.upsamplers):
            x = part(x)
        return x

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply all blocks without time and skip connections, as an autoencoder does."""
        for index in range(len(self.resnets)):
            x = self.block(index, x)
        return self.resample(x)


class Middle(nn.Module):
    """Two residual blocks at the lowest resolution, with attention between them if there is any."""

    def __init__(
        self, channels: int, groups: int, eps: float, time: int | None = None, attention: Attention | None = None
    ) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(ResnetBlock(channels, channels, groups, eps, time) for _ in range(2))
        self.attentions = nn.ModuleList([attention] if attention else [])

    def forward(self, x: torch.Tensor, time: torch.Tensor | None = None) -> torch.Tensor:
        """Transform (B, C, H, W), with a time embedding (B, T) where the blocks take one."""
        x = self.resnets[0](x, time)
        for attention in self.attentions:
            x = attention(x)
        return self.resnets[1](x, time)
