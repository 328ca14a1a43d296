"""The cheap first of two passes over an image: what it reads, how alpha is split, and which images need the second.

The full inversion of an image costs a network pass for each diffusion step. Most images do not need it: a marked one shows
its key far beyond alpha in its latent already, and an unmarked one shows nothing there. With p_1 and p_2 the p-values of
both passes, corrected for all keys, and `share` the part of alpha that the first may spend,

    p_1 <= share alpha                detected, no second pass
    p_1 > gate                        no evidence, no second pass
    otherwise                         detected if p_2 <= (1 - share) alpha

Each p is exact given the image (DESIGN 4.3), so for an unmarked one the chance of a detection is at most share alpha +
(1 - share) alpha = alpha, whatever the gate and however p_1 and p_2 depend on each other. What is reported is p_1 / share or
p_2 / (1 - share), by the pass that decided, and valid at every level for the same reason (docs/exact-test.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from treering_verify.errors import UsageError, unknown
from treering_verify.inversion import noise as noise_inversion
from treering_verify.inversion.decoder.solution import Solution
from treering_verify.inversion.recovery import InversionOptions, recover_noise, recover_noise_by
from treering_verify.models import LatentModel
from treering_verify.results import KeyEvidence

if TYPE_CHECKING:
    import torch

_ENCODER = InversionOptions(method="encoder", noise_method="naive", steps=0)
_INVERTED = InversionOptions(noise_method="naive", steps=0)


def latent(model: LatentModel, image: torch.Tensor) -> tuple[torch.Tensor, Solution]:
    """Read the encoder's latent as it is: one network pass, and no diffusion step.

    Parameters
    ----------
    model : LatentModel
    image : (B, 3, H, W) float32 in [-1, 1]

    Returns
    -------
    noise_hat : (B, C, h, w) float32
        What keys are looked for in.
    solution : Solution
        As `recover_noise` gives it.
    """
    return recover_noise(model, image, _ENCODER)


def inverted(model: LatentModel, image: torch.Tensor) -> tuple[torch.Tensor, Solution]:
    """Read the latent after the model's best decoder inversion; parameters and result as `latent`."""
    return recover_noise(model, image, _INVERTED)


def stepped(model: LatentModel, image: torch.Tensor, *, steps: int) -> tuple[torch.Tensor, Solution]:
    """Read what the first `steps` of the usual ten diffusion steps make of the encoder's latent; else as `latent`."""

    def upwards(start: torch.Tensor) -> torch.Tensor:
        return noise_inversion.trajectory(model, start, steps=noise_inversion.DEFAULT_STEPS, most=steps)[-1]

    return recover_noise_by(model, image, _ENCODER, upwards)


def screened(model: LatentModel, image: torch.Tensor) -> tuple[torch.Tensor, Solution]:
    """Let the model's screen say the noise from the encoder's latent; else as `latent`.

    Raises
    ------
    UsageError
        If the model has no screen.
    """
    screen = model.screen
    if screen is None:
        raise UsageError("this model has no screen: choose another first pass, such as latent")

    def upwards(start: torch.Tensor) -> torch.Tensor:
        return screen(noise_inversion.trajectory(model, start, steps=screen.steps, most=screen.points[-1]))

    return recover_noise_by(model, image, _ENCODER, upwards)


SCREENS: dict[str, Callable[[LatentModel, torch.Tensor], tuple[torch.Tensor, Solution]]] = {
    "latent": latent,
    "inverted": inverted,
    "step-1": partial(stepped, steps=1),
    "step-2": partial(stepped, steps=2),
    "step-3": partial(stepped, steps=3),
    "screen": screened,
}
AUTO = "auto"  # screen where the model brings one, latent elsewhere
# Keys for which two passes are chosen by themselves: with more, the gate loses more than next to nothing (docs/audit.md).
MOST_KEYS = 10


def default_screen(model: LatentModel) -> str:
    """Name of the look that `auto` stands for."""
    return "latent" if model.screen is None else "screen"


@dataclass(frozen=True)
class Screening:
    """How two passes share an image.

    Attributes
    ----------
    method : str
        What the first pass reads: one of `SCREENS`, or "auto".
    share : float
        Part of alpha that the first pass spends, 0 < share < 1. It is small because a mark that the first pass shows at all
        is mostly shown far beyond alpha, and what the first pass spends, the second lacks.
    gate : float
        p-value of the first pass, over all keys, above which an image is not looked at again, 0 < gate <= 1; of unmarked
        images about that share goes on. 1 lets all go on that were not detected.

    Raises
    ------
    UsageError
        If there is no such look, or a number is out of range.
    """

    method: str = AUTO
    share: float = 0.01
    gate: float = 0.1

    def __post_init__(self) -> None:
        if self.method not in (AUTO, *SCREENS):
            raise UsageError(unknown("screening pass", self.method, (AUTO, *SCREENS)))
        if not 0 < self.share < 1 or not 0 < self.gate <= 1:
            raise UsageError("share must be between 0 and 1, and gate above 0 and at most 1")

    def of(self, model: LatentModel) -> Screening:
        """Name the look that is meant for a model; UsageError if the model cannot give it."""
        chosen = replace(self, method=default_screen(model)) if self.method == AUTO else self
        if chosen.method == "screen" and model.screen is None:
            raise UsageError(f"model {model.name!r} has no screen: choose another first pass, such as latent")
        return chosen

    def settles(self, log10_adjusted: float, alpha: float) -> bool:
        """Whether the first pass decides, by its smallest p over all keys."""
        return log10_adjusted <= math.log10(self.share * alpha) or log10_adjusted > math.log10(self.gate)


def default_screening(model: LatentModel, inversion: InversionOptions, keys: int) -> Screening | None:
    """Choose two passes where they were measured to lose next to nothing (docs/audit.md), and one elsewhere.

    Parameters
    ----------
    model : LatentModel
    inversion : Pipeline
        What the second pass would be; its batch size plays no part.
    keys : int
        Count of keys tried.

    Returns
    -------
    Passes or None
        Two for a model that brings a screen, inverted as is the default, under at most `MOST_KEYS` keys.
    """
    usual = inversion == replace(InversionOptions(), batch_size=inversion.batch_size)
    return Screening() if usual and model.screen is not None and keys <= MOST_KEYS else None


def spent(evidence: tuple[KeyEvidence, ...], share: float) -> tuple[KeyEvidence, ...]:
    """Correct the evidence of a pass for its share of alpha: adjusted p-values are divided by it."""
    return tuple(replace(e, log10_adjusted=min(0.0, e.log10_adjusted - math.log10(share))) for e in evidence)
