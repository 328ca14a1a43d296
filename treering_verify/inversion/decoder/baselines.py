"""The published methods: the encoder, gradient descent, and the gradient-free methods of Hong et al. 2024.

The gradient-free ones solve E(D(z)) = E(x) (NeurIPS 2024, arXiv 2409.18442) from the residual r(z) = E(D(z)) - E(x),
which is not a gradient of anything.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from treering_verify.inversion.decoder.loop import Evaluation, encode, solve
from treering_verify.inversion.decoder.problem import Problem, Settings, norm
from treering_verify.inversion.decoder.solution import Solution

if TYPE_CHECKING:
    import torch

    from treering_verify.inversion.decoder.loop import Propose, State


def encoder(problem: Problem, settings: Settings) -> Solution:
    """Return z = E(x), the baseline of one encoder pass. Its error says how far E is from the inverse of D."""
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
    """Solve E(D(z)) = E(x) by the forward step method: z <- z - rho r(z) (Hong et al. 2024, eq. 4).

    rho is `step`. Converges for 0 < rho < 2 beta where r is beta-cocoercive (their theorem 1); elsewhere the loop's
    safeguards end it. Fails where E(D(.)) is far from the identity: the residual then falls for a few steps while the error
    grows. One decoder and one encoder pass a step.
    """
    rho = settings.step

    def propose(k: int, z: torch.Tensor, r: torch.Tensor, state: State) -> tuple[torch.Tensor, State]:
        # Hong et al. 2024, eq. 4: z_{k+1} = z_k - rho (E(D(z_k)) - E(x))
        return z - rho * r, ()

    return solve(problem, settings, propose)


def inertial_km(problem: Problem, settings: Settings) -> Solution:
    """Solve E(D(z)) = E(x) by inertial Krasnoselskii-Mann iterations (Hong et al. 2024, eq. 5).

    y_k = z_k + alpha (z_k - z_{k-1}) and z_{k+1} = y_k - rho r(y_k), where rho = 2 lambda beta is `step` and alpha is
    `momentum`. The evaluated, and returned, points are the extrapolated y_k. Converges under
    lambda (1 - alpha + 2 alpha^2) < (1 - alpha)^2 (their theorem 2). Fails as forward-step does, earlier for large alpha.
    One decoder and one encoder pass a step.
    """
    rho, alpha = settings.step, settings.momentum

    def propose(k: int, y: torch.Tensor, r: torch.Tensor, state: State) -> tuple[torch.Tensor, State]:
        (z_previous,) = state
        # Hong et al. 2024, eq. 5, from y_k on: z_{k+1} = y_k - rho r(y_k)
        z = y - rho * r
        # y_{k+1} = z_{k+1} + alpha (z_{k+1} - z_k)
        return z + alpha * (z - z_previous), (z,)

    return solve(problem, settings, propose, lambda z: (z.clone(),))


def adam(problem: Problem, settings: Settings) -> Solution:
    """Solve E(D(z)) = E(x) by Adam with r(z) in the place of a gradient (Hong et al. 2024, sec. 3.4).

    The step's length does not depend on the residual's, so a peak that suits the latents of one model is wrong for
    another's (measured: the published 0.01 is wrong for the embedded model). One decoder and one encoder pass a step.
    """
    return solve(problem, settings, _adam_rule(settings), _adam_state)


def gradient(problem: Problem, settings: Settings) -> Solution:
    """Minimise |D(z) - x|^2 by Adam through autograd: the gradient-based baseline.

    It is a fair one: the weights are frozen, and nothing is copied. One decoder pass forward and backward a step (about
    three passes' time), and the memory of all activations in between.
    """
    return solve(problem, settings, _adam_rule(settings), _adam_state, evaluate=by_gradient, in_pixels=True)


def by_gradient(problem: Problem, z: torch.Tensor, image: torch.Tensor, target: torch.Tensor) -> Evaluation:
    """Evaluate the gradient of |D(z) - x|^2 in z, and |D(z) - x|."""
    import torch

    with torch.enable_grad():
        z = z.detach().clone().requires_grad_(True)
        error = problem.decode(z) - image
        (grad,) = torch.autograd.grad(error.pow(2).sum(), z)
    return Evaluation(grad, norm(error.detach()))


def scheduled_step(iteration: int, iterations: int, peak: float) -> float:
    """Return a step length: 10 % linear warm-up, then cosine over min(iterations, 100), constant after 80 % of it."""
    length = min(iterations, 100)
    warmup = max(1, length // 10)
    if iteration < warmup:
        return peak * (iteration + 1) / warmup
    share = (min(iteration, int(0.8 * length)) - warmup) / max(1, length - warmup)
    return peak * 0.5 * (1 + math.cos(math.pi * share))


def _adam_state(z: torch.Tensor) -> State:
    return z.new_zeros(z.shape), z.new_zeros(z.shape)


def _adam_rule(settings: Settings) -> Propose:
    """Return Adam's update by a gradient, or by what stands in its place; betas (0.9, 0.999)."""

    def propose(k: int, z: torch.Tensor, r: torch.Tensor, state: State) -> tuple[torch.Tensor, State]:
        m, v = state
        # Kingma and Ba, ICLR 2015, alg. 1, with g = r: m <- beta_1 m + (1 - beta_1) g; v <- beta_2 v + (1 - beta_2) g^2
        m = 0.9 * m + 0.1 * r
        v = 0.999 * v + 0.001 * r * r
        # m_hat = m / (1 - beta_1^t); v_hat = v / (1 - beta_2^t); t = k + 1
        m_hat = m / (1 - 0.9 ** (k + 1))
        v_hat = v / (1 - 0.999 ** (k + 1))
        # z <- z - step m_hat / (sqrt(v_hat) + epsilon)
        step = scheduled_step(k, settings.iterations, settings.step) if settings.scheduled else settings.step
        return z - step * (m_hat / (v_hat.sqrt() + 1e-8)), (m, v)

    return propose
