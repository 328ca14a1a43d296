"""A small network that knows what a decoder loses: it corrects a latent from what the image still says about it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin

from treering_verify.models.networks.blocks import residual_block, silent, through

_SCALE = 4  # brings what latents differ by to about 1


class Refiner(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Residual convolutional network on the latent's grid: (start, z, residual, image, output) -> z_0 - z.

    Trained to give the expected latent, given the image: it fills in where the decoder is blind, and takes out what an
    attack put in, as far as either can be known. What latents are like it learns from the diffusion model: it is shown what
    that one's denoiser makes of z at a few noise levels, and says how much of each answer to take, cell by cell. See
    `models/landscape/train_refiner.py`.

    Parameters
    ----------
    latent_channels : int
    factor : int
        Pixels per latent cell and side.
    width, blocks : int
        Channels, and residual blocks of two 3 x 3 convolutions.
    levels : sequence of int
        Time indices of the diffusion model at which its denoiser is asked about z; none by default.

    Attributes
    ----------
    denoise : callable, optional
        (z, level) -> the diffusion model's estimate of z_0, shaped like z. Whoever loads the model sets it.
    """

    denoise: Callable[[torch.Tensor, int], torch.Tensor] | None

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        latent_channels: int = 4,
        factor: int = 4,
        width: int = 64,
        blocks: int = 6,
        levels: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.levels, self.denoise = tuple(int(level) for level in levels), None
        self._known = 3 * latent_channels + 2 * 3 * factor**2
        self.first = torch.nn.Conv2d(self._known, width, 3, padding=1)
        self.body = torch.nn.ModuleList(residual_block(width) for _ in range(blocks))
        self.last = silent(torch.nn.Conv2d(width, latent_channels, 3, padding=1))  # training begins at a forward step
        if self.levels:  # silent at first too: a refiner trained without them goes on from where it is
            priors, ways = len(self.levels) * latent_channels, (2 + len(self.levels)) * latent_channels
            self.prior = silent(torch.nn.Conv2d(priors + 1, width, 3, padding=1))
            self.shares = silent(torch.nn.Conv2d(width, ways, 3, padding=1))
            self.coarse = silent(torch.nn.Conv2d(width, latent_channels, 3, padding=1))

    def forward(
        self,
        start: torch.Tensor,
        z: torch.Tensor,
        residual: torch.Tensor,
        image: torch.Tensor,
        output: torch.Tensor,
    ) -> torch.Tensor:
        """Estimate z_0 - z, (B, C, h, w), from E(x), z, r(z), x and D(z)."""
        known = features(start, z, residual, image, output, self.config.factor)
        inputs = torch.cat([known, *self.priors(z, self.denoise)], dim=1)
        return self.correct(inputs.to(self.device)).to(z.device) - residual

    def priors(
        self, z: torch.Tensor, denoise: Callable[[torch.Tensor, int], torch.Tensor] | None
    ) -> list[torch.Tensor]:
        """Say what the denoiser would change of z (B, C, h, w) at each level, scaled to about 1.

        Raises
        ------
        ValueError
            If the refiner looks at the denoiser, and there is none.
        """
        if self.levels and denoise is None:
            raise ValueError("this refiner asks the diffusion model's denoiser: set `denoise`")
        return [_SCALE * (denoise(z, level) - z) for level in self.levels if denoise is not None]

    def correct(self, inputs: torch.Tensor) -> torch.Tensor:
        """Estimate what a forward step from z leaves to be done, from the `features` of z, and what the `priors` say."""
        channels = self.config.latent_channels
        known, priors = inputs[:, : self._known], inputs[:, self._known :]
        if not priors.shape[1]:
            return self.last(through(self.body, self.first(known)))
        # How far the image is from what the decoder can draw says how large the error is. What is said in units of it
        # teaches as much where images were changed as where they were not.
        misfit = known[:, -(self.config.factor**2) * 3 :].square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
        told = misfit.clamp_min(1e-3).log().expand(-1, 1, *known.shape[2:])
        hidden = through(self.body, self.first(known) + self.prior(torch.cat([priors, told], dim=1)))
        ways = torch.cat([known[:, channels : 3 * channels], priors], dim=1)  # back to the start, residual, denoised
        parts = (self.shares(hidden) * ways / _SCALE).unflatten(1, (-1, channels))
        return self.last(hidden) + (3 * misfit).square().clamp_max(1) * (self.coarse(hidden) + parts.sum(1))


def features(
    start: torch.Tensor,
    z: torch.Tensor,
    residual: torch.Tensor,
    image: torch.Tensor,
    output: torch.Tensor,
    factor: int,
) -> torch.Tensor:
    """Stack what is known at z on the latent's grid, scaled to about 1: (B, 3 C + 6 factor^2, h, w)."""
    pixels = torch.cat([image, 8 * (output - image)], dim=1)
    return torch.cat(
        [start, _SCALE * (z - start), _SCALE * residual, torch.nn.functional.pixel_unshuffle(pixels, factor)], dim=1
    )
