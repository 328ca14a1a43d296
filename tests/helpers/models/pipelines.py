"""Pipelines of the real diffusers classes, tiny, with random networks and an autoencoder that is linear by construction.

The autoencoder keeps the latent's first three channels, as colours: E(D(z)) = z there, whatever the rest of the model does.
So what a test sees of marks and inversions comes from the network and from the code.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from diffusers import (
    AsymmetricAutoencoderKL,
    AutoencoderDC,
    AutoencoderKL,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    UNet2DConditionModel,
    VQModel,
)

CELLS, FACTOR = 24, 2
CLASSES = {"0": "tench, Tinca tinca", "1": "goldfish"}  # of DiT, as its index has them
KEPT = (0, 1, 2)  # the channels that survive the autoencoder
_ANCHOR = 100.0  # a constant beside the colours, by which the last normalisation divides, whatever they are


def diffusion_scheduler(prediction: str = "epsilon", **changes: Any) -> DDIMScheduler:
    config = {
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "clip_sample": False,
        "set_alpha_to_one": False,
        "steps_offset": 1,
        "prediction_type": prediction,
    }
    return DDIMScheduler(**{**config, **changes})


def stable_diffusion(prediction: str = "epsilon") -> Any:
    from diffusers import StableDiffusionPipeline

    with seeded():
        return StableDiffusionPipeline(
            vae=linear_autoencoder(4, _scale(prediction)),
            text_encoder=text_encoder(),
            tokenizer=clip_tokenizer(),
            unet=unet(cross_attention_dim=32),
            scheduler=diffusion_scheduler(prediction),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )


def stable_diffusion_xl(prediction: str = "epsilon") -> Any:
    from diffusers import StableDiffusionXLPipeline

    with seeded():
        return StableDiffusionXLPipeline(
            vae=linear_autoencoder(4, _scale(prediction)),
            text_encoder=text_encoder(),
            text_encoder_2=text_encoder(projected=True),
            tokenizer=clip_tokenizer(),
            tokenizer_2=clip_tokenizer(),
            unet=unet(
                cross_attention_dim=64,
                addition_embed_type="text_time",
                addition_time_embed_dim=8,
                projection_class_embeddings_input_dim=6 * 8 + 32,
            ),
            scheduler=diffusion_scheduler(prediction),
            add_watermarker=False,
        )


def stable_diffusion_3() -> Any:
    from diffusers import SD3Transformer2DModel, StableDiffusion3Pipeline

    with seeded():
        return StableDiffusion3Pipeline(
            transformer=SD3Transformer2DModel(
                sample_size=CELLS,
                patch_size=2,
                in_channels=16,
                out_channels=16,
                num_layers=1,
                attention_head_dim=16,
                num_attention_heads=2,
                joint_attention_dim=64,  # T5's width; the two CLIPs' together are padded to it
                caption_projection_dim=32,
                pooled_projection_dim=64,
                pos_embed_max_size=CELLS,
            ),
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
            vae=linear_autoencoder(16, 4.0, shift_factor=0.05),
            text_encoder=text_encoder(projected=True),
            tokenizer=clip_tokenizer(),
            text_encoder_2=text_encoder(projected=True),
            tokenizer_2=clip_tokenizer(),
            text_encoder_3=t5(64),
            tokenizer_3=t5_tokenizer(),
        )


def flux(guided: bool = True) -> Any:
    from diffusers import FluxPipeline, FluxTransformer2DModel

    with seeded():
        pipe = FluxPipeline(
            transformer=FluxTransformer2DModel(
                patch_size=1,
                in_channels=64,
                num_layers=1,
                num_single_layers=1,
                attention_head_dim=16,
                num_attention_heads=2,
                joint_attention_dim=32,
                pooled_projection_dim=32,
                guidance_embeds=guided,
                axes_dims_rope=(4, 6, 6),
            ),
            scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=guided),
            vae=linear_autoencoder(16, 4.0, shift_factor=0.05),
            text_encoder=text_encoder(),
            tokenizer=clip_tokenizer(),
            text_encoder_2=t5(32),
            tokenizer_2=t5_tokenizer(),
        )
    pipe.transformer.register_to_config(sample_size=CELLS)  # as Stable Diffusion's; without it, 1024 pixels
    pipe.default_sample_size = CELLS
    return pipe


def pixart(sigma: bool = False, cells: int = CELLS) -> Any:
    """Make one with a learned variance; alpha of 128 cells is told the image's size, as the one of 1024 pixels is."""
    from diffusers import PixArtAlphaPipeline, PixArtSigmaPipeline, PixArtTransformer2DModel

    with seeded():
        return (PixArtSigmaPipeline if sigma else PixArtAlphaPipeline)(
            tokenizer=t5_tokenizer(),
            text_encoder=t5(32),
            vae=linear_autoencoder(4, _scale("epsilon")),
            transformer=PixArtTransformer2DModel(
                num_attention_heads=3,
                attention_head_dim=16,
                in_channels=4,
                out_channels=8,
                num_layers=1,
                cross_attention_dim=48,
                sample_size=cells,
                use_additional_conditions=cells == 128 and not sigma,
                patch_size=2,
                caption_channels=32,
            ),
            scheduler=diffusion_scheduler(),
        )


def dit(classes: int = 3) -> Any:
    from diffusers import DiTPipeline, DiTTransformer2DModel

    with seeded():
        return DiTPipeline(
            transformer=DiTTransformer2DModel(
                num_attention_heads=2,
                attention_head_dim=16,
                in_channels=4,
                out_channels=8,
                num_layers=1,
                sample_size=CELLS,
                patch_size=2,
                num_embeds_ada_norm=classes,
            ).eval(),  # in training it drops classes at random
            vae=linear_autoencoder(4, _scale("epsilon")),
            scheduler=diffusion_scheduler(),
            id2label=CLASSES,
        )


def rectified_flow(kind: Any = None, **changes: Any) -> Any:
    """Lay a velocity U-Net out as InstaFlow's release does: with a scheduler that is never asked."""
    from treering_verify.models.diffusers.rectified_flow_pipeline import RectifiedFlowPipeline

    pipe = stable_diffusion("v_prediction")  # for the scale of its autoencoder
    return (kind or RectifiedFlowPipeline)(**{**pipe.components, **changes}, requires_safety_checker=False)


UNET: dict[str, Any] = {
    "sample_size": CELLS,
    "layers_per_block": 1,
    "block_out_channels": (8, 16),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": 8,
    "norm_num_groups": 4,
}


def unet(channels: int = 4, out_channels: int | None = None, **changes: Any) -> UNet2DConditionModel:
    return UNet2DConditionModel(in_channels=channels, out_channels=out_channels or channels, **UNET, **changes)


_WIDTH = 2 * len(KEPT) + 2


def linear_autoencoder(channels: int, scaling_factor: float, **changes: Any) -> AutoencoderKL:
    """Colours in pairs (+c, -c): silu(c) - silu(-c) = c, so no activation bends them; residual branches say nothing."""
    return _made_linear(
        AutoencoderKL(
            **_STAGES,
            block_out_channels=(_WIDTH,) * 2,
            layers_per_block=1,
            latent_channels=channels,
            norm_num_groups=1,
            sample_size=CELLS * FACTOR,
            scaling_factor=scaling_factor,
            mid_block_add_attention=False,
            use_quant_conv=False,
            use_post_quant_conv=False,
            **changes,
        )
    )


def asymmetric_autoencoder(scaling_factor: float) -> AsymmetricAutoencoderKL:
    """The same in two halves that are configured apart."""
    return _made_linear(
        AsymmetricAutoencoderKL(
            **_STAGES,
            down_block_out_channels=(_WIDTH,) * 2,
            up_block_out_channels=(_WIDTH,) * 2,
            norm_num_groups=1,
            scaling_factor=scaling_factor,
        )
    )


def quantised_autoencoder(scaling_factor: float, side: int = 16) -> VQModel:
    """The same behind a codebook, a lattice of side^3 entries to three deviations of a unit latent."""
    vae = _made_linear(
        VQModel(
            **_STAGES,
            block_out_channels=(_WIDTH,) * 2,
            latent_channels=4,
            norm_num_groups=1,
            num_vq_embeddings=side**3,
            vq_embed_dim=3,
            scaling_factor=scaling_factor,
            mid_block_add_attention=False,
        )
    )
    line = torch.linspace(-3, 3, side) / scaling_factor
    vae.quantize.embedding.weight.data = torch.cartesian_prod(line, line, line)
    return vae


@torch.no_grad()
def deep_compression_autoencoder(scaling_factor: float, stages: int = 2) -> AutoencoderDC:
    """Images shrunk by means of 2 x 2, and grown by repetition, which are this kind's shortcuts; the same colours."""
    vae = AutoencoderDC(
        latent_channels=4,
        attention_head_dim=_WIDTH,
        encoder_block_out_channels=(_WIDTH,) * stages,
        decoder_block_out_channels=(_WIDTH,) * stages,
        encoder_layers_per_block=(1,) * stages,
        decoder_layers_per_block=(1,) * stages,
        encoder_qkv_multiscales=((),) * stages,
        decoder_qkv_multiscales=((),) * stages,
        encoder_out_shortcut=False,
        decoder_in_shortcut=False,
        scaling_factor=scaling_factor,
    )
    _silence(vae)
    for i, sign in enumerate(_SIGNS):
        for half in (vae.encoder, vae.decoder):
            half.conv_in.weight[i, i % 3, 1, 1] = sign
        vae.decoder.conv_out.weight[i % 3, i, 1, 1] = sign * _SPREAD
        if sign > 0:
            vae.encoder.conv_out.weight[i, i, 1, 1] = 1
    vae.decoder.conv_in.bias.copy_(_CONSTANTS)
    return vae.eval()


_STAGES: dict[str, Any] = {
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
}
_SIGNS = torch.tensor([1.0, 1.0, 1.0, -1.0, -1.0, -1.0])
_CONSTANTS = torch.tensor([0.0] * 6 + [_ANCHOR, -_ANCHOR])
_SPREAD = (2 * _ANCHOR**2 / _WIDTH) ** 0.5


def _silence(vae: Any) -> None:
    for name, parameter in vae.named_parameters():
        if "norm" not in name:
            parameter.zero_()


@torch.no_grad()
def _made_linear(vae: Any) -> Any:
    _silence(vae)
    for name in ("quant_conv", "post_quant_conv"):
        if getattr(vae, name, None) is not None:
            torch.nn.init.dirac_(getattr(vae, name).weight)
    for half in (vae.encoder, vae.decoder):
        for i, sign in enumerate(_SIGNS):
            half.conv_in.weight[i, i % 3, 1, 1] = sign
            half.conv_out.weight[i % 3, i, 1, 1] = sign * _SPREAD
        half.conv_in.bias.copy_(_CONSTANTS)
    for block in vae.encoder.down_blocks[0].downsamplers:
        block.conv.weight[range(6), range(6), :2, :2] = 0.25
        block.conv.bias.copy_(_CONSTANTS)
    for block in vae.decoder.up_blocks[0].upsamplers:
        block.conv.weight[range(6), range(6), 1, 1] = 1
        block.conv.bias.copy_(_CONSTANTS)
    return vae.eval()


def text_encoder(projected: bool = False) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    vocabulary = _vocabulary()
    config = CLIPTextConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=37,
        num_hidden_layers=2,
        num_attention_heads=4,
        projection_dim=32,
        bos_token_id=vocabulary["<|startoftext|>"],
        eos_token_id=vocabulary["<|endoftext|>"],
        pad_token_id=vocabulary["<|endoftext|>"],
    )
    return (CLIPTextModelWithProjection if projected else CLIPTextModel)(config).eval()


def clip_tokenizer() -> Any:
    from transformers import CLIPTokenizer

    return CLIPTokenizer(vocab=_vocabulary(), merges=[], model_max_length=77)


def t5(width: int) -> Any:
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        vocab_size=40, d_model=width, d_kv=8, d_ff=16, num_layers=1, num_heads=2, feed_forward_proj="gated-gelu"
    )
    return T5EncoderModel(config).eval()


def t5_tokenizer() -> Any:
    from transformers import T5Tokenizer

    pieces = ["<pad>", "</s>", "<unk>", "▁", *"abcdefghijklmnopqrstuvwxyz"]
    return T5Tokenizer(vocab=[(piece, -float(i)) for i, piece in enumerate(pieces)], extra_ids=0)


def _vocabulary() -> dict[str, int]:
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["<|startoftext|>", *letters, *(f"{letter}</w>" for letter in letters), "<|endoftext|>"]
    return {word: number for number, word in enumerate(words)}


def _scale(prediction: str) -> float:
    """Scale at which the decoder's images lie in [-1, 1]: a network that says little leaves z / sqrt(a_T) under epsilon."""
    return 50.0 if prediction == "epsilon" else 4.0


@contextmanager
def seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def relative(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found - wanted).detach().norm() / wanted.detach().norm())


def state_of(pipe: Any) -> dict[str, Any]:
    """Return all of a pipeline that somebody could miss."""
    found: dict[str, Any] = {"config": dict(pipe.config), "parts": {n: id(part) for n, part in pipe.components.items()}}
    found["scheduler"] = {n: repr(value) for n, value in vars(pipe.scheduler).items()}
    for name, part in pipe.components.items():
        if isinstance(part, torch.nn.Module):
            found[name] = [
                (m.training, len(m._forward_hooks), len(m._forward_pre_hooks), "forward" in vars(m))
                for m in part.modules()
            ]
            found[f"{name} weights"] = [
                (p.data_ptr(), p.dtype, p.device, p.requires_grad, p._version, p.grad is None)
                for p in part.parameters()
            ]
    return deepcopy(found)
