"""Video pipelines of the real diffusers classes, tiny, built as those of `pipelines.py` are."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler

from helpers.models.pipelines import (
    _ANCHOR,
    KEPT,
    UNET,
    clip_tokenizer,
    diffusion_scheduler,
    linear_autoencoder,
    seeded,
    t5_tokenizer,
    text_encoder,
    unet,
)

FRAMES = {"animatediff": 3, "wan": 5}
SIZE = {"animatediff": (40, 40), "wan": (80, 80)}
LATENT_FRAMES = {"animatediff": 3, "wan": 2}
CHANNELS = {"animatediff": 4, "wan": 16}


def kept_channels(family: str, latent_frames: int | None = None) -> tuple[int, ...]:
    """Return the channels of the video's noise that survive the autoencoder."""
    frames = latent_frames or LATENT_FRAMES[family]
    return tuple(CHANNELS[family] * frame + c for frame in range(frames) for c in KEPT)


def animatediff() -> Any:
    from diffusers import AnimateDiffPipeline, MotionAdapter

    with seeded():
        adapter = MotionAdapter(
            block_out_channels=(8, 16),
            motion_layers_per_block=1,
            motion_mid_block_layers_per_block=1,
            motion_num_attention_heads=2,
            motion_norm_num_groups=4,
            motion_max_seq_length=8,
        )
        pipe = AnimateDiffPipeline(
            vae=linear_autoencoder(4, 50.0),
            text_encoder=text_encoder(),
            tokenizer=clip_tokenizer(),
            unet=unet(cross_attention_dim=32),
            motion_adapter=adapter,
            scheduler=diffusion_scheduler(),
        )
    pipe.unet.eval()
    return pipe


def lavie() -> Any:
    from treering_verify.models.diffusers.kinds.lavie_network import LaVieUNet, VideoGenPipeline

    with seeded():
        network = LaVieUNet(**{**UNET, "attention_head_dim": 2}, cross_attention_dim=32)
        for name, tensor in network.named_parameters():
            if (
                "attn_temp.to_out" in name or "relative_attention_bias" in name
            ):  # so that frames have to do with each other
                torch.nn.init.normal_(tensor, std=0.3)
        return VideoGenPipeline(
            vae=linear_autoencoder(4, 50.0),
            text_encoder=text_encoder(),
            tokenizer=clip_tokenizer(),
            unet=network.eval(),
            scheduler=diffusion_scheduler(),
        )


def wan() -> Any:
    from diffusers import WanPipeline, WanTransformer3DModel
    from transformers import UMT5Config, UMT5EncoderModel

    with seeded():
        return WanPipeline(
            transformer=WanTransformer3DModel(
                num_attention_heads=2,
                attention_head_dim=12,
                in_channels=16,
                out_channels=16,
                text_dim=32,
                freq_dim=16,
                ffn_dim=32,
                num_layers=1,
                rope_max_seq_len=32,
            ).eval(),
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
            vae=linear_causal_autoencoder(scale_factor_temporal=4, scale_factor_spatial=4),
            text_encoder=UMT5EncoderModel(
                UMT5Config(vocab_size=40, d_model=32, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
            ).eval(),
            tokenizer=t5_tokenizer(),
        )


@torch.no_grad()
def linear_causal_autoencoder(kind: Any = AutoencoderKLWan, **changes: Any) -> Any:
    """Keep colours as `pipelines.linear_autoencoder` does, 4 x 4 pixels of four frames in a cell: E(D(z)) = z on them."""
    width = 16  # the decoder halves it as it grows the image
    config: dict[str, Any] = {
        "base_dim": width,
        "z_dim": 16,
        "dim_mult": [1, 1, 1],
        "num_res_blocks": 1,
        "temperal_downsample": [True, True],
        "latents_mean": [0.05] * 16,
        "latents_std": [0.2] * 16,
    }
    vae = kind(**{**config, **changes})
    for name, parameter in vae.named_parameters():
        if "norm" not in name:
            parameter.zero_()
    signs = torch.tensor([1.0, 1.0, 1.0, -1.0, -1.0, -1.0])
    constants = torch.tensor([0.0] * 6 + [_ANCHOR, -_ANCHOR])
    spread = (2 * _ANCHOR**2 / width) ** 0.5
    colours, carried = range(6), range(8)
    for half in (vae.encoder, vae.decoder):
        for i, sign in enumerate(signs):
            half.conv_in.weight[i, i % 3, 2, 1, 1] = sign
            half.conv_out.weight[i % 3, i, 2, 1, 1] = sign * spread
        half.conv_in.bias[:8] = constants
    for part in vae.modules():
        if type(part).__name__.endswith("ResidualBlock") and isinstance(part.conv_shortcut, torch.nn.Conv3d):
            part.conv_shortcut.weight[carried, carried] = 1
        if not type(part).__name__.endswith("Resample"):
            continue
        part.resample[1].bias[:8] = constants
        if part.mode == "downsample3d":
            part.resample[1].weight[colours, colours, :2, :2] = 0.25
            part.time_conv.weight[carried, carried, 2] = 1
        else:
            part.resample[1].weight[colours, colours, 1, 1] = 1
            for copy in range(2):
                part.time_conv.weight[[copy * width + c for c in carried], carried, 2] = 1
    vae.quant_conv.weight[range(32), range(32)] = 1
    vae.post_quant_conv.weight[range(16), range(16)] = 1
    return vae.eval()
