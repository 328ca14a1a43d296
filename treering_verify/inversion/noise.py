"""The diffusion ODE in both directions: noise -> latent (generation), latent -> noise_hat (verification).

One formula serves both, and every kind of model:

    z_to = signal_to z_0(z, t) + sigma_to eps(z, t)

With signal = sqrt(a) and sigma = sqrt(1 - a) it is DDIM (Song et al., arXiv 2010.02502, eq. 12 without its added noise);
with signal = 1 - sigma it is Euler's step along the velocity eps - z_0 of a rectified flow, z_to = z + (sigma_to - sigma) v.

Generation evaluates the network at the point where the step starts, its noisy end. Inversion comes from the clean end.
`naive` evaluates the network at the clean end with the noisy end's time index, which is its whole error; `exact` solves for
the z of the noisy end; `heun` follows the ODE itself at second order; `estimated` gives the points of the naive inversion to
the model's noise estimator.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

from treering_verify.errors import UsageError
from treering_verify.models.inverter import fitted, noise_inputs
from treering_verify.models.protocol import Condition, LatentModel, Timestep
from treering_verify.models.sampling import step
from treering_verify.plugins import Registry

if TYPE_CHECKING:
    import torch

DEFAULT_STEPS = 10  # measured best for detection, whatever generation used (docs/findings.md)


def naive(
    model: LatentModel, latent: torch.Tensor, *, steps: int, conditions: Sequence[Condition] | None = None
) -> torch.Tensor:
    """Run the ODE backwards with each step's network pass at the clean end, at guidance 1; one pass a step.

    Parameters
    ----------
    model : LatentModel
    latent : (B, C, h, w) float32
    steps : int
        Number of steps; 0 returns the latent itself, whose spectrum already carries part of the key.
    conditions : sequence of str or None, optional
        One for each item; none when left out, because verification knows neither class nor prompt.

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
    """Return the points of `naive`: the latent first and noise_hat last, steps + 1 tensors, or `most` + 1 at most."""
    labels = conditions if conditions is not None else [None] * len(latent)
    points = [latent]
    for start, end in _inversion_steps(model, steps)[:most]:
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
    r"""Invert each generation step by fixed-point iteration: find z with step(z) = z_from.

    This is backward Euler (Hong et al., CVPR 2024). The iteration is a forward step on the residual of the generation step,
    and starts from the naive answer:

        z <- z - s g (step(z) - z_from),   s = 1

    with g = sqrt(a_to / a_from), the inverse of the step's factor on z at a fixed noise estimate. For a rectified flow
    g = 1, because there the velocity stays.

    Each item returns its best iterate; a residual that grew halves s and continues from the best. So no step is inverted
    worse than by `naive`. `iterations` + 2 passes a step. Exact for the grid and condition of generation at guidance 1, as
    far as the fixed point converges; under another grid it solves the wrong equation more exactly.

    Parameters
    ----------
    model, latent, steps, conditions
        As for `naive`.
    iterations : int, optional
        Most fixed-point iterations for each step of the grid. When left out, 4, and more where the grid has fewer than ten
        steps: 40 for a generator of one step.
    tolerance : float
        A step ends when no item's residual |step(z) - z_from| is above this share of |z_from|.

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
    for start, end in _inversion_steps(model, steps):
        factor = 1.0 if end.straight else (end.alpha / start.alpha) ** 0.5  # g
        scale = z_from.flatten(1).norm(dim=1)
        z = best = _naive_step(model, z_from, start, end, labels)
        best_residual = torch.zeros_like(z_from)
        best_size = z_from.new_full((len(z_from),), float("inf"))
        damping = z_from.new_ones(len(z_from))  # s
        for k in range(iterations + 1):
            # step(z) - z_from
            residual = step(model, z, end, start, labels) - z_from
            size = residual.flatten(1).norm(dim=1) / scale

            improved = size < best_size
            best = torch.where(_per_item(improved, z), z, best)
            best_residual = torch.where(_per_item(improved, z), residual, best_residual)
            best_size = torch.minimum(size, best_size)
            damping = torch.where(improved, damping, damping / 2)
            if k == iterations or bool((best_size <= tolerance).all()):
                break
            # z <- z - s g (step(z) - z_from), from the best z so far
            z = best - _per_item(damping * factor, best) * best_residual
        z_from = best
    return z_from


def heun(
    model: LatentModel, latent: torch.Tensor, *, steps: int, conditions: Sequence[Condition] | None = None
) -> torch.Tensor:
    """Run the ODE backwards with Heun's second-order rule; two passes a step (Karras et al., arXiv 2206.00364, alg. 1).

    In u = z / sqrt(a) and r = sqrt((1 - a) / a) the ODE is du/dr = eps(z); DDIM is its Euler step, Heun's rule takes the
    mean of eps at both ends. For a rectified flow the ODE is dz/dsigma = v(z). It follows the continuous ODE, not the grid
    of generation. Parameters and result as `naive`.

    Raises
    ------
    UsageError
        If the grid begins at pure noise (zero signal-to-noise ratio), where r is infinite.
    """
    labels = conditions if conditions is not None else [None] * len(latent)
    z = latent
    for start, end in _inversion_steps(model, steps):
        if end.straight:
            # z <- z + (sigma_to - sigma) (v(z) + v(z + (sigma_to - sigma) v(z))) / 2
            here = _velocity(model, z, start, labels)
            there = _velocity(model, z + (end.sigma - start.sigma) * here, end, labels)
            z = z + (end.sigma - start.sigma) * (here + there) / 2
            continue
        if not end.alpha:
            raise UsageError("heun cannot reach pure noise, where this model's schedule begins: use naive or exact")
        # u <- u + (r_to - r) (eps(z) + eps(z_ahead)) / 2, z_ahead being the Euler step
        _, here = model.denoise(z, start, labels)
        r_step = _noise_ratio(end) - _noise_ratio(start)
        ahead = end.alpha**0.5 * (z / start.alpha**0.5 + r_step * here)
        _, there = model.denoise(ahead, end, labels)
        z = end.alpha**0.5 * (z / start.alpha**0.5 + r_step * (here + there) / 2)
    return z


def filtered(
    model: LatentModel,
    latent: torch.Tensor,
    *,
    steps: int,
    conditions: Sequence[Condition] | None = None,
    shares: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the model's linear estimate of the noise, from the points of `naive` that its filters were fitted to.

    A ridge regression of z_T on k x k neighbourhoods of these points (`treering models fit`), one for each of several kinds
    of attack. As with `estimated`, frequencies that the image says nothing about come out as zero. Parameters as `naive`;
    one pass for each step up to the last point.

    Parameters
    ----------
    shares : (B, J) float
        How much of each expert is taken: `Solution.shares` of the decoder inversion "filtered".

    Raises
    ------
    UsageError
        If the model carries no such filters, they were fitted to another number of steps, or another decoder inversion left
        no shares.
    """
    filters = fitted(model)
    if filters is None or filters.noise is None:
        raise UsageError(
            "this model carries no fitted noise filters: make them with treering models fit and name them with --inverter, "
            "or choose another noise inversion, such as naive"
        )
    if steps != filters.steps:
        raise UsageError(
            f"the model's filters know a noise inversion of {filters.steps} steps, not of {steps}: set the steps to "
            f"{filters.steps}, or choose another noise inversion, such as naive"
        )
    if shares is None:
        raise UsageError(
            "the filtered noise inversion continues the filtered decoder inversion: choose both, or neither"
        )
    points = trajectory(model, latent, steps=steps, conditions=conditions, most=filters.points[-1])
    return filters.noise(noise_inputs([latent, *(points[k] for k in filters.points)]), shares)


def estimated(
    model: LatentModel, latent: torch.Tensor, *, steps: int, conditions: Sequence[Condition] | None = None
) -> torch.Tensor:
    """Return the model's estimate of the noise, E[z_T | points], from the points of `naive` that it was trained on.

    A conditional expectation is shrunk: a frequency that the image says nothing about comes out as zero, not as noise. The
    exact test gains by that. Published tests, which take noise_hat for noise of unit power, cannot use it. Parameters as
    `naive`; one pass for each step that the estimator takes points from, and a small network.

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
            f"set the steps to {estimator.steps}, or choose another noise inversion, such as naive"
        )
    return estimator(trajectory(model, latent, steps=steps, conditions=conditions, most=estimator.points[-1]))


# filtered after filtered decoder inversion, estimated where the model has an estimator for these steps, naive elsewhere
AUTO = "auto"
METHODS: Registry[Callable[..., torch.Tensor]] = Registry(
    "noise inversion",
    "treering_verify.noise_inversions",
    {"naive": naive, "exact": exact, "heun": heun, "estimated": estimated, "filtered": filtered},
    reserved=(AUTO,),
)
"""Methods by name, each (model, latent, *, steps, conditions) -> noise_hat; users add their own (docs/extending.md)."""


def default_method(model: LatentModel, steps: int, shares: torch.Tensor | None = None) -> str:
    """Return the name of the method that "auto" stands for; `shares` as `filtered` takes them."""
    filters = fitted(model)
    if shares is not None and filters is not None and filters.noise is not None and filters.steps == steps:
        return "filtered"
    return "estimated" if model.estimate is not None and model.estimate.steps == steps else "naive"


def invert(
    model: LatentModel,
    latent: torch.Tensor,
    method: str = AUTO,
    *,
    steps: int = DEFAULT_STEPS,
    conditions: Sequence[Condition] | None = None,
    shares: torch.Tensor | None = None,
) -> torch.Tensor:
    """Run a method by name; "auto" chooses by `default_method`. `shares` is what `filtered` takes.

    0 steps return the latent itself, except for `estimated` and `filtered`, which know one number of steps.

    Raises
    ------
    UsageError
        If there is no such method: see `METHODS`.
    """
    chosen = default_method(model, steps, shares) if method == AUTO else method
    if chosen == "filtered":
        return filtered(model, latent, steps=steps, conditions=conditions, shares=shares)
    return METHODS[chosen](model, latent, steps=steps, conditions=conditions)


def invert_with_naive(
    model: LatentModel,
    latent: torch.Tensor,
    method: str = AUTO,
    *,
    steps: int = DEFAULT_STEPS,
    shares: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return noise_hat by a method, as `invert`, and by `naive`, which published statistics are defined on.

    A method that starts with the naive inversion shares its passes.
    """
    chosen = default_method(model, steps, shares) if method == AUTO else method
    points = trajectory(model, latent, steps=steps)
    if chosen == "naive":
        return points[-1], points[-1]
    if chosen == "estimated" and model.estimate is not None and model.estimate.steps == steps:
        return model.estimate(points), points[-1]
    return invert(model, latent, chosen, steps=steps, shares=shares), points[-1]


def _inversion_steps(model: LatentModel, steps: int) -> list[tuple[Timestep, Timestep]]:
    return list(pairwise(model.timesteps(steps)[::-1])) if steps else []


def _naive_step(
    model: LatentModel, z: torch.Tensor, start: Timestep, end: Timestep, conditions: Sequence[Condition]
) -> torch.Tensor:
    # z is the point at `start`; the network is given the time index of `end`, as in generation.
    return step(model, z, replace(start, index=end.index), end, conditions)


def _velocity(model: LatentModel, z: torch.Tensor, at: Timestep, conditions: Sequence[Condition]) -> torch.Tensor:
    clean, eps = model.denoise(z, at, conditions)
    return eps - clean


def _noise_ratio(at: Timestep) -> float:
    return ((1 - at.alpha) / at.alpha) ** 0.5


def _per_item(values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return values.view(-1, *[1] * (like.ndim - 1))
