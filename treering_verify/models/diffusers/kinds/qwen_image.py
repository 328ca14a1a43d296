"""Qwen-Image, a transformer of flow matching behind the autoencoder of a video model (arXiv 2508.02324)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from treering_verify.models.diffusers.family import OtherAutoencoder, PipelineFamily, extrapolated
from treering_verify.models.diffusers.flow_transformers import pack, unpack
from treering_verify.models.protocol import Condition, Timestep

if TYPE_CHECKING:
    import torch

    Given = dict[str, torch.Tensor]

_NOTHING = " "  # what the release gives as negative prompt


def condition(pipe: Any, prompt: Condition, image_size: tuple[int, int]) -> Given:
    """Return the states of a prompt, (1, n, D), and that each of them counts, (1, n)."""
    states, mask = pipe.encode_prompt(prompt or _NOTHING, pipe._execution_device)
    return {"states": states, "mask": (states.new_ones(states.shape[:2]) if mask is None else mask).bool()}


def predict(pipe: Any, z: torch.Tensor, at: Timestep, given: Given, guidance: float) -> torch.Tensor:
    """Run the network on packed latents."""
    height, width = z.shape[-2:]
    tokens = pipe.transformer(
        hidden_states=pack(z),
        timestep=z.new_full((len(z),), at.index) / 1000,
        guidance=None,
        encoder_hidden_states=given["states"].to(z.dtype),
        encoder_hidden_states_mask=None if bool(given["mask"].all()) else given["mask"],
        img_shapes=[[(1, height // 2, width // 2)]] * len(z),
        return_dict=False,
    )[0]
    return unpack(tokens, height, width)


def guided(given: torch.Tensor, without: torch.Tensor, guidance: float) -> torch.Tensor:
    """Return the output with guidance, each token scaled to the length that it has without guidance."""
    tokens, towards = pack(extrapolated(given, without, guidance)), pack(given)
    longer = towards.norm(dim=-1, keepdim=True) / tokens.norm(dim=-1, keepdim=True)
    return unpack(tokens * longer, *given.shape[-2:])


class _OneFrame:
    """An `AutoencoderKLQwenImage` on images, videos of one frame; its output is not clamped."""

    def __init__(self, vae: Any) -> None:
        from diffusers.configuration_utils import FrozenDict

        self._vae, self.config = vae, FrozenDict(plain_config(vae.config))

    def encode(self, image: torch.Tensor) -> Any:
        """Encode images (B, 3, H, W)."""
        from diffusers.models.autoencoders.vae import EncoderOutput

        return EncoderOutput(latent=self._vae.encode(image.unsqueeze(2)).latent_dist.mode().squeeze(2))

    def decode(self, latent: torch.Tensor) -> Any:
        """Decode latents (B, C, h, w); `AutoencoderKLQwenImage.decode` would clamp."""
        import torch
        from diffusers.models.autoencoders.vae import DecoderOutput

        decoder = self._vae.decoder
        cache: list[Any] = [None] * sum(isinstance(part, torch.nn.Conv3d) for part in decoder.modules())
        video = decoder(self._vae.post_quant_conv(latent.unsqueeze(2)), feat_cache=cache, feat_idx=[0])
        return DecoderOutput(sample=video.squeeze(2))


def plain_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return its configuration in the words of `AutoencoderKL`."""
    return {
        "block_out_channels": config["dim_mult"],
        "latent_channels": config["z_dim"],
        "scaling_factor": 1.0,
        "latents_mean": config["latents_mean"],
        "latents_std": config["latents_std"],
    }


QWEN_IMAGE = PipelineFamily(
    "qwen-image",
    "Qwen-Image; flow matching",
    ("QwenImagePipeline",),
    "transformer",
    condition,
    predict,
    networks=("QwenImageTransformer2DModel",),
    components=("text_encoder", "tokenizer"),
    kinds={
        "text_encoder": ("Qwen2_5_VLForConditionalGeneration",),
        "tokenizer": ("Qwen2Tokenizer", "Qwen2TokenizerFast"),
    },
    straight=True,
    spaced=True,
    packed=True,
    guided=guided,
    cells=128,
    limits="not Edit or Layered; guidance is true_cfg_scale, with a blank negative prompt; Euler's grid only",
    autoencoder=OtherAutoencoder(("AutoencoderKLQwenImage",), plain_config, _OneFrame),
)
