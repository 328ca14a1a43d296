"""The network and the pipeline of LaVie, which diffusers does not have (Wang et al., arXiv 2309.15103).

The network is Stable Diffusion's U-Net, run on all frames of a video, with two changes. Each transformer block attends over
time too, before its feed-forward layer, with rotary positions (Su et al., arXiv 2104.09864) and a learned bias by distance
(Raffel et al., arXiv 1910.10683). And the group norms of residual blocks take their statistics over all frames. The names of
weights are those of the release.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextvars import ContextVar
from functools import wraps
from typing import Any

import torch
from diffusers import AnimateDiffPipeline, DiffusionPipeline, UNet2DConditionModel
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput
from diffusers.video_processor import VideoProcessor
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

_FRAMES: ContextVar[int] = ContextVar("_FRAMES", default=1)  # of the video that the network runs on
_ROTATED = 32  # features of each head that are rotated
_BUCKETS, _FARTHEST = 32, 32
_ROWS = 4  # frames, or the same number of cells of all of them, that a layer of a transformer block takes at once


class LaVieUNet(UNet2DConditionModel):  # type: ignore[misc]
    """A U-Net on videos, (B, C, F, h, w), configured as `UNet2DConditionModel`."""

    conv_norm_out: nn.GroupNorm

    @wraps(UNet2DConditionModel.__init__)  # type: ignore[misc]
    def __init__(self, *args: Any, **config: Any) -> None:
        super().__init__(*args, **config)
        self.conv_norm_out = _VideoNorm(self.conv_norm_out)
        for module in list(self.modules()):
            if isinstance(module, ResnetBlock2D):
                module.norm1, module.norm2 = _VideoNorm(module.norm1), _VideoNorm(module.norm2)
            elif isinstance(module, nn.ModuleList):
                for i, block in enumerate(module):
                    if isinstance(block, BasicTransformerBlock):
                        module[i] = _VideoBlock(block)

    def forward(
        self,
        sample: torch.Tensor,
        timestep: Any,
        encoder_hidden_states: torch.Tensor,
        *,
        return_dict: bool = True,
        **_: Any,
    ) -> Any:
        """Predict the noise of videos, given the text's states, (B, n, D), or those of each frame, (B F, n, D)."""
        count, frames = sample.shape[0], sample.shape[2]
        states = encoder_hidden_states
        if len(states) == count:
            states = states.repeat_interleave(frames, dim=0)
        before = _FRAMES.set(frames)
        try:
            images = sample.transpose(1, 2).flatten(0, 1)
            output = super().forward(images, timestep, encoder_hidden_states=states, return_dict=False)[0]
        finally:
            _FRAMES.reset(before)
        video = output.unflatten(0, (count, frames)).transpose(1, 2)
        return UNet2DConditionOutput(sample=video) if return_dict else (video,)


class VideoGenPipeline(AnimateDiffPipeline):  # type: ignore[misc]
    """Text to video; the call is that of `AnimateDiffPipeline`, and the name that of the release.

    Parameters
    ----------
    vae, text_encoder, tokenizer, scheduler
        As those of Stable Diffusion.
    unet : LaVieUNet
    """

    def __init__(self, vae: Any, text_encoder: Any, tokenizer: Any, unet: Any, scheduler: Any) -> None:
        DiffusionPipeline.__init__(self)  # the other class would put motion modules of its own into the network
        self.register_modules(vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, unet=unet, scheduler=scheduler)
        # A saved index must name a class that diffusers finds.
        self.register_to_config(unet=("diffusers", "UNet2DConditionModel"))
        self.vae_scale_factor = 2 ** (len(vae.config.block_out_channels) - 1)
        self.video_processor = VideoProcessor(do_resize=False, vae_scale_factor=self.vae_scale_factor)


class _VideoNorm(nn.GroupNorm):
    """A group norm of frames, (B F, C, h, w), with the statistics of each whole video."""

    def __init__(self, like: nn.GroupNorm) -> None:
        super().__init__(like.num_groups, like.num_channels, like.eps)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        video = frames.unflatten(0, (-1, _FRAMES.get())).transpose(1, 2)
        return super().forward(video).transpose(1, 2).flatten(0, 1)


class _VideoBlock(nn.Module):
    """The layers of a `BasicTransformerBlock` on frames, (B F, cells, D), with attention over time before the last.

    Layers that treat frames apart, or cells, run on a few of them at a time, so that their memory is bounded.
    """

    def __init__(self, block: BasicTransformerBlock) -> None:
        super().__init__()
        self.norm1, self.attn1, self.norm2, self.attn2 = block.norm1, block.attn1, block.norm2, block.attn2
        self.norm_temp = nn.LayerNorm(block.norm1.normalized_shape)
        self.attn_temp = _TimeAttention(block.attn1.to_q.in_features, block.attn1.heads)
        self.norm3, self.ff = block.norm3, block.ff

    def forward(self, frames: torch.Tensor, *, encoder_hidden_states: torch.Tensor, **_: Any) -> torch.Tensor:
        frames = _in_slices(self._by_frame, _ROWS, frames, encoder_hidden_states)
        video = frames.unflatten(0, (-1, _FRAMES.get())).transpose(1, 2)  # (B, cells, F, D)
        cells = _in_slices(self._by_cell, max(1, _ROWS * frames.shape[1] // _FRAMES.get()), video.flatten(0, 1))
        frames = cells.view(video.shape).transpose(1, 2).flatten(0, 1)
        return _in_slices(lambda some: some + self.ff(self.norm3(some)), _ROWS, frames)

    def _by_frame(self, frames: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        frames = frames + self.attn1(self.norm1(frames))
        return frames + self.attn2(self.norm2(frames), encoder_hidden_states=states)

    def _by_cell(self, cells: torch.Tensor) -> torch.Tensor:
        return cells + self.attn_temp(self.norm_temp(cells))


class _TimeAttention(nn.Module):
    """Attention of each cell, (n, F, D), over its frames."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(width, width)])
        self.time_rel_pos_bias = _Bias(heads)
        self.rotary_emb = _Rotation(min(_ROTATED, width // heads))

    def forward(self, cells: torch.Tensor) -> torch.Tensor:
        query, key, value = (
            layer(cells).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in (self.to_q, self.to_k, self.to_v)
        )
        found = scaled_dot_product_attention(
            self.rotary_emb(query), self.rotary_emb(key), value, attn_mask=self.time_rel_pos_bias(cells.shape[1])
        )
        return self.to_out[0](found.transpose(1, 2).flatten(2))


class _Rotation(nn.Module):
    """Rotate pairs of neighbouring features by angles that grow with the number of the frame."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.freqs = nn.Parameter(1e4 ** (-torch.arange(0, features, 2).float() / features), requires_grad=False)

    def forward(self, heads: torch.Tensor) -> torch.Tensor:
        count = 2 * len(self.freqs)
        angles = torch.arange(heads.shape[-2], device=heads.device)[:, None] * self.freqs.float()
        x, y = heads[..., :count].unflatten(-1, (-1, 2)).float().unbind(-1)
        cos, sin = angles.cos(), angles.sin()
        turned = torch.stack([x * cos - y * sin, x * sin + y * cos], dim=-1).flatten(-2)
        return torch.cat([turned.to(heads.dtype), heads[..., count:]], dim=-1)


class _Bias(nn.Module):
    """A number for each head and each distance in time: exact for near frames, in steps of a logarithm for others."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.relative_attention_bias = nn.Embedding(_BUCKETS, heads)

    def forward(self, frames: int) -> torch.Tensor:
        """Return the bias of each pair, (heads, F, F)."""
        weight = self.relative_attention_bias.weight
        times = torch.arange(frames, device=weight.device)
        ahead = times[None, :] - times[:, None]
        half, exact = _BUCKETS // 2, _BUCKETS // 4
        far = ahead.abs().clamp(min=1).float()
        steps = (torch.log(far / exact) / math.log(_FARTHEST / exact) * (half - exact)).long() + exact
        bucket = torch.where(ahead.abs() < exact, ahead.abs(), steps.clamp(max=half - 1)) + half * (ahead > 0)
        return self.relative_attention_bias(bucket).permute(2, 0, 1)


def _in_slices(layer: Callable[..., torch.Tensor], rows: int, *tensors: torch.Tensor) -> torch.Tensor:
    return torch.cat([layer(*parts) for parts in zip(*(tensor.split(rows) for tensor in tensors), strict=True)])
