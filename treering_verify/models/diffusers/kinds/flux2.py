"""FLUX.2 klein, a transformer of flow matching whose prompts are read by three layers of Qwen3."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from treering_verify.models.diffusers.family import OtherAutoencoder, PipelineFamily
from treering_verify.models.diffusers.flow_transformers import pack, unpack
from treering_verify.models.diffusers.kinds.chat import hidden_states, message
from treering_verify.models.protocol import Condition, Timestep

if TYPE_CHECKING:
    import torch

    Given = dict[str, torch.Tensor]

# The dynamic shift is linear in the steps between two lines, of 10 and of 200 steps, that are linear in the tokens: slope
# and start of each, as diffusers has them. Above so many tokens the second alone counts.
_FEW, _MANY = (8.73809524e-05, 1.89833333), (0.00016927, 0.45666666)
_FEW_STEPS, _MANY_STEPS, _MOST = 10, 200, 4300


def condition(pipe: Any, prompt: Condition, image_size: tuple[int, int]) -> Given:
    """Return the states of a prompt, (1, 512, 3 D): those of three layers of the text encoder beside each other."""
    import torch

    layers = inspect.signature(type(pipe).encode_prompt).parameters["text_encoder_out_layers"].default
    states, _ = hidden_states(pipe, message(prompt or "", thinking=False))
    return {"states": torch.cat([states[layer] for layer in layers], dim=-1)}


def predict(pipe: Any, z: torch.Tensor, at: Timestep, given: Given, guidance: float) -> torch.Tensor:
    """Run the network on packed latents; places are (image, row, column, word)."""
    import torch

    height, width = z.shape[-2:]
    states = given["states"].to(z.dtype)
    cells, words = (
        torch.cartesian_prod(*(torch.arange(n, device=z.device) for n in counts)).expand(len(z), -1, -1)
        for counts in ((1, height // 2, width // 2, 1), (1, 1, 1, states.shape[1]))
    )
    tokens = pipe.transformer(
        hidden_states=pack(z),
        timestep=z.new_full((len(z),), at.index) / 1000,
        guidance=None,
        encoder_hidden_states=states,
        txt_ids=words,
        img_ids=cells,
        return_dict=False,
    )[0]
    return unpack(tokens, height, width)


def laid_out(noise: torch.Tensor) -> torch.Tensor:
    """Lay noise out as the pipeline's `latents=`: squares of 2 x 2 cells are channels, (B, 4 C, h / 2, w / 2)."""
    import torch

    return torch.nn.functional.pixel_unshuffle(noise, 2)


def shift(config: Mapping[str, Any], tokens: int, steps: int) -> float:
    """Return the dynamic shift of an image of so many tokens in so many steps."""
    few, many = (slope * tokens + start for slope, start in (_FEW, _MANY))
    if tokens > _MOST:
        return many
    return many + (steps - _MANY_STEPS) * (many - few) / (_MANY_STEPS - _FEW_STEPS)


class _Normalised:
    """An `AutoencoderKLFlux2` whose latents have the means and variances, by channel of 2 x 2 cells, of its batch norm."""

    def __init__(self, vae: Any) -> None:
        from diffusers.configuration_utils import FrozenDict

        self._vae, self.config = vae, FrozenDict(plain_config(vae.config))

    def encode(self, image: torch.Tensor) -> Any:
        """Encode images (B, 3, H, W)."""
        import torch
        from diffusers.models.autoencoders.vae import EncoderOutput

        mean, spread = self._statistics()
        raw = torch.nn.functional.pixel_unshuffle(self._vae.encode(image).latent_dist.mode(), 2)
        return EncoderOutput(latent=torch.nn.functional.pixel_shuffle((raw - mean) / spread, 2))

    def decode(self, latent: torch.Tensor) -> Any:
        """Decode latents (B, C, h, w)."""
        import torch

        mean, spread = self._statistics()
        raw = torch.nn.functional.pixel_unshuffle(latent, 2) * spread + mean
        return self._vae.decode(torch.nn.functional.pixel_shuffle(raw, 2))

    def _statistics(self) -> tuple[torch.Tensor, torch.Tensor]:
        norm = self._vae.bn
        mean, variance = (tensor[:, None, None] for tensor in (norm.running_mean, norm.running_var))
        return mean, (variance + self._vae.config.batch_norm_eps).sqrt()


def plain_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return its configuration in the words of `AutoencoderKL`."""
    return {
        "block_out_channels": config["block_out_channels"],
        "latent_channels": config["latent_channels"],
        "scaling_factor": 1.0,
    }


FLUX2 = PipelineFamily(
    "flux2-klein",
    "FLUX.2 klein, base and distilled; flow matching",
    ("Flux2KleinPipeline",),
    "transformer",
    condition,
    predict,
    networks=("Flux2Transformer2DModel",),
    components=("text_encoder", "tokenizer"),
    kinds={"text_encoder": ("Qwen3ForCausalLM",), "tokenizer": ("Qwen2Tokenizer", "Qwen2TokenizerFast")},
    straight=True,
    spaced=True,
    shift=shift,
    packed=True,
    laid_out=laid_out,
    cells=128,
    limits="not FLUX.2 dev, nor images as prompts; guidance is ignored where it was distilled; Euler's grid only",
    autoencoder=OtherAutoencoder(("AutoencoderKLFlux2",), plain_config, _Normalised),
)
