"""The diffusion ODE in both directions: noise -> latent (generation), latent -> noise_hat (verification).

One formula serves both (DDIM, Song et al., arXiv 2010.02502, eq. 12 with sigma = 0):

    z_to = sqrt(a_to) z_0(z, t) + sqrt(1 - a_to) eps(z, t)

Going down, the network is asked at the point where the step starts. Going up, naive inversion asks it with the only z it
has, the one at the clean end of the step, at the time index of the noisy end: that is its whole error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from treering_verify.models.protocol import Condition, LatentModel, Timestep

if TYPE_CHECKING:
    import torch

DEFAULT_STEPS = 10  # measured best for detection, whatever generation used (README, "How it works")


def denoise(
    model: LatentModel, noise: torch.Tensor, *, steps: int, conditions: Sequence[Condition], guidance: float = 1.0
) -> torch.Tensor:
    """Run the ODE from noise to latent, both (B, C, h, w) float32, on the model's grid of `steps` steps."""
    grid, z = model.timesteps(steps), noise
    for start, end in pairwise(grid):
        clean, eps = model.denoise(z, start, conditions, guidance)
        z = end.alpha**0.5 * clean + (1 - end.alpha) ** 0.5 * eps
    return z


def naive(
    model: LatentModel, latent: torch.Tensor, *, steps: int, conditions: Sequence[Condition] | None = None
) -> torch.Tensor:
    """Run the ODE backwards with the network asked at the wrong end of each step, at guidance 1.

    Parameters
    ----------
    model : LatentModel
    latent : (B, C, h, w) float32
    steps : int
        Number of steps; 0 returns the latent itself, whose spectrum already carries part of the key.
    conditions : sequence of str or None, optional
        No condition when left out: verification knows neither class nor prompt.

    Returns
    -------
    (B, C, h, w) float32
        noise_hat.
    """
    if steps == 0:
        return latent
    grid, z = model.timesteps(steps)[::-1], latent
    labels = conditions if conditions is not None else [None] * len(latent)
    for start, end in pairwise(grid):
        # z stands at `start`; the network is told the time of `end`, as it was when this step was generated.
        clean, eps = model.denoise(z, Timestep(end.index, start.alpha), labels)
        z = end.alpha**0.5 * clean + (1 - end.alpha) ** 0.5 * eps
    return z


METHODS: dict[str, Callable[..., torch.Tensor]] = {"naive": naive}
