"""Conditions and networks of Stable Diffusion 3 and FLUX, transformers of flow matching."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from treering_verify.models.protocol import Condition, Timestep

if TYPE_CHECKING:
    import torch

    Given = dict[str, torch.Tensor]


def pack(z: torch.Tensor) -> torch.Tensor:
    """Pack (B, C, h, w) into tokens (B, h w / 4, 4 C), each a square of 2 x 2 cells, channel by channel."""
    import torch

    return torch.nn.functional.pixel_unshuffle(z, 2).flatten(2).mT


def unpack(tokens: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Return the inverse of `pack`, given h and w."""
    import torch

    return torch.nn.functional.pixel_shuffle(tokens.mT.unflatten(2, (height // 2, width // 2)), 2)


def condition_sd3(pipe: Any, prompt: Condition, image_size: tuple[int, int]) -> Given:
    """Encode a prompt for Stable Diffusion 3: (pipeline, prompt or None, image size) -> tensors of one row."""
    states, _, pooled, _ = pipe.encode_prompt(
        prompt or "", None, None, device=pipe._execution_device, do_classifier_free_guidance=False
    )
    return {"encoder_hidden_states": states, "pooled_projections": pooled}


def condition_flux(pipe: Any, prompt: Condition, image_size: tuple[int, int]) -> Given:
    """Encode a prompt for FLUX: (pipeline, prompt or None, image size) -> tensors of one row."""
    states, pooled, _ = pipe.encode_prompt(prompt or "", None, device=pipe._execution_device)
    return {"encoder_hidden_states": states, "pooled_projections": pooled}


def predict_sd3(pipe: Any, z: torch.Tensor, at: Timestep, given: Given, guidance: float) -> torch.Tensor:
    """Run the network of Stable Diffusion 3 at a grid point: z (B, 16, h, w) -> velocity, shaped like z."""
    import torch

    times = z.new_full((len(z),), at.index, dtype=torch.float32)
    return pipe.transformer(hidden_states=z, timestep=times, return_dict=False, **given)[0]


def predict_flux(pipe: Any, z: torch.Tensor, at: Timestep, given: Given, guidance: float) -> torch.Tensor:
    """Run the network of FLUX, on packed latents and with guidance as an input: z (B, 16, h, w) -> velocity."""
    import torch

    height, width = z.shape[-2:]
    rows, columns = torch.meshgrid(torch.arange(height // 2), torch.arange(width // 2), indexing="ij")
    places = torch.stack([torch.zeros_like(rows), rows, columns], dim=-1).flatten(0, 1).to(z)
    told = z.new_full((len(z),), guidance, dtype=torch.float32) if pipe.transformer.config.guidance_embeds else None
    tokens = pipe.transformer(
        hidden_states=pack(z),
        timestep=z.new_full((len(z),), at.index) / 1000,
        guidance=told,
        txt_ids=z.new_zeros(given["encoder_hidden_states"].shape[1], 3),
        img_ids=places,
        return_dict=False,
        **given,
    )[0]
    return unpack(tokens, height, width)
