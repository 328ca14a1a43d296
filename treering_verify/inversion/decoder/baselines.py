"""The published methods: the encoder, the gradient baseline, and the gradient-free family of Hong et al. 2024.

The gradient-free ones solve E(D(z)) = E(x) (NeurIPS 2024, arXiv 2409.18442) from the residual r(z) = E(D(z)) - E(x),
which is not a gradient of anything.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from treering_verify.inversion.decoder.loop import Point, encode, solve
from treering_verify.inversion.decoder.problem import Problem, Settings, norm
from treering_verify.inversion.decoder.solution import Solution

if TYPE_CHECKING:
    import torch

    from treering_verify.inversion.decoder.loop import Propose, State


def encoder(problem: Problem, settings: Settings) -> Solution:
    """Baseline: z = E(x), one encoder pass. Fails by as much as E is not the inverse of D."""
    import torch

    start = encode(problem)
    return Solution(
        latent=start,
        residual=torch.full((len(start),), math.nan),
        trace=torch.full((1, len(start)), math.nan),
        iterations=torch.zeros(len(start), dtype=torch.long),
        status=("tolerance",) * len(start),
    )


def forward_step(problem: Problem, settings: Settings) -> Solution:
    """Forward step: z <- z - rho r(z) (Hong et al. 2024, eq. 4). One decoder and one encoder pass a step.

    Converges for 0 < rho < 2 beta where r is beta-cocoercive (their theorem 1); elsewhere the safeguards end it. Fails where
    E(D(.)) is far from the identity: the residual then falls for a few steps while the error grows.
    """

    def propose(k: int, z: torch.Tensor, r: torch.Tensor, state: State) -> tuple[torch.Tensor, State]:
        return z - settings.step * r, ()

    return solve(problem, settings, propose)


def inertial_km(problem: Problem, settings: Settings) -> Solution:
    """Inertial Krasnoselskii-Mann: y = z + alpha (z - z_previous); z <- y - rho r(y) (Hong et al. 2024, eq. 5).

    One decoder and one encoder pass a step. The evaluated, and returned, points are the extrapolated y. Converges under
    lambda (1 - alpha + 2 alpha^2) < (1 - alpha)^2 (their theorem 2); fails as forward-step does, sooner for large alpha.
    """

    def propose(k: int, y: torch.Tensor, r: torch.Tensor, state: State) -> tuple[torch.Tensor, State]:
        (previous,) = state
        z = y - settings.step * r
        return z + settings.momentum * (z - previous), (z,)

    return solve(problem, settings, propose, lambda z: (z.clone(),))


def adam(problem: Problem, settings: Settings) -> Solution:
    """Adam on r(z) as if it were a gradient, betas (0.9, 0.999) (Hong et al. 2024, sec. 3.4).

    One decoder and one encoder pass a step. The step's length does not depend on the residual's, so a peak that suits one
    latent is wrong for another (measured: the published 0.01 is, for ours).
    """
    return solve(problem, settings, _adam_rule(settings), _adam_state)


def gradient(problem: Problem, settings: Settings) -> Solution:
    """Baseline: Adam on |D(z) - x|^2 through autograd, weights frozen and nothing copied, so that it is fair.

    One decoder pass forward and backward a step (about three passes' time), and the memory of all activations in between.
    """
    return solve(problem, settings, _adam_rule(settings), _adam_state, evaluate=by_gradient, in_pixels=True)


def by_gradient(problem: Problem, z: torch.Tensor, image: torch.Tensor, target: torch.Tensor) -> Point:
    """Gradient of |D(z) - x|^2 in z, and |D(z) - x|."""
    import torch

    with torch.enable_grad():
        z = z.detach().clone().requires_grad_(True)
        error = problem.decode(z) - image
        (grad,) = torch.autograd.grad(error.pow(2).sum(), z)
    return Point(grad, norm(error.detach()))


def scheduled_step(iteration: int, iterations: int, peak: float) -> float:
    """Step length: 10 % linear warm-up, then cosine over min(iterations, 100), constant after 80 % of it."""
    length = min(iterations, 100)
    warmup = max(1, length // 10)
    if iteration < warmup:
        return peak * (iteration + 1) / warmup
    share = (min(iteration, int(0.8 * length)) - warmup) / max(1, length - warmup)
    return peak * 0.5 * (1 + math.cos(math.pi * share))


def _adam_state(z: torch.Tensor) -> State:
    return z.new_zeros(z.shape), z.new_zeros(z.shape)


def _adam_rule(settings: Settings) -> Propose:
    def propose(k: int, z: torch.Tensor, r: torch.Tensor, state: State) -> tuple[torch.Tensor, State]:
        first = 0.9 * state[0] + 0.1 * r
        second = 0.999 * state[1] + 0.001 * r * r
        step = scheduled_step(k, settings.iterations, settings.step) if settings.scheduled else settings.step
        direction = (first / (1 - 0.9 ** (k + 1))) / ((second / (1 - 0.999 ** (k + 1))).sqrt() + 1e-8)
        return z - step * direction, (first, second)

    return propose
