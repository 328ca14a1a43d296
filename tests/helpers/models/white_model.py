"""A model without networks whose noise, latent and image are equal up to a factor, so that attacks on keys succeed."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from treering_verify.models.protocol import Condition, Timestep


class WhiteModel:
    """The exact diffusion of white data, z_0 ~ N(0, I), behind an autoencoder that scales by a quarter."""

    name, classes = "white", ("any",)
    refine = estimate = screen = None
    latent_shape, image_size, tile = (3, 32, 32), (32, 32), 0

    def encode(self, image: torch.Tensor) -> torch.Tensor:
        return image * 4.0

    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        return latent / 4.0

    def timesteps(self, steps: int) -> tuple[Timestep, ...]:
        return tuple(Timestep(round(999 * i / steps), 0.999 ** (10 * 100 * i / steps)) for i in range(steps, -1, -1))

    def denoise(
        self, z: torch.Tensor, at: Timestep, conditions: Sequence[Condition], guidance: float = 1.0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return at.alpha**0.5 * z, (1 - at.alpha) ** 0.5 * z
