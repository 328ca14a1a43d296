"""The diffusion ODE in both directions: noise -> latent (generation), latent -> noise_hat (verification).

One formula serves both, and every kind of model:

    z_to = signal_to z_0(z, t) + sigma_to eps(z, t)

With signal = sqrt(a) and sigma = sqrt(1 - a) it is DDIM (Song et al., arXiv 2010.02502, eq. 12 without its added noise);
with signal = 1 - sigma it is Euler's step along the velocity eps - z_0 of a rectified flow, z_to = z + (sigma_to - sigma) v.

Going down, the network is asked at the point where the step starts. Going up, naive inversion asks it with the only z it
has, the one at the clean end of the step, at the time index of the noisy end: that is its whole error. `exact` solves for
the right z; `heun` follows the ODE itself at second order; `estimated` lets a network that the model brings along say what
the noise was, from the points that naive inversion passes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

from treering_verify.errors import UsageError
from treering_verify.models.protocol import Condition, LatentModel, Timestep
from treering_verify.models.sampling import step

if TYPE_CHECKING:
    import torch

DEFAULT_STEPS = 10  # measured best for detection, whatever generation used (README, "How it works")


def naive(
    model: LatentModel, latent: torch.Tensor, *, steps: int, conditions: Sequence[Condition] | None = None
) -> torch.Tensor:
    """Run the ODE backwards with the network asked at the wrong end of each step, at guidance 1; one pass a step.

    Parameters
    ----------
    model : LatentModel
    latent : (B, C, h, w) float32
    steps : int
        Number of steps; 0 returns the latent itself, whose spectrum already carries part of the key.
    conditions : sequence of str or None, optional
        No condition when left out: verification knows neither class nor prompt.

    Returns
    -------
    (B, C, h, w) float32
        noise_hat.
    """
    return trajectory(model, latent, steps=steps, conditions=conditions)[-1]


def trajectory(
    model: LatentModel,
    latent: torch.Tensor,
    *,
    steps: int,
    conditions: Sequence[Condition] | None = None,
    most: int | None = None,
) -> list[torch.Tensor]:
    """Every point that `naive` passes, the latent first and noise_hat last: steps + 1 tensors, or after `most` steps."""
    labels = conditions if conditions is not None else [None] * len(latent)
    points = [latent]
    for start, end in _upwards(model, steps)[:most]:
        points.append(_naive_step(model, points[-1], start, end, labels))
    return points


def exact(
    model: LatentModel,
    latent: torch.Tensor,
    *,
    steps: int,
    conditions: Sequence[Condition] | None = None,
    iterations: int | None = None,
    tolerance: float = 1e-4,
) -> torch.Tensor:
    r"""Solve each generating step for its start: find z with step(z) = z_from (Hong et al., CVPR 2024, backward Euler).

    The fixed point is a forward step on the residual of the step itself, from the naive answer:

        z <- z - s g (step(z) - z_from),   s = 1

    with g = sqrt(a_to / a_from), the inverse of what the step does to z while the noise's estimate stays as it is. On a
    straight ODE g = 1: there the velocity stays.

    Per item the best iterate is kept; a residual that grew halves s and goes on from the best. So no step is ever undone
    worse than by `naive`. `iterations` + 2 passes a step. It undoes generation with the *same* grid and condition and
    guidance 1 as far as the fixed point converges; under another grid it solves the wrong equation more exactly.

    Parameters
    ----------
    model, latent, steps, conditions
        As for `naive`.
    iterations : int, optional
        Most fixed-point steps for each step of the grid. When left out, 4, and more where the grid has fewer than ten: a
        generator of one step is one long equation, and there is time for 40.
    tolerance : float
        An item is left alone when its residual is below this share of |z_from|.

    Returns
    -------
    (B, C, h, w) float32
        noise_hat.
    """
    import torch

    labels = list(conditions) if conditions is not None else [None] * len(latent)
    if iterations is None:
        iterations = max(4, 40 // max(1, steps))
    z_from = latent
    for start, end in _upwards(model, steps):
        point = best = _naive_step(model, z_from, start, end, labels)
        smallest, damping = z_from.new_full((len(z_from),), float("inf")), z_from.new_ones(len(z_from))
        direction = torch.zeros_like(z_from)
        size = z_from.flatten(1).norm(dim=1)
        for k in range(iterations + 1):
            residual = step(model, point, end, start, labels) - z_from
            norm = residual.flatten(1).norm(dim=1) / size
            better = norm < smallest
            best = torch.where(_wide(better, point), point, best)
            direction = torch.where(_wide(better, point), residual, direction)
            smallest, damping = torch.minimum(norm, smallest), torch.where(better, damping, damping / 2)
            if k == iterations or bool((smallest <= tolerance).all()):
                break
            gain = damping * (1.0 if end.straight else (end.alpha / start.alpha) ** 0.5)
            point = best - _wide(gain, best) * direction
        z_from = best
    return z_from


def heun(
    model: LatentModel, latent: torch.Tensor, *, steps: int, conditions: Sequence[Condition] | None = None
) -> torch.Tensor:
    """Run the ODE backwards with Heun's second-order rule; two passes a step (Karras et al., arXiv 2206.00364, alg. 1).

    In u = z / sqrt(a) and r = sqrt((1 - a) / a) the ODE is du/dr = eps(z); DDIM is its Euler step, Heun's rule takes the
    mean of eps at both ends. On a straight ODE it is dz/dsigma = v(z). Follows the continuous ODE, not the grid that
    generated. Parameters and result as `naive`.

    Raises
    ------
    UsageError
        If the grid begins at pure noise (zero SNR), where r has no end.
    """
    labels = conditions if conditions is not None else [None] * len(latent)
    z = latent
    for start, end in _upwards(model, steps):
        if end.straight:
            here = _velocity(model, z, start, labels)
            there = _velocity(model, z + (end.sigma - start.sigma) * here, end, labels)
            z = z + (end.sigma - start.sigma) * (here + there) / 2
            continue
        if not end.alpha:
            raise UsageError("heun cannot reach pure noise, where this model's schedule begins: use naive or exact")
        _, here = model.denoise(z, start, labels)
        width = _spread(end) - _spread(start)
        ahead = end.alpha**0.5 * (z / start.alpha**0.5 + width * here)
        _, there = model.denoise(ahead, end, labels)
        z = end.alpha**0.5 * (z / start.alpha**0.5 + width * (here + there) / 2)
    return z


def estimated(
    model: LatentModel, latent: torch.Tensor, *, steps: int, conditions: Sequence[Condition] | None = None
) -> torch.Tensor:
    """Let the model's estimator say what the noise was, from the points of `naive` that it was trained on.

    What it says is shrunk: a frequency of which the image shows nothing comes out as zero, not as noise. That is what the
    exact test wants, and what published tests, which take noise_hat for noise of unit power, cannot use. Parameters as
    `naive`; one pass for each step that the estimator looks at, and a small network.

    Raises
    ------
    UsageError
        If the model has no estimator, or one for another number of steps.
    """
    estimator = model.estimate
    if estimator is None:
        raise UsageError("this model has no noise estimator: choose another noise inversion, such as naive")
    if steps != estimator.steps:
        raise UsageError(
            f"the model's noise estimator knows an inversion of {estimator.steps} steps, not of {steps}: "
            "leave the steps as they are, or choose another noise inversion, such as naive"
        )
    return estimator(trajectory(model, latent, steps=steps, conditions=conditions, most=estimator.points[-1]))


METHODS: dict[str, Callable[..., torch.Tensor]] = {"naive": naive, "exact": exact, "heun": heun, "estimated": estimated}
AUTO = "auto"  # estimated where the model brings an estimator for these steps, naive elsewhere


def default_method(model: LatentModel, steps: int) -> str:
    """Name of the method that `auto` stands for."""
    return "estimated" if model.estimate is not None and model.estimate.steps == steps else "naive"


def invert(
    model: LatentModel,
    latent: torch.Tensor,
    method: str = AUTO,
    *,
    steps: int = DEFAULT_STEPS,
    conditions: Sequence[Condition] | None = None,
) -> torch.Tensor:
    """Run a method by name, "auto" choosing by `default_method`.

    0 steps return the latent itself, but for an estimator, which knows one number of steps.

    Raises
    ------
    KeyError
        If there is no such method: see `METHODS`.
    """
    chosen = default_method(model, steps) if method == AUTO else method
    return METHODS[chosen](model, latent, steps=steps, conditions=conditions)


def with_naive(
    model: LatentModel, latent: torch.Tensor, method: str = AUTO, *, steps: int = DEFAULT_STEPS
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what a method says, as `invert`, and what `naive` says, which published statistics are defined on.

    For a method that goes the naive way itself this costs no pass more than one of the two.
    """
    chosen = default_method(model, steps) if method == AUTO else method
    passed = trajectory(model, latent, steps=steps)
    if chosen == "naive":
        return passed[-1], passed[-1]
    if chosen == "estimated" and model.estimate is not None and model.estimate.steps == steps:
        return model.estimate(passed), passed[-1]
    return invert(model, latent, chosen, steps=steps), passed[-1]


def _upwards(model: LatentModel, steps: int) -> list[tuple[Timestep, Timestep]]:
    return list(pairwise(model.timesteps(steps)[::-1])) if steps else []


def _naive_step(
    model: LatentModel, z: torch.Tensor, start: Timestep, end: Timestep, conditions: Sequence[Condition]
) -> torch.Tensor:
    # z stands at `start`; the network is told the time of `end`, as it was when this step was generated.
    return step(model, z, replace(start, index=end.index), end, conditions)


def _velocity(model: LatentModel, z: torch.Tensor, at: Timestep, conditions: Sequence[Condition]) -> torch.Tensor:
    clean, eps = model.denoise(z, at, conditions)
    return eps - clean


def _spread(at: Timestep) -> float:
    return ((1 - at.alpha) / at.alpha) ** 0.5


def _wide(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return values.view(-1, *[1] * (like.ndim - 1))
