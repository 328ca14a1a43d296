"""A model without weights that takes almost no time, to measure and test everything around a model.

The latent is the mean of each cell of the image, in four channels, and the noise estimate is the latent itself. P-values
under it are exact; it can neither make nor detect a mark.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from treering_verify.inversion.recovery import InversionOptions
from treering_verify.models import Condition, Timestep
from treering_verify.models.protocol import NoiseEstimator

if TYPE_CHECKING:
    import torch

NULL_INVERSION = InversionOptions(method="encoder", steps=0)
"""Inversion by the encoder alone, without a diffusion step."""


class NullModel:
    """A `LatentModel` of 4 x 32 x 32 latents and 128-pixel images without weights."""

    name = "null"
    classes: tuple[str, ...] = ()
    latent_shape = (4, 32, 32)
    image_size = (128, 128)
    refine: Callable[..., torch.Tensor] | None = None
    estimate: NoiseEstimator | None = None
    tile = 0
    screen: NoiseEstimator | None = None

    def encode(self, image: torch.Tensor) -> torch.Tensor:
        """Return the mean of each cell: red, green, blue and their mean."""
        import torch

        cells = torch.nn.functional.avg_pool2d(image, 4)
        return torch.cat([cells, cells.mean(1, keepdim=True)], 1)

    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        """Return each cell as a square of one colour."""
        return latent[:, :3].repeat_interleave(4, 2).repeat_interleave(4, 3)

    def timesteps(self, steps: int) -> tuple[Timestep, ...]:
        """Return equal timesteps, since no step changes anything."""
        return tuple(Timestep(0, 1.0) for _ in range(steps + 1))

    def denoise(
        self, z: torch.Tensor, at: Timestep, conditions: Sequence[Condition], guidance: float = 1.0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the input as latent and as noise."""
        return z, z
