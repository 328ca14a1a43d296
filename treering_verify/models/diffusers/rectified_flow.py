"""Rectified flow in the layout of Stable Diffusion: a U-Net that predicts velocity, in few steps or one.

Diffusers has no pipeline for it. Two layouts are supported:

* the release of Liu et al. (InstaFlow, arXiv 2309.06380): model_index.json names a `RectifiedFlowPipeline`, whose code is in
  their repository, and a scheduler that is not used. The network predicts latent - noise. It is loaded as the class of that
  name in `rectified_flow_pipeline`, which samples as theirs does; a pipeline object of their class works too.
* a `StableDiffusionPipeline` with a `FlowMatchEulerDiscreteScheduler`, whose network predicts noise - latent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from treering_verify.models.diffusers.family import class_of_diffusers
from treering_verify.models.diffusers.unet import predict_unet
from treering_verify.models.protocol import Timestep

if TYPE_CHECKING:
    import torch

RELEASED = "RectifiedFlowPipeline"


def class_of_flow(name: str) -> Any:
    """Return a pipeline's class by its name: diffusers' own, or this package's for the one that diffusers lacks."""
    if name != RELEASED:
        return class_of_diffusers(name)
    from treering_verify.models.diffusers.rectified_flow_pipeline import RectifiedFlowPipeline

    return RectifiedFlowPipeline


def is_flow(scheduler: str, config: Mapping[str, Any]) -> bool:
    """Return whether a scheduler follows a rectified flow."""
    return scheduler == "FlowMatchEulerDiscreteScheduler"


def followed_scheduler(pipe: Any) -> Any:
    """Return the scheduler whose grid a pipeline's call follows: not its own, if its class is the released one."""
    from treering_verify.models.diffusers.rectified_flow_pipeline import RectifiedFlowScheduler

    return RectifiedFlowScheduler() if _is_released(pipe) else pipe.scheduler


def predict_flow(
    pipe: Any, z: torch.Tensor, at: Timestep, given: dict[str, torch.Tensor], guidance: float
) -> torch.Tensor:
    """Return the velocity noise - latent, whichever sign the network itself predicts."""
    velocity = predict_unet(pipe, z, at, given, guidance)
    return -velocity if _is_released(pipe) else velocity


def _is_released(pipe: Any) -> bool:
    return any(kind.__name__ == RELEASED for kind in type(pipe).__mro__)
