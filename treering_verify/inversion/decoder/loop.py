"""The loop that every iterative method runs in, with the safeguards that no method may leave out.

* Each item stops by itself, and leaves the batch then.
* The iterate that is returned is the best evaluated one, so no residual is ever worse than the start's.
* If the settings ask for it, early stopping by parametric bootstrap (`bootstrap_stopping`) discards the steps that fitted
  the attack.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from treering_verify.inversion.decoder.bootstrap_stopping import stop_early
from treering_verify.inversion.decoder.problem import Problem, Settings, norm
from treering_verify.inversion.decoder.solution import Solution

if TYPE_CHECKING:
    import torch

    State = tuple[torch.Tensor, ...]  # each with the batch as its first axis
    Propose = Callable[[int, torch.Tensor, torch.Tensor, State], tuple[torch.Tensor, State]]


_FORWARD_STEPS = 3


class Evaluation(NamedTuple):
    """What an evaluation says of a batch of latents.

    Attributes
    ----------
    signal : tensor
        What the method steps by: the residual r(z), a gradient, or the error in pixels; batch first.
    size : (b,)
        Norm that the method brings down; the loop returns the iterate where it is smallest.
    """

    signal: torch.Tensor
    size: torch.Tensor


Evaluate = Callable[["Problem", "torch.Tensor", "torch.Tensor", "torch.Tensor"], Evaluation]


def encode(problem: Problem) -> torch.Tensor:
    """Return E(x), as a tensor that may take part in autograd."""
    import torch

    with torch.inference_mode():
        start = problem.encode(problem.image)
    return start.clone()


def by_residual(problem: Problem, z: torch.Tensor, image: torch.Tensor, target: torch.Tensor) -> Evaluation:
    """Evaluate r(z) = E(D(z)) - E(x) and its norm, with one pass of each network and no gradient."""
    import torch

    with torch.inference_mode():
        residual = problem.encode(problem.decode(z)) - target
        return Evaluation(residual, norm(residual))


def relative_residual(problem: Problem, z: torch.Tensor) -> torch.Tensor:
    """Return |E(D(z)) - E(x)| / |E(x)| of latents (B, C, h, w): (B,)."""
    target = encode(problem)
    return by_residual(problem, z, problem.image, target).size / norm(target).clamp_min(1e-12)


def solve(
    problem: Problem,
    settings: Settings,
    propose: Propose,
    initial_state: Callable[[torch.Tensor], State] = lambda z: (),
    *,
    evaluate: Evaluate = by_residual,
    in_pixels: bool = False,
    start: torch.Tensor | None = None,
) -> Solution:
    """Iterate a method's rule `propose` for each item, evaluate each point, and return the best one.

    Parameters
    ----------
    problem : Problem
    settings : Settings
        Budget, stops, and whether early stopping by parametric bootstrap discards steps.
    propose : callable
        (k, z_k, signal of z_k, state) -> (z_{k+1}, state), for the items that are still iterated.
    initial_state : callable
        What the rule remembers, from the first point; each tensor has the batch as its first axis.
    evaluate : callable
        (problem, z, x, E(x)) -> Evaluation.
    in_pixels : bool
        `evaluate` measures in pixels: sizes are relative to |x| then, and to |E(x)| otherwise.
    start : (B, C, h, w), optional
        First point; E(x) when left out.

    Returns
    -------
    Solution
    """
    import torch

    if settings.early_stopping:
        whole = replace(settings, early_stopping=False)
        return stop_early(
            problem,
            lambda posed: solve(
                posed, whole, propose, initial_state, evaluate=evaluate, in_pixels=in_pixels, start=start
            ),
            take_forward_steps if in_pixels else None,
        )
    target = encode(problem)  # E(x)
    with torch.no_grad():
        point = target if start is None else start
        count = len(point)
        scale = norm(problem.image if in_pixels else target).clamp_min(1e-12)
        best, best_residual = point.clone(), scale.new_full((count,), math.inf)
        best_step = torch.zeros(count, dtype=torch.long, device=point.device)
        trace = scale.new_full((settings.iterations + 1, count), math.nan)
        status = ["budget"] * count
        rows = torch.arange(count, device=point.device)  # items that are still iterated; `point` and `state` hold these
        state = initial_state(point)
        for k in range(settings.iterations + 1):
            if problem.watch:
                problem.watch(k, rows, point)
            # r(z_k) = E(D(z_k)) - E(x), or what the method steps by in its place, and the norm that is to fall
            signal, size = evaluate(problem, point, problem.image[rows], target[rows])
            residual = size / scale[rows]
            trace[k, rows] = residual

            reasons = _reasons_to_stop(k, settings, residual, best_residual[rows])
            sound = torch.tensor([reason != "diverged" for reason in reasons], device=point.device)
            improved = (residual < best_residual[rows]) & sound
            improved_rows = rows[improved]
            best[improved_rows] = point[improved].clone()
            best_residual[improved_rows] = residual[improved]
            best_step[improved_rows] = k
            for row, reason in zip(rows.tolist(), reasons, strict=True):
                if reason:  # an item that diverged after a better point than the start ends at that point
                    status[row] = reason if reason != "diverged" or best_step[row] == 0 else "stagnated"

            going_on = torch.tensor([not reason for reason in reasons], device=point.device)
            if k == settings.iterations or not bool(going_on.any()):
                break
            # z_{k+1} from z_k and r(z_k): the method's own rule
            point, state = propose(k, point, signal, state)
            point, state, rows = point[going_on], tuple(part[going_on] for part in state), rows[going_on]
    return Solution(best, best_residual, trace[: k + 1], best_step, tuple(status))


def solve_some(
    problem: Problem,
    rows: torch.Tensor,
    start: Solution,
    solve_part: Callable[[Problem], Solution],
) -> Solution:
    """Go on from the solution `start` with the images `rows` (b,) only; the other items end there, with its status.

    `solve_part` solves the part of the problem that holds these images. Every item counts its steps from here.
    """
    import torch

    if problem.watch:
        problem.watch(0, torch.arange(len(start.latent), device=rows.device), start.latent)
    latent, residual, steps = start.latent.clone(), start.residual.clone(), torch.zeros_like(start.iterations)
    status = list(start.status)
    trace = residual[None].clone()
    if len(rows):

        def watch(k: int, part_rows: torch.Tensor, points: torch.Tensor) -> None:
            if problem.watch and k:
                problem.watch(k, rows[part_rows], points)

        found = solve_part(replace(problem, image=problem.image[rows], watch=watch))
        trace = residual.new_full((len(found.trace), len(residual)), math.nan)
        trace[0], trace[:, rows] = residual, found.trace
        latent[rows], residual[rows], steps[rows] = found.latent, found.residual, found.iterations
        for row, reason in zip(rows.tolist(), found.status, strict=True):
            status[row] = reason
    return Solution(latent, residual, trace, steps, tuple(status))


def take_forward_steps(problem: Problem) -> Solution:
    """Take three forward steps of length 1 without early stopping: a reference that has fitted no pixels."""
    return solve(problem, Settings(iterations=_FORWARD_STEPS, step=1.0), lambda k, z, r, state: (z - r, ()))


def _reasons_to_stop(k: int, settings: Settings, residual: torch.Tensor, best: torch.Tensor) -> list[str]:
    """Return why each item stops at this point, or "" where it goes on."""
    reasons = []
    for r, b in zip(residual.tolist(), best.tolist(), strict=True):
        if not math.isfinite(r) or (k > 0 and r > settings.divergence * b):
            reasons.append("diverged")
        elif r <= settings.tolerance:
            reasons.append("tolerance")
        else:
            reasons.append("stagnated" if k > 0 and r > (1 - settings.stagnation) * b else "")
    return reasons
