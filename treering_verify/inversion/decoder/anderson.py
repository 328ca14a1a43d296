"""Anderson acceleration of the fixed-point iteration z <- z - rho r(z): batched, regularised, safeguarded, with restart."""

from __future__ import annotations

from typing import TYPE_CHECKING

from treering_verify.inversion.decoder.loop import solve
from treering_verify.inversion.decoder.problem import Problem, Settings, norm
from treering_verify.inversion.decoder.solution import Solution

if TYPE_CHECKING:
    import torch

    from treering_verify.inversion.decoder.loop import State

_REGULARISATION = 1e-8  # of the Gram matrix's mean diagonal; lets nearly parallel residuals share the weight


def anderson(problem: Problem, settings: Settings) -> Solution:
    """Anderson acceleration: z <- sum_i a_i (z_i - rho r_i), the a_i minimising |sum_i a_i r_i|^2 with sum 1.

    The last `memory` points take part (Walker and Ni, SIAM J. Numer. Anal. 49, 2011; in this form Pulay's DIIS). One decoder
    and one encoder pass a step, and 2 `memory` latents of memory. A residual that grew throws the history away: the next
    step is a plain one from the point at hand. Fails as forward-step does where the residual leads away from the truth,
    and sooner, because it solves the equation better.
    """
    import torch

    def initial_state(z: torch.Tensor) -> State:
        shape = (len(z), settings.memory, z[0].numel())
        count = z.new_zeros((len(z), settings.memory), dtype=torch.bool)
        return z.new_zeros(shape), z.new_zeros(shape), count, norm(z).new_full((len(z),), float("inf"))

    def propose(k: int, z: torch.Tensor, r: torch.Tensor, state: State) -> tuple[torch.Tensor, State]:
        points, residuals, held, last = state
        size = norm(r)
        held = held & (size <= last)[:, None]
        points = torch.cat([z.flatten(1)[:, None], points[:, :-1]], dim=1)
        residuals = torch.cat([r.flatten(1)[:, None], residuals[:, :-1]], dim=1)
        held = torch.cat([torch.ones_like(held[:, :1]), held[:, :-1]], dim=1)
        weights = _weights(residuals, held)
        combined = (weights[:, None].to(points.dtype) @ (points - settings.step * residuals)).view_as(z)
        return combined, (points, residuals, held, size)

    return solve(problem, settings, propose, initial_state)


def _weights(residuals: torch.Tensor, held: torch.Tensor) -> torch.Tensor:
    """Weights (B, m) of the least-squares combination of residuals (B, m, n), 0 where not `held`, summing to 1.

    The minimiser of a' G a under sum(a) = 1 is G^-1 1 / (1' G^-1 1), G being the Gram matrix.
    """
    import torch

    masked = residuals.double() * held[..., None]
    gram = masked @ masked.transpose(1, 2)
    level = gram.diagonal(dim1=1, dim2=2).sum(1) / held.sum(1)
    # Absent points get an equation of their own, a_i = 0, which the others do not see.
    extra = torch.where(held, _REGULARISATION * level[:, None], torch.ones_like(level)[:, None])
    ones = held.to(gram.dtype)
    solution = torch.linalg.solve(gram + torch.diag_embed(extra.clamp_min(1e-300)), ones)
    return solution / solution.sum(1, keepdim=True)
