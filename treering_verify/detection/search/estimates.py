"""Noise estimates of whole images and windows: by the model's screening pass, and by the full inversion."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from treering_verify.detection.screening import SCREENS, default_screen
from treering_verify.detection.search.refinement import read_noise
from treering_verify.detection.search.target import Target
from treering_verify.models import LatentModel

if TYPE_CHECKING:
    import torch

    Invert = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, eq=False)
class Estimates:
    """A model and its full inversion.

    Attributes
    ----------
    model : LatentModel
    invert : callable
        Images (n, 3 F, H, W) -> noise estimates (n, C, h, w).
    """

    model: LatentModel
    invert: Invert

    @property
    def fitted(self) -> bool:
        """Whether the model's screening pass was fitted to it, so that it is nearly as good as the full inversion."""
        return default_screen(self.model) != "latent"

    def by_screen(self, image: torch.Tensor) -> torch.Tensor:
        """Estimate the noise of images by the screening pass: the screen, fitted filters, or the latent, as there is."""
        import torch

        with torch.inference_mode():
            return SCREENS[default_screen(self.model)](self.model, image)[0].cpu()

    def in_full(self, image: torch.Tensor) -> torch.Tensor:
        """Estimate the noise of images by the full inversion."""
        return self.invert(image).cpu()

    def cells(self, visible: torch.Tensor) -> torch.Tensor:
        """Return the share of each cell of the latent that is visible, (n, 1, H, W) -> (n, 1, h, w)."""
        import torch

        return torch.nn.functional.adaptive_avg_pool2d(visible, self.model.latent_shape[1:])


def evidence(noise: torch.Tensor, cells: torch.Tensor, target: Target) -> tuple[float, float]:
    """Return log10 p, uncorrected, and the cosine of noise (1, C, h, w) with a key."""
    read_off = read_noise(noise, cells, target)
    return float(target.log10_pvalues(read_off)[0]), float(target.cosines(read_off)[0])
