"""What a decoder inversion returns: latents, their residuals, and how the iteration of each item ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False)
class Solution:
    """What a decoder inversion found: the latents, how well they fit, and why each item stopped.

    Attributes
    ----------
    latent : (B, C, h, w) float32
        Best iterate of each item.
    residual : (B,) float
        Its relative residual; never larger than the start's, or, after learned or fitted steps, than four times that.
    trace : (iterations + 1, B) float
        Relative residual of every evaluated point; NaN after an item has stopped.
    iterations : (B,) int
        Steps that led to the returned iterate.
    status : tuple of str
        Per item: "tolerance", "stagnated", "refined" (by learned or fitted steps), "overfit" (early stopping discarded
        steps, which fitted the attack), "budget" or "diverged" (nothing better than the start was found).
    visible : tuple of float
        Share of each image that is visible area (`media.blank_areas.visible_area`); empty where it was not measured.
    shares : (B, J) float, optional
        How much of each expert fitted filters took, which the noise filters take too; None after other methods.
    remainder : (B, C, h, w) float32, optional
        E(D(z)) - E(x) of the returned latents, which the filters of the screening pass read; None after other methods.
    """

    latent: torch.Tensor
    residual: torch.Tensor
    trace: torch.Tensor
    iterations: torch.Tensor
    status: tuple[str, ...]
    visible: tuple[float, ...] = ()
    shares: torch.Tensor | None = None
    remainder: torch.Tensor | None = None

    @property
    def converged(self) -> tuple[bool, ...]:
        """True where the method stopped by itself, False on "budget" and "diverged"."""
        return tuple(s in ("tolerance", "stagnated", "overfit", "refined") for s in self.status)
