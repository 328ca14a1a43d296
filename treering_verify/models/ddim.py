"""The noise schedule and the grid of DDIM (Song et al., arXiv 2010.02502), as the embedded model configures them."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from treering_verify.models.networks.config import Config, require


class DDIMScheduler:
    """Noise schedule and grid of the class of that name in diffusers, with its configuration; it takes no steps itself.

    Parameters
    ----------
    config : Config
        With betas that are linear in their square roots, a grid whose spacing is "leading", and no clipping.

    Attributes
    ----------
    config : Config
    alphas_cumprod : (num_train_timesteps,) tensor
        Share of signal of every time index: alpha_t = prod_{s <= t} (1 - beta_s).
    final_alpha_cumprod : tensor
        That of the point where the grid ends.
    timesteps : tuple of int
        Time indices of the grid, noisiest first.

    Raises
    ------
    ValueError
        If it is configured otherwise.
    """

    def __init__(self, config: Config) -> None:
        import torch

        require(config, beta_schedule="scaled_linear", timestep_spacing="leading", trained_betas=None)
        require(config, rescale_betas_zero_snr=False, clip_sample=False, thresholding=False, set_alpha_to_one=False)
        self.config = config
        count = int(config.num_train_timesteps)
        betas = torch.linspace(config.beta_start**0.5, config.beta_end**0.5, count, dtype=torch.float32) ** 2
        self.alphas_cumprod = torch.cumprod(1.0 - betas, dim=0)
        self.final_alpha_cumprod = self.alphas_cumprod[0]
        self.timesteps = tuple(reversed(range(count)))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read scheduler_config.json of a folder; errors as for `Config.read` and the class."""
        return cls(Config.read(folder / "scheduler_config.json"))

    def set_timesteps(self, steps: int) -> None:
        """Set the grid: `steps` indices, equally far from each other, the last one at `steps_offset`."""
        apart = self.config.num_train_timesteps // steps
        self.timesteps = tuple(i * apart + self.config.steps_offset for i in reversed(range(steps)))
