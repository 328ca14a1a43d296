"""The loop that every iterative method runs in; it does for all of them what must never be left out.

* Each item stops by itself, and leaves the batch then.
* The iterate that is returned is the best evaluated one, so no residual is ever worse than the start's.
* The overfit stop (a discrepancy principle). D cannot produce what an attack added, so the misfit |D(z) - x| of a clean
  image keeps falling while that of an attacked one stalls at the attack's energy; a step that no longer lowers it has
  fitted the attack to the latent and is taken back. It costs nothing: D(z) is on the way to E(D(z)). Methods whose steps are
  too small to be judged one by one are judged at their end.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from treering_verify.decoder_inversion.problem import Problem, Settings
from treering_verify.results import Inversion

if TYPE_CHECKING:
    import torch

    State = tuple[torch.Tensor, ...]  # each with the batch as its first axis
    Propose = Callable[[int, torch.Tensor, torch.Tensor, State], tuple[torch.Tensor, State]]


class Point(NamedTuple):
    """What is known of a batch of latents once they were evaluated.

    Attributes
    ----------
    signal : tensor
        What the method steps by: the residual r(z), a gradient, or the error in pixels; batch first.
    size : (b,)
        Norm that the method brings down; the driver keeps the iterate where it is smallest.
    misfit : (b,)
        |D(z) - x|.
    """

    signal: torch.Tensor
    size: torch.Tensor
    misfit: torch.Tensor


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
        output = problem.decode(z)
        residual = problem.encode(output) - target
        return Point(residual, norm(residual), norm(output - image))


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
) -> Inversion:
    """Iterate `propose` per item from `start`, E(x) when left out, evaluating each point, with the safeguards above.

    `in_pixels` says that `evaluate` measures in pixels, so that sizes are relative to |x| and not to |E(x)|.
    """
    import torch

    target = encode(problem)
    with torch.no_grad():
        origin = point = target if start is None else start
        count = len(point)
        scale = norm(problem.image if in_pixels else target).clamp_min(1e-12)
        best, best_residual = point.clone(), scale.new_full((count,), math.inf)
        best_step = torch.zeros(count, dtype=torch.long, device=point.device)
        best_misfit = torch.zeros_like(scale)
        trace = scale.new_full((settings.iterations + 1, count), math.nan)
        status = ["budget"] * count
        rows, state = torch.arange(count, device=point.device), initial_state(point)
        start_misfit = first_misfit = last_misfit = scale.new_full((count,), math.inf)
        for k in range(settings.iterations + 1):
            if problem.watch:
                problem.watch(k, rows, point)
            signal, size, misfit = evaluate(problem, point, problem.image[rows], target[rows])
            residual = size / scale[rows]
            trace[k, rows] = residual
            if k == 0:
                start_misfit = first_misfit = misfit
            stop = _stops(k, settings, residual, best_residual[rows], misfit, last_misfit, first_misfit)
            sound = torch.tensor([s not in ("overfit", "diverged") for s in stop], device=point.device)
            better = (residual < best_residual[rows]) & sound
            best[rows[better]], best_residual[rows[better]] = point[better].clone(), residual[better]
            best_step[rows[better]], best_misfit[rows[better]] = k, misfit[better]
            for row, reason in zip(rows.tolist(), stop, strict=True):
                if reason:
                    status[row] = reason if reason != "diverged" or best_step[row] == 0 else "stagnated"
            going = torch.tensor([not s for s in stop], device=point.device)
            if k == settings.iterations or not bool(going.any()):
                break
            point, state = propose(k, point, signal, state)
            point, state, rows = point[going], tuple(s[going] for s in state), rows[going]
            first_misfit, last_misfit = first_misfit[going], misfit[going]
        if settings.misfit_explained and not settings.misfit_fall:
            back = (best_step > 0) & (best_misfit > settings.misfit_explained * start_misfit)
            best[back], best_residual[back], best_step[back] = origin[back], trace[0, back], 0
            status = ["overfit" if b else s for s, b in zip(status, back.tolist(), strict=True)]
    return Inversion(best, best_residual, trace[: k + 1], best_step, tuple(status))


def _stops(
    k: int,
    settings: Settings,
    residual: torch.Tensor,
    best: torch.Tensor,
    misfit: torch.Tensor,
    last_misfit: torch.Tensor,
    first_misfit: torch.Tensor,
) -> list[str]:
    """Why each item stops at this point, or "" to go on."""
    reasons = []
    for r, b, m, last, first in zip(
        *(t.tolist() for t in (residual, best, misfit, last_misfit, first_misfit)), strict=True
    ):
        if not math.isfinite(r) or (k > 0 and r > settings.divergence * b):
            reasons.append("diverged")
        elif (
            k > 0 and settings.misfit_fall and m > settings.misfit_fall * last and m > settings.misfit_explained * first
        ):
            reasons.append("overfit")
        elif r <= settings.tolerance:
            reasons.append("tolerance")
        else:
            reasons.append("stagnated" if k > 0 and r > (1 - settings.stagnation) * b else "")
    return reasons


def norm(x: torch.Tensor) -> torch.Tensor:
    """Euclidean norm of each item, (B, ...) -> (B,)."""
    return x.flatten(1).norm(dim=1)
