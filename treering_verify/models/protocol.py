"""What every algorithm of this package knows about a model, and nothing more.

Shapes: image (B, 3, H, W) float32 in [-1, 1], not clamped on the way out of `decode`; latent (B, C, h, w) float32, scaled
as the diffusion model sees it; noise like latent, unit normal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch

Condition = str | None  # a class name, or None for "no condition"


@dataclass(frozen=True)
class Timestep:
    """A point of the ODE's grid: the network's time index and alpha-bar, the signal's share of the power there."""

    index: int
    alpha: float


class NoiseEstimator(Protocol):
    """What says the noise from points of the way back to it, such as `Estimator`."""

    steps: int  # of the noise inversion that it knows
    points: tuple[int, ...]  # what it looks at: 0 is the latent, k what k steps have made of it

    def __call__(self, trajectory: Sequence[torch.Tensor]) -> torch.Tensor:
        """Points that were passed, the latent first -> the expected noise, shaped like each of them."""


class LatentModel(Protocol):
    """A latent diffusion model with a variance-preserving ODE."""

    name: str
    classes: tuple[str, ...]
    latent_shape: tuple[int, int, int]
    image_size: tuple[int, int]
    refine: Callable[..., torch.Tensor] | None  # the refiner: (E(x), z, r(z), x, D(z)) -> estimate of z_0 - z
    estimate: NoiseEstimator | None

    def encode(self, image: torch.Tensor) -> torch.Tensor:
        """Mode of the encoder's posterior: image -> latent. Never a sample."""

    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        """Latent -> image, differentiable in the latent."""

    def timesteps(self, steps: int) -> tuple[Timestep, ...]:
        """Grid of `steps` steps from the noisiest to the clean end, steps + 1 points, as the scheduler spaces it."""

    def denoise(
        self, z: torch.Tensor, at: Timestep, conditions: Sequence[Condition], guidance: float = 1.0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """One network pass at a grid point: z_t -> estimates of (latent z_0, noise), each shaped like z."""
