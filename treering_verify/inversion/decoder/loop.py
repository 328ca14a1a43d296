"""The loop that every iterative method runs in; it does for all of them what must never be left out.

* Each item stops by itself, and leaves the batch then.
* The iterate that is returned is the best evaluated one, so no residual is ever worse than the start's.
* How many steps are good is rehearsed where the truth is known, if settings say so (`rehearsal`): what is beyond that has
  fitted the attack to the latent and is taken back.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from treering_verify.inversion.decoder.bootstrap_stopping import stopped_early
from treering_verify.inversion.decoder.problem import Problem, Settings, norm
from treering_verify.inversion.decoder.solution import Solution

if TYPE_CHECKING:
    import torch

    State = tuple[torch.Tensor, ...]  # each with the batch as its first axis
    Propose = Callable[[int, torch.Tensor, torch.Tensor, State], tuple[torch.Tensor, State]]


_PLAIN_STEPS = 3


class Point(NamedTuple):
    """What is known of a batch of latents once they were evaluated.

    Attributes
    ----------
    signal : tensor
        What the method steps by: the residual r(z), a gradient, or the error in pixels; batch first.
    size : (b,)
        Norm that the method brings down; the driver keeps the iterate where it is smallest.
    """

    signal: torch.Tensor
    size: torch.Tensor


Evaluate = Callable[["Problem", "torch.Tensor", "torch.Tensor", "torch.Tensor"], Point]


def encode(problem: Problem) -> torch.Tensor:
    """E(x), as a tensor that may take part in autograd."""
    import torch

    with torch.inference_mode():
        start = problem.encode(problem.image)
    return start.clone()


def by_residual(problem: Problem, z: torch.Tensor, image: torch.Tensor, target: torch.Tensor) -> Point:
    """r(z) = E(D(z)) - E(x), with one pass of each network and no gradient."""
    import torch

    with torch.inference_mode():
        residual = problem.encode(problem.decode(z)) - target
        return Point(residual, norm(residual))


def relative_residual(problem: Problem, z: torch.Tensor) -> torch.Tensor:
    """|E(D(z)) - E(x)| / |E(x)| of latents (B, C, h, w): (B,)."""
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
    """Iterate `propose` per item from `start`, E(x) when left out, evaluating each point, with the safeguards above.

    `in_pixels` says that `evaluate` measures in pixels, so that sizes are relative to |x| and not to |E(x)|.
    """
    import torch

    if settings.early_stopping:
        free = replace(settings, early_stopping=False)
        return stopped_early(
            problem,
            lambda posed: solve(
                posed, free, propose, initial_state, evaluate=evaluate, in_pixels=in_pixels, start=start
            ),
            plain_steps if in_pixels else None,
        )
    target = encode(problem)
    with torch.no_grad():
        point = target if start is None else start
        count = len(point)
        scale = norm(problem.image if in_pixels else target).clamp_min(1e-12)
        best, best_residual = point.clone(), scale.new_full((count,), math.inf)
        best_step = torch.zeros(count, dtype=torch.long, device=point.device)
        trace = scale.new_full((settings.iterations + 1, count), math.nan)
        status = ["budget"] * count
        rows, state = torch.arange(count, device=point.device), initial_state(point)
        for k in range(settings.iterations + 1):
            if problem.watch:
                problem.watch(k, rows, point)
            signal, size = evaluate(problem, point, problem.image[rows], target[rows])
            residual = size / scale[rows]
            trace[k, rows] = residual
            stop = _stops(k, settings, residual, best_residual[rows])
            sound = torch.tensor([s != "diverged" for s in stop], device=point.device)
            better = (residual < best_residual[rows]) & sound
            best[rows[better]], best_residual[rows[better]] = point[better].clone(), residual[better]
            best_step[rows[better]] = k
            for row, reason in zip(rows.tolist(), stop, strict=True):
                if reason:
                    status[row] = reason if reason != "diverged" or best_step[row] == 0 else "stagnated"
            going = torch.tensor([not s for s in stop], device=point.device)
            if k == settings.iterations or not bool(going.any()):
                break
            point, state = propose(k, point, signal, state)
            point, state, rows = point[going], tuple(s[going] for s in state), rows[going]
    return Solution(best, best_residual, trace[: k + 1], best_step, tuple(status))


def solve_some(
    problem: Problem,
    rows: torch.Tensor,
    start: Solution,
    go_on: Callable[[Problem], Solution],
) -> Solution:
    """Go on from where `start` ended with the images `rows` (b,) only; the other items stay there, with its status.

    `go_on` solves the part of the problem that holds these images. Every item counts its steps from here.
    """
    import torch

    if problem.watch:
        problem.watch(0, torch.arange(len(start.latent), device=rows.device), start.latent)
    latent, residual, steps = start.latent.clone(), start.residual.clone(), torch.zeros_like(start.iterations)
    status = list(start.status)
    trace = residual[None].clone()
    if len(rows):

        def watch(k: int, going: torch.Tensor, points: torch.Tensor) -> None:
            if problem.watch and k:
                problem.watch(k, rows[going], points)

        found = go_on(replace(problem, image=problem.image[rows], watch=watch))
        trace = residual.new_full((len(found.trace), len(residual)), math.nan)
        trace[0], trace[:, rows] = residual, found.trace
        latent[rows], residual[rows], steps[rows] = found.latent, found.residual, found.iterations
        for row, reason in zip(rows.tolist(), found.status, strict=True):
            status[row] = reason
    return Solution(latent, residual, trace, steps, tuple(status))


def plain_steps(problem: Problem) -> Solution:
    """Forward steps of length 1, unrehearsed: what they leave of an image, no method has fitted by its pixels."""
    return solve(problem, Settings(iterations=_PLAIN_STEPS, step=1.0), lambda k, z, r, state: (z - r, ()))


def _stops(k: int, settings: Settings, residual: torch.Tensor, best: torch.Tensor) -> list[str]:
    """Why each item stops at this point, or "" to go on."""
    reasons = []
    for r, b in zip(residual.tolist(), best.tolist(), strict=True):
        if not math.isfinite(r) or (k > 0 and r > settings.divergence * b):
            reasons.append("diverged")
        elif r <= settings.tolerance:
            reasons.append("tolerance")
        else:
            reasons.append("stagnated" if k > 0 and r > (1 - settings.stagnation) * b else "")
    return reasons
