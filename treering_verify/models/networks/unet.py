"""The embedded model's denoiser: a class-conditional U-Net with attention at low resolutions, in plain torch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, cast

import torch
from torch import nn

from treering_verify.models.networks.config import Fields, require
from treering_verify.models.networks.network import Network
from treering_verify.models.networks.unet_blocks import Attention, Downsample, Middle, ResnetBlock, Stage, Upsample

_LONGEST = 10_000  # period of the slowest sinusoid of the time embedding


class UNet2DModel(Network):
    """Architecture, configuration and file format of the class of that name in diffusers, class-conditional.

    Parameters
    ----------
    sample_size : int or (int, int)
        Side, or height and width, of the latent.
    in_channels, out_channels : int
    block_out_channels : sequence of int
        Channels of each resolution, the highest first.
    down_block_types, up_block_types : sequence of str
        One for each resolution: "AttnDownBlock2D" and "AttnUpBlock2D" have attention, "DownBlock2D" and "UpBlock2D" have
        none.
    layers_per_block, norm_num_groups, attention_head_dim : int
    norm_eps : float
    num_class_embeds : int
        Classes, including the one that means no condition.
    **rest
        Other fields of the configuration; ValueError if they ask for more than is implemented.
    """

    def __init__(
        self,
        *,
        sample_size: int | Sequence[int],
        in_channels: int,
        out_channels: int,
        block_out_channels: Sequence[int],
        down_block_types: Sequence[str],
        up_block_types: Sequence[str],
        layers_per_block: int = 2,
        norm_num_groups: int = 32,
        attention_head_dim: int = 8,
        norm_eps: float = 1e-5,
        num_class_embeds: int,
        **rest: Any,
    ) -> None:
        super().__init__(
            sample_size=sample_size,
            in_channels=in_channels,
            out_channels=out_channels,
            block_out_channels=tuple(block_out_channels),
            down_block_types=tuple(down_block_types),
            up_block_types=tuple(up_block_types),
            layers_per_block=layers_per_block,
            norm_num_groups=norm_num_groups,
            attention_head_dim=attention_head_dim,
            norm_eps=norm_eps,
            num_class_embeds=num_class_embeds,
            **rest,
        )
        require(
            self.config,
            act_fn="silu",
            add_attention=True,
            attn_norm_num_groups=None,
            center_input_sample=False,
            class_embed_type=None,
            downsample_padding=1,
            downsample_type="conv",
            flip_sin_to_cos=True,
            freq_shift=0,
            mid_block_scale_factor=1,
            mid_block_type="UNetMidBlock2D",
            num_train_timesteps=None,
            resnet_time_scale_shift="default",
            time_embedding_dim=None,
            time_embedding_type="positional",
            upsample_type="conv",
        )
        widths, groups, eps = tuple(block_out_channels), norm_num_groups, norm_eps
        time, last = 4 * widths[0], len(widths) - 1

        def resnet(inputs: int, outputs: int) -> ResnetBlock:
            return ResnetBlock(inputs, outputs, groups, eps, time)

        def attention(width: int) -> Attention:
            return Attention(width, attention_head_dim, groups, eps)

        self.conv_in = nn.Conv2d(in_channels, widths[0], 3, padding=1)
        self.time_embedding = TimeEmbedding(widths[0], time)
        self.class_embedding = nn.Embedding(num_class_embeds, time)
        self.down_blocks = nn.ModuleList()
        for i, (before, width) in enumerate(pairwise((widths[0], *widths))):
            resnets = [resnet(width if j else before, width) for j in range(layers_per_block)]
            attentions = [attention(width) for _ in resnets if _attends(down_block_types[i], "Down")]
            self.down_blocks.append(Stage(resnets, attentions, down=Downsample(width, 1) if i < last else None))
        self.mid_block = Middle(widths[-1], groups, eps, time, attention(widths[-1]))
        self.up_blocks = nn.ModuleList()
        # Each block also takes what its twin on the way down left; that stage's last skip came from one resolution higher.
        for i, (before, width) in enumerate(pairwise((widths[-1], *widths[::-1]))):
            above = widths[::-1][min(i + 1, last)]
            skips = [width] * layers_per_block + [above]
            resnets = [resnet((width if j else before) + skip, width) for j, skip in enumerate(skips)]
            attentions = [attention(width) for _ in resnets if _attends(up_block_types[i], "Up")]
            self.up_blocks.append(Stage(resnets, attentions, up=Upsample(width) if i < last else None))
        self.conv_norm_out = nn.GroupNorm(groups, widths[0], eps)
        self.conv_out = nn.Conv2d(widths[0], out_channels, 3, padding=1)

    def forward(self, z: torch.Tensor, index: int, class_labels: torch.Tensor) -> Fields:
        """Return `sample`, (B, C, h, w): noise, velocity or flow, whichever the network was trained to predict.

        Parameters
        ----------
        z : (B, C, h, w)
        index : int
            The time, as the scheduler counts it.
        class_labels : (B,) of int
        """
        at = sinusoids(torch.full((len(z),), index, device=z.device), self.config.block_out_channels[0])
        time = self.time_embedding(at.to(z.dtype)) + self.class_embedding(class_labels)
        x = self.conv_in(z)
        left = [x]
        for stage in _stages(self.down_blocks):
            for i in range(len(stage.resnets)):
                x = stage.block(i, x, time)
                left.append(x)
            if len(stage.downsamplers):
                x = stage.resample(x)
                left.append(x)
        x = self.mid_block(x, time)
        for stage in _stages(self.up_blocks):
            for i in range(len(stage.resnets)):
                x = stage.block(i, torch.cat([x, left.pop()], dim=1), time)
            x = stage.resample(x)
        return Fields(sample=self.conv_out(nn.functional.silu(self.conv_norm_out(x))))


class TimeEmbedding(nn.Module):
    """Two linear layers on the sinusoids of a time."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.linear_1, self.linear_2 = nn.Linear(inputs, width), nn.Linear(width, width)

    def forward(self, at: torch.Tensor) -> torch.Tensor:
        """Map (B, inputs) -> (B, width)."""
        return self.linear_2(nn.functional.silu(self.linear_1(at)))


def sinusoids(index: torch.Tensor, width: int) -> torch.Tensor:
    """Return cosines and sines of a time at geometric frequencies, (B,) -> (B, width); arXiv 2006.11239, app. B."""
    half = width // 2
    exponents = -math.log(_LONGEST) * torch.arange(half, dtype=torch.float32, device=index.device) / half
    angles = index[:, None].float() * exponents.exp()[None]
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def _stages(modules: nn.ModuleList) -> Iterator[Stage]:
    return cast(Iterator[Stage], iter(modules))


def _attends(kind: str, direction: str) -> bool:
    """Whether a stage of a configured kind has attention; ValueError if the kind is not implemented."""
    if kind not in (f"{direction}Block2D", f"Attn{direction}Block2D"):
        raise ValueError(f"no block {kind!r}: {direction}Block2D and Attn{direction}Block2D are implemented")
    return kind.startswith("Attn")
