"""Matrix-free Gauss-Newton: the maximum a posteriori latent under a Gaussian prior around forward steps' end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from treering_verify.inversion.decoder.baselines import forward_step
from treering_verify.inversion.decoder.bootstrap_stopping import stop_early
from treering_verify.inversion.decoder.loop import Evaluation, solve, solve_some, take_forward_steps
from treering_verify.inversion.decoder.problem import GREY_LEVEL, ROUNDING, Problem, Settings, norm
from treering_verify.inversion.decoder.solution import Solution

if TYPE_CHECKING:
    import torch

    from treering_verify.inversion.decoder.loop import State

_START_STEPS = 3


def gauss_newton_steps(problem: Problem, settings: Settings) -> Solution:
    r"""Minimise |D(z) - x|^2 / s_x^2 + |z - c|^2 / s_z^2 by Gauss-Newton, c being the result of three forward steps.

    Each step solves (J'J + mu) d = -(J' e + mu (z - c)) by `inner` steps of conjugate gradients; J is never formed, its
    products are reverse-mode passes through the decoder. mu = s_x^2 / s_z^2 comes from the image: s_x^2 is the mean square
    of the misfit at c, at least that of rounding to 8 bits, so that a strong attack gives the prior more weight; s_z is
    `step`, the expected error of c per latent number. The error e knows quantisation and clamping: it is 0 within half a
    grey level, and where x is black or white and D(z) lies beyond.

    Early stopping by parametric bootstrap judges its steps from c together with c's own: the bootstrap image goes through
    the encoder, forward steps, then these. Its m is what plain forward steps leave of the image. An image of which early
    stopping accepts no forward step stays at its start, because a method that fits pixels would fit the attack even more.

    Cost: the start's passes, then the time of about 4 + 4 `inner` decoder passes a step, all twice with early stopping, with
    three passes of each network more, and twice the activations of one. Fails where the image hardly depends on the latent
    (the prior alone decides there), and costs much for what it gains.
    """
    import torch

    begun = forward_step(
        replace(problem, watch=None), replace(settings, iterations=_START_STEPS, step=1.0, early_stopping=True)
    )
    centre = begun.latent
    if settings.early_stopping:
        whole = replace(settings, early_stopping=False)
        start = replace(begun, residual=_relative_error(problem, centre))
        return solve_some(
            problem,
            begun.iterations.nonzero().flatten(),
            start,
            lambda part: stop_early(part, lambda posed: gauss_newton_steps(posed, whole), take_forward_steps),
        )
    with torch.inference_mode():
        misfit = norm(problem.decode(centre) - problem.image).square() / problem.image[0].numel()
    ratio = (misfit.clamp_min(ROUNDING) / settings.step**2).clone()

    def initial_state(z: torch.Tensor) -> State:
        return centre.clone(), ratio

    def propose(k: int, z: torch.Tensor, error: torch.Tensor, state: State) -> tuple[torch.Tensor, State]:
        c, mu = state
        weight = mu.view(-1, *[1] * (z.ndim - 1))
        forward, backward = _products(problem.decode, z)
        # (J'J + mu) d = -(J' e + mu (z - c))
        right = -(backward(error) + weight * (z - c))
        step = _conjugate_gradients(lambda d: backward(forward(d)) + weight * d, right, settings.inner)
        return z + step, state

    return solve(problem, settings, propose, initial_state, evaluate=_error, in_pixels=True, start=centre)


def _relative_error(problem: Problem, z: torch.Tensor) -> torch.Tensor:
    """Return |e(z)| / |x|, e being D(z) - x without what rounding and clamping explain: (B,)."""
    return _error(problem, z, problem.image, z).size / norm(problem.image).clamp_min(1e-12)


def _error(problem: Problem, z: torch.Tensor, image: torch.Tensor, target: torch.Tensor) -> Evaluation:
    """Evaluate D(z) - x without what rounding and clamping explain, and its norm."""
    import torch

    with torch.inference_mode():
        error = problem.decode(z) - image
        beyond = ((image >= 1) & (error > 0)) | ((image <= -1) & (error < 0))
        unexplained = torch.where(beyond, 0.0, torch.nn.functional.softshrink(error, GREY_LEVEL / 2))
    return Evaluation(unexplained.clone(), norm(unexplained))


def _products(
    decode: Callable[[torch.Tensor], torch.Tensor], z: torch.Tensor
) -> tuple[Callable[[torch.Tensor], torch.Tensor], Callable[[torch.Tensor], torch.Tensor]]:
    """Return d -> J d and e -> J' e, J being the decoder's Jacobian at z.

    Both come from one graph: J d is the derivative of J' e, which is linear in e.
    """
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    # The fused kernels of attention, which Stable Diffusion's decoder has in its middle, cannot be differentiated twice.
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        z = z.detach().clone().requires_grad_(True)
        output = decode(z)
        dual = torch.zeros_like(output, requires_grad=True)
        (transposed,) = torch.autograd.grad(output, z, dual, create_graph=True)

    def forward(d: torch.Tensor) -> torch.Tensor:
        return torch.autograd.grad(transposed, dual, d, retain_graph=True)[0]

    def backward(e: torch.Tensor) -> torch.Tensor:
        return torch.autograd.grad(output, z, e, retain_graph=True)[0]

    return forward, backward


def _conjugate_gradients(
    apply: Callable[[torch.Tensor], torch.Tensor], right: torch.Tensor, steps: int
) -> torch.Tensor:
    """Solve A d = right for each item, A symmetric and positive, by a fixed number of steps from 0."""

    def dot(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (a * b).flatten(1).sum(1).view(-1, *[1] * (a.ndim - 1))

    # Hestenes and Stiefel 1952: r_0 = b, p_0 = r_0, and then for each step
    solution, rest = right * 0, right
    direction, energy = rest, dot(rest, rest)
    for _ in range(steps):
        product = apply(direction)
        # a = r'r / p'Ap; d <- d + a p; r <- r - a A p
        length = energy / dot(direction, product).clamp_min(1e-30)
        solution, rest = solution + length * direction, rest - length * product
        # p <- r + (r'r / previous r'r) p
        new_energy = dot(rest, rest)
        direction, energy = rest + new_energy / energy.clamp_min(1e-30) * direction, new_energy
    return solution
