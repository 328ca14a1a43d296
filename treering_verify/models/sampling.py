"""Sampling: run the ODE of a diffusion model from noise to latent."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from treering_verify.models.protocol import Condition, LatentModel, Timestep

if TYPE_CHECKING:
    import torch


def denoise(
    model: LatentModel, noise: torch.Tensor, *, steps: int, conditions: Sequence[Condition], guidance: float = 1.0
) -> torch.Tensor:
    """Run the ODE from noise to latent, both (B, C, h, w) float32, on the model's grid of `steps` steps."""
    z = noise
    for start, end in pairwise(model.timesteps(steps)):
        z = step(model, z, start, end, conditions, guidance)
    return z


def step(
    model: LatentModel,
    z: torch.Tensor,
    start: Timestep,
    end: Timestep,
    conditions: Sequence[Condition],
    guidance: float = 1.0,
) -> torch.Tensor:
    """Take one step of the ODE from `start` to `end`, (B, C, h, w), with one network pass at `start`."""
    clean, eps = model.denoise(z, start, conditions, guidance)
    return (
        end.signal * clean + end.sigma * eps
    )  # DDIM (arXiv 2010.02502, eq. 12, sigma = 0), and Euler's rule for a flow
