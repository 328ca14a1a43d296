"""The screening pass, the cheap first of two passes: what it reads, its share of alpha, and which images need the full one.

The full inversion of an image costs a network pass for each diffusion step. Most images do not need it: a marked image has
p far below alpha in its latent already, and an unmarked image has no evidence there. With p_1 and p_2 the p-values of the
screening pass and the full pass, corrected for all keys, and `share` the part of alpha that the screening pass may spend,

    p_1 <= share alpha                detected, no full pass
    p_1 > gate                        no evidence, no full pass
    otherwise                         detected if p_2 <= (1 - share) alpha

Where the full pass restores an over-exposed image there is no gate: the screening pass does not restore it, and whether it
is over-exposed does not depend on a key.

Each p is exact given the image (docs/exact-test.md), so for an unmarked image the chance of a detection is at most
share alpha + (1 - share) alpha = alpha, whatever the gate and however p_1 and p_2 depend on each other. The reported
p-value, p_1 / share or p_2 / (1 - share) by the pass that decided, is valid at every level for the same reason.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Literal, get_args

from treering_verify.errors import UsageError, unknown
from treering_verify.inversion import noise as noise_inversion
from treering_verify.inversion.decoder import Settings
from treering_verify.inversion.decoder.solution import Solution
from treering_verify.inversion.recovery import InversionOptions, recover_noise, recover_noise_by
from treering_verify.models import LatentModel
from treering_verify.models.attack_statistics import statistics
from treering_verify.models.inverter import decoder_inputs, fitted
from treering_verify.results import KeyEvidence

if TYPE_CHECKING:
    import torch

_ENCODER = InversionOptions(method="encoder", noise_method="naive", steps=0)
_INVERTED = InversionOptions(noise_method="naive", steps=0)
_UNFILTERED = InversionOptions(method="filtered", settings=Settings(iterations=0, step=0.0), noise_method="naive")


def read_latent(model: LatentModel, image: torch.Tensor) -> tuple[torch.Tensor, Solution]:
    """Return the encoder's latent as the noise estimate: one network pass, and no diffusion step.

    Parameters
    ----------
    model : LatentModel
    image : (B, 3, H, W) float32 in [-1, 1]

    Returns
    -------
    noise_hat : (B, C, h, w) float32
        Noise estimate, in which the keys are tested.
    solution : Solution
        The decoder inversion's result, as `recover_noise` returns it.
    """
    return recover_noise(model, image, _ENCODER)


def read_inverted(model: LatentModel, image: torch.Tensor) -> tuple[torch.Tensor, Solution]:
    """Return the latent by the model's best decoder inversion; parameters and result as `read_latent`."""
    return recover_noise(model, image, _INVERTED)


def read_steps(model: LatentModel, image: torch.Tensor, *, steps: int) -> tuple[torch.Tensor, Solution]:
    """Return the encoder's latent after the first `steps` of the default noise inversion; otherwise as `read_latent`."""

    def invert_latent(start: Solution) -> torch.Tensor:
        return noise_inversion.trajectory(model, start.latent, steps=noise_inversion.DEFAULT_STEPS, most=steps)[-1]

    return recover_noise_by(model, image, _ENCODER, invert_latent)


def read_screen(model: LatentModel, image: torch.Tensor) -> tuple[torch.Tensor, Solution]:
    """Return the model's screen's estimate of the noise, from the encoder's latent; otherwise as `read_latent`.

    Raises
    ------
    UsageError
        If the model has no screen.
    """
    screen = model.screen
    if screen is None:
        raise UsageError("this model has no screen: choose another screening pass, such as latent")

    def invert_latent(start: Solution) -> torch.Tensor:
        return screen(noise_inversion.trajectory(model, start.latent, steps=screen.steps, most=screen.points[-1]))

    return recover_noise_by(model, image, _ENCODER, invert_latent)


def filter_map(model: LatentModel, image: torch.Tensor) -> torch.Tensor:
    """Return the noise estimate of the model's fitted filters at every place of images of any size, (B, C, h, w).

    Parameters
    ----------
    model : LatentModel
        One that carries filters with a screen.
    image : (B, 3, H, W) float32 in [-1, 1]
        H and W multiples of the pixels per latent cell.
    """
    import torch

    filters = fitted(model)
    assert filters is not None and filters.screen is not None
    with torch.inference_mode():
        start = model.encode(image)
        output = model.decode(start)
        residual = model.encode(output) - start
        shares = filters.chooser(statistics(image, start, residual, output))
        return filters.screen(decoder_inputs(start, [start], [residual]), shares)


def read_filter(model: LatentModel, image: torch.Tensor) -> tuple[torch.Tensor, Solution]:
    """Estimate the noise by the model's fitted filters from E(x) and its residual: three passes of the autoencoder.

    `filter_map` is the same without the mask of occluded areas. Otherwise as `read_latent`.

    Raises
    ------
    UsageError
        If the model carries no such filters.
    """
    filters = fitted(model)
    screen = filters.screen if filters else None
    if screen is None:
        raise UsageError("this model carries no fitted filters: choose another screening pass, such as latent")

    def estimate(start: Solution) -> torch.Tensor:
        assert (
            start.remainder is not None and start.shares is not None
        )  # after no step of the filtered decoder inversion
        return screen(decoder_inputs(start.latent, [start.latent], [start.remainder]), start.shares)

    return recover_noise_by(model, image, _UNFILTERED, estimate)


SCREENS: dict[str, Callable[[LatentModel, torch.Tensor], tuple[torch.Tensor, Solution]]] = {
    "latent": read_latent,
    "inverted": read_inverted,
    "step-1": partial(read_steps, steps=1),
    "step-2": partial(read_steps, steps=2),
    "step-3": partial(read_steps, steps=3),
    "screen": read_screen,
    "filter": read_filter,
}
ScreeningChoice = Literal["auto", "on", "off"]
AUTO = "auto"  # screen where the model has one, filter where it carries fitted filters, latent elsewhere
# Count of keys up to which two passes are the default: with more keys, the gate misses more marks (docs/audit.md).
MOST_KEYS = 10


def default_screen(model: LatentModel) -> str:
    """Return the screening pass that "auto" stands for."""
    if model.screen is not None:
        return "screen"
    filters = fitted(model)
    return "filter" if filters is not None and filters.screen is not None else "latent"


@dataclass(frozen=True)
class Screening:
    """Settings of a judgement in two passes: a cheap screening pass, then the full inversion where that does not decide.

    Attributes
    ----------
    method : str
        What the screening pass reads: one of `SCREENS`, or "auto".
    share : float
        Part of alpha that the screening pass spends, 0 < share < 1. It is small: a mark that the screening pass finds mostly
        has p far below alpha there, and the full pass has the rest of alpha.
    gate : float
        p-value of the screening pass, over all keys, above which there is no full pass, 0 < gate <= 1. About that share of
        unmarked images goes through the full pass; with 1, every image does that was not detected.

    Raises
    ------
    UsageError
        If there is no such screening pass, or a number is out of range.
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
        """Return the settings with "auto" resolved for a model; UsageError if the model lacks what the pass needs."""
        chosen = replace(self, method=default_screen(model)) if self.method == AUTO else self
        if chosen.method == "screen" and model.screen is None:
            raise UsageError(f"model {model.name!r} has no screen: choose another screening pass, such as latent")
        filters = fitted(model)
        if chosen.method == "filter" and (filters is None or filters.screen is None):
            raise UsageError(
                f"model {model.name!r} carries no fitted filters: choose another screening pass, such as latent"
            )
        return chosen

    def settles(self, log10_adjusted: float, alpha: float, *, gated: bool = True) -> bool:
        """Return whether the screening pass decides, by its smallest p over all keys; without a gate only detections do."""
        return log10_adjusted <= math.log10(self.share * alpha) or (gated and log10_adjusted > math.log10(self.gate))


def default_screening(model: LatentModel, inversion: InversionOptions, keys: int) -> Screening | None:
    """Return the settings of two passes where their loss was measured to be negligible (docs/audit.md), None elsewhere.

    Parameters
    ----------
    model : LatentModel
    inversion : InversionOptions
        Inversion of the full pass; its batch size plays no part.
    keys : int
        Count of keys tried.

    Returns
    -------
    Screening or None
        Two passes for a model with a screen, under the default inversion and at most `MOST_KEYS` keys.
    """
    usual = inversion == InversionOptions(method="auto", noise_method="auto", batch_size=inversion.batch_size)
    return Screening() if usual and model.screen is not None and keys <= MOST_KEYS else None


def corrected_for_share(evidence: tuple[KeyEvidence, ...], share: float) -> tuple[KeyEvidence, ...]:
    """Return the evidence of a pass corrected for its share of alpha, by which adjusted p-values are divided."""
    return tuple(replace(e, log10_adjusted=min(0.0, e.log10_adjusted - math.log10(share))) for e in evidence)


def screening_of(setting: ScreeningChoice | Screening) -> Screening | Literal["auto"] | None:
    """Return the screening that a setting names: "auto" as it is, `Screening()` for "on", None for "off".

    Raises
    ------
    UsageError
        If it names none.
    """
    if isinstance(setting, Screening) or setting == "auto":
        return setting
    if setting not in get_args(ScreeningChoice):
        raise UsageError(unknown("screening", setting, get_args(ScreeningChoice)))
    return Screening() if setting == "on" else None
