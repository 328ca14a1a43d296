"""Anderson acceleration of the fixed-point iteration z <- z - rho r(z): batched, regularised, with restart."""

from __future__ import annotations

from typing import TYPE_CHECKING

from treering_verify.inversion.decoder.loop import solve
from treering_verify.inversion.decoder.problem import Problem, Settings, norm
from treering_verify.inversion.decoder.solution import Solution

if TYPE_CHECKING:
    import torch

    from treering_verify.inversion.decoder.loop import State

_REGULARISATION = 1e-8  # of the Gram matrix's mean diagonal; lets nearly parallel residuals share the weight


def anderson_acceleration(problem: Problem, settings: Settings) -> Solution:
    """Solve E(D(z)) = E(x) by Anderson acceleration: z <- sum_i a_i (z_i - rho r_i), sum_i a_i = 1.

    The weights a_i minimise |sum_i a_i r_i|^2 over the last `memory` points (Walker and Ni, SIAM J. Numer. Anal. 49, 2011;
    in this form Pulay's DIIS). A residual that grew discards the history: the next step is a forward step from the current
    point. Fails as forward-step does where the residual leads away from the true latent, and earlier, because it solves the
    equation better. One decoder and one encoder pass a step, and 2 `memory` latents of memory.
    """
    import torch

    def initial_state(z: torch.Tensor) -> State:
        shape = (len(z), settings.memory, z[0].numel())
        stored = z.new_zeros((len(z), settings.memory), dtype=torch.bool)
        return z.new_zeros(shape), z.new_zeros(shape), stored, norm(z).new_full((len(z),), float("inf"))

    def propose(k: int, z: torch.Tensor, r: torch.Tensor, state: State) -> tuple[torch.Tensor, State]:
        points, residuals, stored, last_size = state
        size = norm(r)
        stored = stored & (size <= last_size)[:, None]  # restart where the residual grew
        points = torch.cat([z.flatten(1)[:, None], points[:, :-1]], dim=1)
        residuals = torch.cat([r.flatten(1)[:, None], residuals[:, :-1]], dim=1)
        stored = torch.cat([torch.ones_like(stored[:, :1]), stored[:, :-1]], dim=1)
        # z <- sum_i a_i (z_i - rho r_i)
        weights = _weights(residuals, stored)
        combined = (weights[:, None].to(points.dtype) @ (points - settings.step * residuals)).view_as(z)
        return combined, (points, residuals, stored, size)

    return solve(problem, settings, propose, initial_state)


def _weights(residuals: torch.Tensor, stored: torch.Tensor) -> torch.Tensor:
    """Return weights a (B, m) that sum to 1 and minimise |sum_i a_i r_i|^2, 0 where not `stored`; residuals (B, m, n).

    The minimiser of a' G a under sum(a) = 1 is G^-1 1 / (1' G^-1 1), G being the Gram matrix.
    """
    import torch

    masked = residuals.double() * stored[..., None]
    gram = masked @ masked.transpose(1, 2)
    level = gram.diagonal(dim1=1, dim2=2).sum(1) / stored.sum(1)
    # A slot without a point gets an equation of its own, a_i = 0, which changes no other weight.
    extra = torch.where(stored, _REGULARISATION * level[:, None], torch.ones_like(level)[:, None])
    ones = stored.to(gram.dtype)
    solution = torch.linalg.solve(gram + torch.diag_embed(extra.clamp_min(1e-300)), ones)
    return solution / solution.sum(1, keepdim=True)
