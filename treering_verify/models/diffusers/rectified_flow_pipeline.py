"""A pipeline for InstaFlow's release: that of Stable Diffusion, with the sampler of a rectified flow."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, StableDiffusionPipeline


class RectifiedFlowScheduler(FlowMatchEulerDiscreteScheduler):  # type: ignore[misc]
    """Euler's rule on an even grid, z <- z + (latent - noise) / steps, for networks that predict latent - noise."""

    init_noise_sigma = 1.0

    def scale_model_input(self, sample: torch.Tensor, timestep: Any = None) -> torch.Tensor:
        """Return the sample unchanged: the network takes it unscaled."""
        return sample

    def set_timesteps(self, num_inference_steps: int, device: Any = None) -> None:
        """Set the times 1000, 1000 (1 - 1 / steps), ..., 1000 / steps."""
        super().set_timesteps(sigmas=np.linspace(1.0, 1 / num_inference_steps, num_inference_steps), device=device)

    def step(self, model_output: torch.Tensor, timestep: Any, sample: torch.Tensor, return_dict: bool = True) -> Any:
        """Take a step along the velocity; parameters and result as in the base class."""
        return super().step(-model_output, timestep, sample, return_dict=return_dict)


class RectifiedFlowPipeline(StableDiffusionPipeline):  # type: ignore[misc]
    """Text to image in one step or a few, in the layout that Liu et al. released (InstaFlow, arXiv 2309.06380).

    Parameters
    ----------
    vae, text_encoder, tokenizer, unet, safety_checker, feature_extractor, image_encoder, requires_safety_checker
        As those of `StableDiffusionPipeline`; the network predicts latent - noise.
    scheduler
        The scheduler of the folder, which is not used: the pipeline samples with a `RectifiedFlowScheduler`.
    """

    def __init__(
        self,
        vae: Any,
        text_encoder: Any,
        tokenizer: Any,
        unet: Any,
        scheduler: Any,
        safety_checker: Any,
        feature_extractor: Any,
        image_encoder: Any = None,
        requires_safety_checker: bool = True,
    ) -> None:
        super().__init__(
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            unet=unet,
            scheduler=RectifiedFlowScheduler(),
            safety_checker=safety_checker,
            feature_extractor=feature_extractor,
            image_encoder=image_encoder,
            requires_safety_checker=requires_safety_checker,
        )
        # A saved index must name a class that diffusers finds; the name of the pipeline says which one it stands for.
        self.register_to_config(scheduler=("diffusers", "FlowMatchEulerDiscreteScheduler"))
