"""Conditions and network of Stable Diffusion and SDXL, a conditional U-Net."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from treering_verify.models.protocol import Condition, Timestep

if TYPE_CHECKING:
    import torch

    Given = dict[str, torch.Tensor]


def condition_sd(pipe: Any, prompt: Condition, image_size: tuple[int, int]) -> Given:
    """Return CLIP's states of the prompt; no condition is the empty prompt."""
    return {"encoder_hidden_states": pipe.encode_prompt(prompt or "", pipe._execution_device, 1, False)[0]}


def condition_sdxl(pipe: Any, prompt: Condition, image_size: tuple[int, int]) -> Given:
    """Return the states of both CLIPs, the pooled state, and micro-conditions."""
    import torch

    # With guidance the pipeline also returns the unconditional states: zeros, if it is configured so.
    embedded = pipe.encode_prompt(
        prompt or "", device=pipe._execution_device, num_images_per_prompt=1, do_classifier_free_guidance=prompt is None
    )
    states, pooled = (embedded[1], embedded[3]) if prompt is None else (embedded[0], embedded[2])
    # Micro-conditioning (Podell et al., arXiv 2307.01952, 2.2): original size, crop and target size, as of a whole image.
    times = torch.tensor([[*image_size, 0, 0, *image_size]], dtype=states.dtype, device=states.device)
    return {"encoder_hidden_states": states, "text_embeds": pooled, "time_ids": times}


def predict_unet(pipe: Any, z: torch.Tensor, at: Timestep, given: Given, guidance: float) -> torch.Tensor:
    """Run a `UNet2DConditionModel`; guidance is an input of one that was distilled for it."""
    import torch

    told, size = None, pipe.unet.config.time_cond_proj_dim
    if size is not None:
        told = pipe.get_guidance_scale_embedding(torch.full((len(z),), guidance - 1.0), size).to(z)
    added = {name: given[name] for name in ("text_embeds", "time_ids") if name in given}
    return pipe.unet(
        z,
        at.index,
        encoder_hidden_states=given["encoder_hidden_states"],
        timestep_cond=told,
        added_cond_kwargs=added or None,
        return_dict=False,
    )[0]
