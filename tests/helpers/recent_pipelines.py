"""Pipelines of families of 2024 and later, tiny, built as those of `pipelines.py` are."""

from __future__ import annotations

from typing import Any

from diffusers import FlowMatchEulerDiscreteScheduler

from helpers.pipelines import CELLS, deep_compression_autoencoder, linear_autoencoder, seeded

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
