"""Conditions and networks of AnimateDiff and Wan, which make videos."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from treering_verify.models.diffusers.video import fold, unfold
from treering_verify.models.protocol import Condition, Timestep

if TYPE_CHECKING:
    import torch

    Given = dict[str, torch.Tensor]


def condition_wan(pipe: Any, prompt: Condition, image_size: tuple[int, int]) -> Given:
    """Encode a prompt for Wan: (pipeline, prompt or None, image size) -> tensors of one row."""
    return {"encoder_hidden_states": pipe.encode_prompt(prompt or "", None, False, max_sequence_length=512)[0]}


def predict_animatediff(pipe: Any, z: torch.Tensor, at: Timestep, given: Given, guidance: float) -> torch.Tensor:
    """Run the network of AnimateDiff on videos, z (B, C F, h, w); the output is shaped like z."""
    video = unfold(z, pipe.unet.config.in_channels)
    states = given["encoder_hidden_states"].repeat_interleave(video.shape[2], dim=0)  # a row for each frame
    return fold(pipe.unet(video, at.index, encoder_hidden_states=states, return_dict=False)[0])


def predict_wan(pipe: Any, z: torch.Tensor, at: Timestep, given: Given, guidance: float) -> torch.Tensor:
    """Run the network of Wan on videos, z (B, C f, h, w); the output is shaped like z."""
    import torch

    output = pipe.transformer(
        hidden_states=unfold(z, pipe.transformer.config.in_channels),
        timestep=z.new_full((len(z),), at.index, dtype=torch.float32),
        encoder_hidden_states=given["encoder_hidden_states"].to(z.dtype),
        return_dict=False,
    )[0]
    return fold(output)
