"""What a decoder inversion is given: the images with both halves of the autoencoder, and the settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from treering_verify.models.precision import autocasting

if TYPE_CHECKING:
    import torch

    from treering_verify.models.inverter import Inverter

GREY_LEVEL = 2 / 255  # in [-1, 1]
ROUNDING = GREY_LEVEL**2 / 12  # variance of rounding to 8 bits


@dataclass(frozen=True)
class Settings:
    """Settings of the decoder-inversion methods, all in one; each method uses those that concern it.

    Attributes
    ----------
    iterations : int
        Most steps to take.
    step : float
        forward-step, anderson: rho in z - rho r(z); inertial-km: rho = 2 lambda beta; adam, gradient, posterior-mode: the
        peak step; gauss-newton: the expected error of its centre per latent number.
    momentum : float
        inertial-km: alpha.
    memory : int
        anderson: points that a step is combined from.
    inner : int
        gauss-newton: conjugate-gradient steps per linear problem.
    scheduled : bool
        adam and gradient: warm-up and cosine (True), or a fixed step (False). posterior-mode has a schedule of its own.
    tolerance : float
        Stop when the relative residual is below it.
    divergence : float
        Stop when the residual is more than this many times the best one so far; what is not finite always stops.
    stagnation : float
        Stop when the residual fell by less than this share in a step.
    early_stopping : bool
        forward-step, inertial-km, anderson, adam, gradient, gauss-newton: early stopping by parametric bootstrap
        (`bootstrap_stopping`), at twice the time. The published methods have none (`unstopped`).
    """

    iterations: int
    step: float
    momentum: float = 0.0
    memory: int = 4
    inner: int = 6
    scheduled: bool = False
    tolerance: float = 1e-3
    divergence: float = 2.0
    stagnation: float = 0.02
    early_stopping: bool = False


@dataclass(frozen=True, eq=False)
class Problem:
    """A decoder inversion to solve: a batch of images whose latents are sought, and the autoencoder.

    Attributes
    ----------
    image : (B, 3, H, W) float32 in [-1, 1]
    encode, decode : callables
        E: image -> latent, D: latent -> image, both batched. Linear maps do as well.
    refine : callable, optional
        The model's refiner: (E(x), z, r(z), x, D(z)) -> estimate of z_0 - z.
    watch : callable, optional
        Called with (k, rows, points) for each evaluated point, before any stop: rows (b,) are the items still going,
        points (b, C, h, w). For measurements along the path.
    filters : Inverter, optional
        The filters that were fitted to the model.
    """

    image: torch.Tensor
    encode: Callable[[torch.Tensor], torch.Tensor]
    decode: Callable[[torch.Tensor], torch.Tensor]
    refine: Callable[..., torch.Tensor] | None = None
    watch: Callable[[int, torch.Tensor, torch.Tensor], None] | None = None
    filters: Inverter | None = None


def norm(x: torch.Tensor) -> torch.Tensor:
    """Return the Euclidean norm of each item, (B, ...) -> (B,)."""
    return x.flatten(1).norm(dim=1)


def in_precision(problem: Problem, precision: str) -> Problem:
    """Pose the same problem with the networks' passes in another precision; latents and residuals stay float32.

    A 16-bit pass is rounded (bfloat16 to about 3 digits), so the residual has a floor, where the stop for stagnation ends
    the iteration. Rounding errors never add up in z, which is accumulated in float32 (Hong et al. 2024 do the same). A pass
    that overflows (the float16 autoencoder of SDXL does) is run again in float32.

    Parameters
    ----------
    problem : Problem
        With callables that run under autocast, on whichever device they compute.
    precision : {"float32", "bfloat16", "float16"}
    """
    if precision == "float32":
        return problem

    from treering_verify.models import lowered

    def half(run: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def lower(*arrays: torch.Tensor) -> torch.Tensor:
            with lowered(), autocasting(precision):
                output = run(*arrays).float()
            return output if bool(output.isfinite().all()) else run(*arrays)

        return lower

    refine = half(problem.refine) if problem.refine else None
    return replace(problem, encode=half(problem.encode), decode=half(problem.decode), refine=refine)
