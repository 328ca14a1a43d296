"""Pipelines of families of 2024 and later, tiny, built as those of `pipelines.py` are."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import AutoencoderKLFlux2, AutoencoderKLQwenImage, FlowMatchEulerDiscreteScheduler

from helpers.models.pipelines import (
    _STAGES,
    _WIDTH,
    CELLS,
    _made_linear,
    deep_compression_autoencoder,
    linear_autoencoder,
    seeded,
)
from helpers.models.video_pipelines import linear_causal_autoencoder

_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
    "{% if not enable_thinking %}<think>\n\n</think>\n\n{% endif %}"
)


def sana() -> Any:
    from diffusers import SanaPipeline, SanaTransformer2DModel
    from transformers import Gemma2Config, Gemma2Model, GemmaTokenizer

    # Digits alone: what is not known becomes one token, so that the pipeline's long instruction takes no time.
    vocabulary = {word: i for i, word in enumerate(("<pad>", "<eos>", "<bos>", "<unk>", *"0123456789"))}
    with seeded():
        return SanaPipeline(
            tokenizer=GemmaTokenizer(vocab=vocabulary, merges=[]),
            text_encoder=Gemma2Model(
                Gemma2Config(
                    vocab_size=len(vocabulary),
                    hidden_size=16,
                    intermediate_size=16,
                    num_hidden_layers=1,
                    num_attention_heads=2,
                    num_key_value_heads=1,
                    head_dim=8,
                )
            ).eval(),
            vae=deep_compression_autoencoder(4.0),
            transformer=SanaTransformer2DModel(
                in_channels=4,
                out_channels=4,
                num_attention_heads=2,
                attention_head_dim=8,
                num_layers=1,
                num_cross_attention_heads=2,
                cross_attention_head_dim=8,
                cross_attention_dim=16,
                caption_channels=16,
                sample_size=32,
            ).eval(),
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        )


def z_image() -> Any:
    from diffusers import ZImagePipeline, ZImageTransformer2DModel

    with seeded():
        return ZImagePipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
            vae=linear_autoencoder(16, 4.0, shift_factor=0.05),
            text_encoder=qwen3(2),
            tokenizer=qwen_tokenizer(),
            transformer=ZImageTransformer2DModel(
                in_channels=16,
                dim=32,
                n_layers=1,
                n_refiner_layers=1,
                n_heads=2,
                n_kv_heads=2,
                cap_feat_dim=16,
                axes_dims=[4, 6, 6],
                axes_lens=[1024, CELLS, CELLS],
            ).eval(),
        )


def flux2(distilled: bool = False) -> Any:
    from diffusers import Flux2KleinPipeline, Flux2Transformer2DModel

    with seeded():
        pipe = Flux2KleinPipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
            vae=_flux2_autoencoder(),
            text_encoder=qwen3(27),  # the pipeline takes the states after layers 9, 18 and 27
            tokenizer=qwen_tokenizer(),
            transformer=Flux2Transformer2DModel(
                in_channels=16,
                num_layers=1,
                num_single_layers=1,
                attention_head_dim=16,
                num_attention_heads=2,
                joint_attention_dim=3 * 16,
                axes_dims_rope=(4, 4, 4, 4),
                guidance_embeds=False,
            ).eval(),
            is_distilled=distilled,
        )
    return pipe


def qwen_image() -> Any:
    from diffusers import QwenImagePipeline, QwenImageTransformer2DModel
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    text = {"vocab_size": len(_qwen_vocabulary()), "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "max_window_layers": 1}
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4}
    sight = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 16}
    config = Qwen2_5_VLConfig(text_config={**text, **heads, "rope_parameters": rope}, vision_config=sight)
    with seeded():
        return QwenImagePipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift_terminal=0.02),
            vae=linear_causal_autoencoder(AutoencoderKLQwenImage, dim_mult=[1, 1], temperal_downsample=[True]),
            text_encoder=Qwen2_5_VLForConditionalGeneration(config).eval(),
            tokenizer=qwen_tokenizer(),
            transformer=QwenImageTransformer2DModel(
                in_channels=64,
                out_channels=16,
                num_layers=1,
                attention_head_dim=16,
                num_attention_heads=2,
                joint_attention_dim=16,
                axes_dims_rope=(4, 6, 6),
            ).eval(),
        )


def _flux2_autoencoder() -> AutoencoderKLFlux2:
    vae = _made_linear(
        AutoencoderKLFlux2(
            **_STAGES,
            block_out_channels=(_WIDTH,) * 2,
            layers_per_block=1,
            latent_channels=4,
            norm_num_groups=1,
            sample_size=CELLS * 2,
            mid_block_add_attention=False,
            use_quant_conv=False,
            use_post_quant_conv=False,
        )
    )
    vae.bn.running_mean.copy_(torch.linspace(-0.1, 0.1, 16))
    vae.bn.running_var.copy_(torch.linspace(0.04, 0.08, 16))
    return vae


def qwen3(layers: int) -> Any:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(
        vocab_size=len(_qwen_vocabulary()),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
    )
    return Qwen3ForCausalLM(config).eval()


def qwen_tokenizer() -> Any:
    from transformers import Qwen2Tokenizer

    return Qwen2Tokenizer(
        vocab=_qwen_vocabulary(), merges=[], additional_special_tokens=list(_SPECIAL), chat_template=_TEMPLATE
    )


def _qwen_vocabulary() -> dict[str, int]:
    return {word: i for i, word in enumerate((*_SPECIAL, "Ġ", "Ċ", *_letters()))}


def _letters() -> str:
    return "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,:;'-<>/"
