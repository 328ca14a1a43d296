"""The maximum a posteriori latent of an unattacked image, under a Gaussian prior around the learned steps' end."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from treering_verify.inversion.decoder.baselines import by_gradient
from treering_verify.inversion.decoder.learned import learned_steps
from treering_verify.inversion.decoder.loop import solve, solve_some
from treering_verify.inversion.decoder.problem import ROUNDING, Problem, Settings, norm
from treering_verify.inversion.decoder.solution import Solution

if TYPE_CHECKING:
    import torch

    from treering_verify.inversion.decoder.loop import State

_LEARNED_STEPS = 2
_PRIOR = 0.021  # root mean square error of two learned steps per latent number (4 clean images of the embedded model)
_UNTOUCHED = (
    2.5  # times the error of rounding: clean images of the embedded model leave up to 2.1, JPEG 90 at least 3.4
)


def descend_to_posterior_mode(problem: Problem, settings: Settings) -> Solution:
    r"""Minimise |D(z) - x|^2 / s_x^2 + |z - c|^2 / s_z^2 by Adam with Nesterov's momentum, c being two learned steps' end.

    s_x^2 is the mean square of the misfit at c, at least that of rounding to 8 bits; s_z what learned steps leave on clean
    images. The prior holds z in the directions that hardly change the image, where the gradient baseline drifts. Steps are
    `step` long at first and fall to 0 as a cosine (update: Dozat, "Incorporating Nesterov momentum into Adam", 2016).

    An image whose misfit at c is more than 2.5 times the error of rounding was changed after it was decoded, or is no image
    of the model. The misfit is then not the latent's error, and c is returned ("refined").

    Cost: two learned steps, then per step one decoder pass forward and backward, and all activations in between, as
    `gradient`. Needs a model that has a refiner. Fails where `learned` does.

    Raises
    ------
    UsageError
        If the model has no refiner.
    """
    import torch

    begun = learned_steps(replace(problem, watch=None), replace(settings, iterations=_LEARNED_STEPS))
    with torch.inference_mode():
        misfit = norm(problem.decode(begun.latent) - problem.image)
    square = misfit.square() / problem.image[0].numel()
    rows = (square <= _UNTOUCHED**2 * ROUNDING).nonzero().flatten()
    start = replace(begun, residual=misfit / norm(problem.image).clamp_min(1e-12))
    weight = square[rows].clamp_min(ROUNDING) / _PRIOR**2
    return solve_some(problem, rows, start, lambda part: _descend(part, settings, begun.latent[rows], weight))


def _descend(problem: Problem, settings: Settings, centre: torch.Tensor, weight: torch.Tensor) -> Solution:
    """Minimise from the centre (b, C, h, w), `weight` (b,) being the prior's."""

    def initial_state(z: torch.Tensor) -> State:
        return z.new_zeros(z.shape), z.new_zeros(z.shape), centre, weight.view(-1, *[1] * (z.ndim - 1))

    def propose(k: int, z: torch.Tensor, doubled: torch.Tensor, state: State) -> tuple[torch.Tensor, State]:
        m, v, c, mu = state
        # g = J'(D(z) - x) + mu (z - c), half the objective's gradient times s_x^2
        g = doubled / 2 + mu * (z - c)
        # m <- beta_1 m + (1 - beta_1) g; v <- beta_2 v + (1 - beta_2) g^2
        m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g * g
        # Dozat 2016: m_bar = beta_1 m_hat + (1 - beta_1) g, the mean one step ahead
        m_bar = 0.9 * m / (1 - 0.9 ** (k + 1)) + 0.1 * g
        v_hat = v / (1 - 0.99 ** (k + 1))
        step = settings.step * 0.5 * (1 + math.cos(math.pi * k / settings.iterations))
        return z - step * m_bar / (v_hat.sqrt() + 1e-8), (m, v, c, mu)

    return solve(problem, settings, propose, initial_state, evaluate=by_gradient, in_pixels=True, start=centre)
