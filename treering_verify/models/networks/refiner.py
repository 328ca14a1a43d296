"""A small network that corrects a latent by the image, for learned steps of decoder inversion."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from treering_verify.models.networks.blocks import residual_block, silent, through
from treering_verify.models.networks.network import Network

_SCALE = 4  # scales differences of latents to about 1


class Refiner(Network):
    """A residual convolutional network on the latent's grid: (start, z, residual, image, output) -> z_0 - z.

    It is trained to give the expected latent, given the image. So it restores what the decoder does not show, and removes
    what an attack added, as far as either can be known. The diffusion model is its prior of latents: it gets the denoised z
    at a few noise levels, and decides cell by cell how much of each to use.
    `treering_verify.training.landscape.train_refiner` trains it.

    Parameters
    ----------
    latent_channels : int
        Channels of the latent.
    factor : int
        Pixels on a side of a latent cell.
    width, blocks : int
        Number of channels, and of residual blocks of two 3 x 3 convolutions.
    levels : sequence of int
        Time indices at which the diffusion model denoises z; none by default.

    Attributes
    ----------
    denoise : callable, optional
        (z, level) -> the diffusion model's estimate of z_0, shaped like z. The loaded model sets it.
    """

    denoise: Callable[[torch.Tensor, int], torch.Tensor] | None

    def __init__(
        self,
        latent_channels: int = 4,
        factor: int = 4,
        width: int = 64,
        blocks: int = 6,
        levels: Sequence[int] = (),
    ) -> None:
        super().__init__(
            latent_channels=latent_channels, factor=factor, width=width, blocks=blocks, levels=tuple(levels)
        )
        self.levels, self.denoise = tuple(int(level) for level in levels), None
        self._known = 3 * latent_channels + 2 * 3 * factor**2
        self.first = torch.nn.Conv2d(self._known, width, 3, padding=1)
        self.body = torch.nn.ModuleList(residual_block(width) for _ in range(blocks))
        self.last = silent(torch.nn.Conv2d(width, latent_channels, 3, padding=1))  # training begins at a forward step
        if self.levels:  # zero at first too, so that a refiner trained without them can be trained further
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
        """Return how the denoiser changes z, (B, C, h, w), at each level, scaled to about 1.

        Raises
        ------
        ValueError
            If the refiner has levels and there is no denoiser.
        """
        if self.levels and denoise is None:
            raise ValueError("this refiner needs the diffusion model's denoiser: set its `denoise`")
        return [_SCALE * (denoise(z, level) - z) for level in self.levels if denoise is not None]

    def correct(self, inputs: torch.Tensor) -> torch.Tensor:
        """Estimate the error that a forward step from z leaves, from the `features` of z and the `priors`."""
        channels = self.config.latent_channels
        known, priors = inputs[:, : self._known], inputs[:, self._known :]
        if not priors.shape[1]:
            return self.last(through(self.body, self.first(known)))
        # The misfit between the image and what the decoder can make tells how large the error is. In units of it, attacked
        # and clean images train the network alike.
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
    """Stack the inputs at z on the latent's grid, scaled to about 1: (B, 3 C + 6 factor^2, h, w)."""
    pixels = torch.cat([image, 8 * (output - image)], dim=1)
    return torch.cat(
        [start, _SCALE * (z - start), _SCALE * residual, torch.nn.functional.pixel_unshuffle(pixels, factor)], dim=1
    )
