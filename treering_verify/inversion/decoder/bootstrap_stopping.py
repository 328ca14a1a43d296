"""How far to follow a path: walk it once more where the truth is known.

Under attack, solving E(D(z)) = E(x) ever better leads away from the latent that was decoded, and nothing on the path itself
says so: residual and misfit fall all the same. But what the decoder could not explain, m = x - D(z_end), is known, and it is
most of what an attack did. So the image of a latent that *is* known, D(E(x)), is given that much damage, mirrored so that
it fits no content, and the same method walks on it. How each of its steps changed the error of that latent says how many
steps to keep on the image itself. A method that fits pixels explains part of the damage away and would rehearse with too
little of it; there m is what plain forward steps leave, which see pixels through the encoder alone.

This is a parametric bootstrap (Efron, Ann. Stat. 7, 1979): it has no threshold that belongs to an autoencoder, and costs the
walk a second time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from treering_verify.inversion.decoder.problem import Problem, norm
from treering_verify.inversion.decoder.solution import Solution

if TYPE_CHECKING:
    import torch

_LEAST = 1.0  # dB that the best rehearsed step must gain: less says that nothing is to be gained
_SHARE = 0.5  # of the best gain that the last step kept has left: the damage holds some of the start's own error


class _Walk:
    """Points (k + 1, n, ...) that a method passed on a problem, the output of the first, and the misfit of the nearest."""

    def __init__(self, problem: Problem) -> None:
        self.points: list[torch.Tensor] = []
        self._problem = problem
        self._rows: torch.Tensor | None = None
        self._start: torch.Tensor | None = None

    def watch(self, k: int, rows: torch.Tensor, points: torch.Tensor) -> None:
        """Take down a point, as `Problem.watch`, and pass it on."""
        if self._problem.watch:
            self._problem.watch(k, rows, points)
        self._rows = rows
        current = self.points[-1].clone() if self.points else points.detach().clone()
        current[rows] = points.detach()
        self.points.append(current)

    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        """D; the first time after a point was watched it keeps the output."""
        output = self._problem.decode(latent)
        rows, self._rows = self._rows, None
        if rows is None:  # on the way to where the walk begins, or once more for its derivative
            return output
        seen = output.detach()
        size = norm(seen - self._problem.image[rows])
        if self._start is None:
            self._start, self._closest, self._size = seen.clone(), seen.clone(), size.clone()
        else:
            nearer = size < self._size[rows]
            rows = rows[nearer]
            self._closest[rows], self._size[rows] = seen[nearer], size[nearer]
        return output

    def start(self) -> torch.Tensor:
        """Output of the first point: (n, 3, H, W)."""
        assert self._start is not None
        return self._start

    def misfit(self) -> torch.Tensor:
        """Return the image less the nearest output: (n, 3, H, W)."""
        return self._problem.image - self._closest


def stopped_early(
    problem: Problem, walk: Callable[[Problem], Solution], look: Callable[[Problem], Solution] | None = None
) -> Solution:
    """Walk, rehearse, and keep as many steps of each item as the rehearsal found good; never a residual above the start's.

    Parameters
    ----------
    problem : Problem
    walk : callable
        A method that does not rehearse, and evaluates each point by D right after it was watched (`Problem.watch`).
    look : callable, optional
        Another such method, whose misfit is the damage; the walk's own when left out.

    Returns
    -------
    Inversion
        "overfit" are items of which steps were taken back; the trace shows those too. What diverged still says so.
    """
    import torch

    with torch.no_grad():
        real = _Walk(problem)
        found = walk(replace(problem, decode=real.decode, watch=real.watch))
        seen = real
        if look:
            seen = _Walk(replace(problem, watch=None))
            look(replace(problem, decode=seen.decode, watch=seen.watch))
        posed = replace(problem, image=real.start() + seen.misfit().flip(-1), watch=None)
        again = _Walk(posed)
        walk(replace(posed, watch=again.watch))
        gains = _gains(torch.stack(again.points), real.points[0], len(real.points))
        trace = found.trace[: len(gains)]
        kept = _kept(gains, allowed=trace <= trace[0])
        items = torch.arange(len(kept), device=kept.device)
        last = trace.isfinite().sum(dim=0) - 1
        back = (kept < last).tolist()
        status = ["overfit" if b and s != "diverged" else s for s, b in zip(found.status, back, strict=True)]
        return Solution(torch.stack(real.points)[kept, items], trace[kept, items], found.trace, kept, tuple(status))


def _gains(points: torch.Tensor, truth: torch.Tensor, count: int) -> torch.Tensor:
    """Fall of the error in dB at the first `count` points of a walk (k + 1, n, ...) from its first; the last one goes on."""
    import torch

    error = torch.stack([norm(point - truth) for point in points]).clamp_min(1e-12)
    error = torch.cat([error, error[-1:].expand(max(0, count - len(error)), -1)])[:count]
    return 20 * torch.log10(error[0] / error)


def _kept(gains: torch.Tensor, allowed: torch.Tensor) -> torch.Tensor:
    """Point that each item keeps, (k + 1, n) twice -> (n,): the last allowed one that has `_SHARE` of the best gain."""
    import torch

    gains = torch.where(allowed, gains.nan_to_num(nan=0.0), 0.0)
    best = gains.max(dim=0).values
    good = (gains >= _SHARE * best) & (best >= _LEAST)
    steps = torch.arange(len(gains), device=gains.device)[:, None]
    return torch.where(good, steps, 0).max(dim=0).values
