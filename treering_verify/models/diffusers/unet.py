"""Conditions and network of Stable Diffusion and SDXL, a conditional U-Net."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from treering_verify.errors import ModelError
from treering_verify.models.protocol import Condition, Timestep

if TYPE_CHECKING:
    import torch

    Given = dict[str, torch.Tensor]

_IMAGE_PROMPT = "image_prompt_"


def condition_sd(pipe: Any, prompt: Condition, image_size: tuple[int, int]) -> Given:
    """Return CLIP's states of the prompt; no condition is the empty prompt, and no image."""
    states = pipe.encode_prompt(prompt or "", pipe._execution_device, 1, False)[0]
    return {"encoder_hidden_states": states, **no_image_prompt(pipe, states)}


def no_image_prompt(pipe: Any, like: torch.Tensor) -> Given:
    """Return, for each IP-Adapter of a pipeline, the embedding of no image, from which guidance extrapolates.

    Raises
    ------
    ModelError
        If there are IP-Adapters and no image encoder.
    """
    from PIL import Image

    # Loading an adapter sets an attribute of the configuration, and no entry.
    if getattr(pipe.unet.config, "encoder_hid_dim_type", None) != "ip_image_proj":
        return {}
    if getattr(pipe, "image_encoder", None) is None:
        raise ModelError(
            "the pipeline has an IP-Adapter and no image encoder: load it with its image encoder, or verify after "
            "pipe.unload_ip_adapter()"
        )
    count = len(pipe.unet.encoder_hid_proj.image_projection_layers)
    # The pipeline returns the embedding of no image before that of an image, which is not used.
    embedded = pipe.prepare_ip_adapter_image_embeds(
        [Image.new("RGB", (64, 64))] * count, None, pipe._execution_device, 1, True
    )
    return {f"{_IMAGE_PROMPT}{i:03d}": both.chunk(2)[0].to(like) for i, both in enumerate(embedded)}


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
    return {"encoder_hidden_states": states, "text_embeds": pooled, "time_ids": times, **no_image_prompt(pipe, states)}


def predict_unet(pipe: Any, z: torch.Tensor, at: Timestep, given: Given, guidance: float) -> torch.Tensor:
    """Run a `UNet2DConditionModel`; guidance is an input of one that was distilled for it.

    `given["beside"]`, (B, C', h, w), is what an inpainting network takes beside the noise.
    """
    import torch

    told, size = None, pipe.unet.config.time_cond_proj_dim
    if size is not None:
        told = pipe.get_guidance_scale_embedding(torch.full((len(z),), guidance - 1.0), size).to(z)
    added: dict[str, Any] = {name: given[name] for name in ("text_embeds", "time_ids") if name in given}
    if adapters := [given[name] for name in sorted(given) if name.startswith(_IMAGE_PROMPT)]:
        added["image_embeds"] = adapters
    return pipe.unet(
        torch.cat([z, given["beside"].to(z)], dim=1) if "beside" in given else z,
        at.index,
        encoder_hidden_states=given["encoder_hidden_states"],
        timestep_cond=told,
        added_cond_kwargs=added or None,
        return_dict=False,
    )[0]
