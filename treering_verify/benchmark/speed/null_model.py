"""The null engine: a model that costs next to nothing, to measure and test everything around a model.

It has no weights and knows nothing of images: the latent is the image's cell means, their channels turned into four,
and the noise is the latent itself. p-values under it are exact as ever; no mark can be made or found with it.
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
"""Encoder only, no diffusion step."""


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
        """Mean of each cell: red, green, blue and their mean."""
        import torch

        cells = torch.nn.functional.avg_pool2d(image, 4)
        return torch.cat([cells, cells.mean(1, keepdim=True)], 1)

    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        """Cells as flat squares."""
        return latent[:, :3].repeat_interleave(4, 2).repeat_interleave(4, 3)

    def timesteps(self, steps: int) -> tuple[Timestep, ...]:
        """Two ends and nothing between."""
        return tuple(Timestep(0, 1.0) for _ in range(steps + 1))

    def denoise(
        self, z: torch.Tensor, at: Timestep, conditions: Sequence[Condition], guidance: float = 1.0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Latent and noise are what came in."""
        return z, z
