"""What a decoder inversion returns: the value, its residual, and how it ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False)
class Solution:
    """Solution of a decoder inversion.

    Attributes
    ----------
    latent : (B, C, h, w) float32
        Best iterate of each item.
    residual : (B,) float
        Its relative residual; never larger than the start's, or, after learned steps, than four times that.
    trace : (iterations + 1, B) float
        Relative residual of every evaluated point; NaN once an item has stopped.
    iterations : (B,) int
        Steps that led to the returned iterate.
    status : tuple of str
        Per item: "tolerance", "stagnated", "refined" (by learned steps), "overfit" (further steps would have
        fitted the attack), "budget" or "diverged" (nothing better than the start was found).
    shown : tuple of float
        Share of each image that shows anything (`visible_area`); empty where nobody looked.
    """

    latent: torch.Tensor
    residual: torch.Tensor
    trace: torch.Tensor
    iterations: torch.Tensor
    status: tuple[str, ...]
    visible: tuple[float, ...] = ()

    @property
    def converged(self) -> tuple[bool, ...]:
        """True where the method stopped by itself, False on "budget" and "diverged"."""
        return tuple(s in ("tolerance", "stagnated", "overfit", "refined") for s in self.status)
