"""Rectified flow in the layout of Stable Diffusion: a U-Net that predicts velocity, in few steps or one.

Diffusers has no pipeline of its own for it. Two layouts are known here:

* what Liu et al. released (InstaFlow, arXiv 2309.06380): model_index.json names a `RectifiedFlowPipeline`, whose code stands
  in their repository, and a scheduler that is never asked. The network predicts latent - noise. It is loaded as the class of
  that name in `rectified_flow_pipeline`, whose call samples as theirs; a pipeline of theirs will do too.
* a `StableDiffusionPipeline` with a `FlowMatchEulerDiscreteScheduler`; the network holds with it: noise - latent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from treering_verify.models.diffusers.unet import predict_unet
from treering_verify.models.protocol import Timestep

if TYPE_CHECKING:
    import torch

RELEASED = "RectifiedFlowPipeline"


def is_flow(scheduler: str, config: Mapping[str, Any]) -> bool:
    """Whether a scheduler follows a rectified flow."""
    return scheduler == "FlowMatchEulerDiscreteScheduler"


def followed_scheduler(pipe: Any) -> Any:
    """Return the scheduler whose grid a pipeline's call follows: not its own, if its class is the released one."""
    from treering_verify.models.diffusers.rectified_flow_pipeline import RectifiedFlowScheduler

    return RectifiedFlowScheduler() if _is_released(pipe) else pipe.scheduler


def predict_flow(
    pipe: Any, z: torch.Tensor, at: Timestep, given: dict[str, torch.Tensor], guidance: float
) -> torch.Tensor:
    """Ask for the velocity noise - latent, whichever way the network itself looks."""
    velocity = predict_unet(pipe, z, at, given, guidance)
    return -velocity if _is_released(pipe) else velocity


def _is_released(pipe: Any) -> bool:
    return any(kind.__name__ == RELEASED for kind in type(pipe).__mro__)
