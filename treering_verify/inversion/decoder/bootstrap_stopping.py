"""Early stopping by parametric bootstrap: how many steps of an iterative method bring the latent nearer to the true one.

Under attack, solving E(D(z)) = E(x) ever better leads away from the latent that was decoded, and no quantity of the
iteration says so: residual and misfit fall all the same. But the negative misfit m = x - D(z_end), which the decoder could
not explain, is known, and it is most of what an attack did. So the method runs a second time, on an image whose latent is
known: the bootstrap image D(E(x)) + flip(m). The mirrored m has the attack's strength and fits no content. How each step of
this second run changed the error of the known latent E(x) says how many steps to accept on the image itself.

A method that fits pixels explains part of the attack, and its own m would be too weak. There m is what plain forward steps
leave, which depend on pixels through the encoder alone.

The parametric bootstrap is Efron's (Ann. Stat. 7, 1979). It needs no threshold that belongs to an autoencoder, and costs
the iteration a second time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from treering_verify.inversion.decoder.problem import Problem, norm
from treering_verify.inversion.decoder.solution import Solution

if TYPE_CHECKING:
    import torch

_LEAST_GAIN = 1.0  # dB that the best step must gain on the bootstrap image: below it no step is accepted
_SHARE_OF_GAIN = 0.5  # of the best gain, that the last accepted step still has: m holds some of the start's own error


class _Recorder:
    """Records a method's run on a problem: its points (k + 1, n, ...), the first's image, and the nearest image."""

    def __init__(self, problem: Problem) -> None:
        self.points: list[torch.Tensor] = []
        self._problem = problem
        self._rows: torch.Tensor | None = None
        self._start: torch.Tensor | None = None

    def watch(self, k: int, rows: torch.Tensor, points: torch.Tensor) -> None:
        """Record a point, as `Problem.watch`, and pass it on."""
        if self._problem.watch:
            self._problem.watch(k, rows, points)
        self._rows = rows
        current = self.points[-1].clone() if self.points else points.detach().clone()
        current[rows] = points.detach()
        self.points.append(current)

    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        """Return D(latent); the first call after a point was watched is recorded as that point's image."""
        output = self._problem.decode(latent)
        rows, self._rows = self._rows, None
        if rows is None:  # before the first point, or a second pass for a derivative
            return output
        decoded = output.detach()
        misfit = norm(decoded - self._problem.image[rows])  # |D(z_k) - x|
        if self._start is None:
            self._start, self._nearest, self._least_misfit = decoded.clone(), decoded.clone(), misfit.clone()
        else:
            nearer = misfit < self._least_misfit[rows]
            rows = rows[nearer]
            self._nearest[rows], self._least_misfit[rows] = decoded[nearer], misfit[nearer]
        return output

    def start_image(self) -> torch.Tensor:
        """Return the first point's image D(z_start): (n, 3, H, W)."""
        assert self._start is not None
        return self._start

    def unexplained(self) -> torch.Tensor:
        """Return m = x - D(z), z being the recorded point whose image is nearest to x: (n, 3, H, W)."""
        return self._problem.image - self._nearest


def stop_early(
    problem: Problem,
    method: Callable[[Problem], Solution],
    damage_method: Callable[[Problem], Solution] | None = None,
) -> Solution:
    """Run a method and return as many of its steps as the parametric bootstrap accepts, for each item.

    Parameters
    ----------
    problem : Problem
    method : callable
        A method without early stopping, which evaluates each point by D right after it was watched (`Problem.watch`).
    damage_method : callable, optional
        Another such method, which leaves the m of the bootstrap image; `method` itself when left out.

    Returns
    -------
    Solution
        No residual is above the start's. "overfit" are items of which steps were discarded; the trace has these too. An
        item that diverged still says so.
    """
    import torch

    with torch.no_grad():
        run = _Recorder(problem)
        found = method(replace(problem, decode=run.decode, watch=run.watch))

        damage_run = run
        if damage_method:
            damage_run = _Recorder(replace(problem, watch=None))
            damage_method(replace(problem, decode=damage_run.decode, watch=damage_run.watch))

        # The bootstrap image D(E(x)) + flip(m), whose latent E(x) is known, and the same method on it
        bootstrap_image = run.start_image() + damage_run.unexplained().flip(-1)
        bootstrap_problem = replace(problem, image=bootstrap_image, watch=None)
        bootstrap_run = _Recorder(bootstrap_problem)
        method(replace(bootstrap_problem, watch=bootstrap_run.watch))

        gains = _gains(torch.stack(bootstrap_run.points), run.points[0], len(run.points))
        trace = found.trace[: len(gains)]
        accepted = _accepted_steps(gains, allowed=trace <= trace[0])

        items = torch.arange(len(accepted), device=accepted.device)
        steps_taken = trace.isfinite().sum(dim=0) - 1
        discarded = (accepted < steps_taken).tolist()
        status = ["overfit" if d and s != "diverged" else s for s, d in zip(found.status, discarded, strict=True)]
        latent = torch.stack(run.points)[accepted, items]
        return Solution(latent, trace[accepted, items], found.trace, accepted, tuple(status))


def _gains(points: torch.Tensor, truth: torch.Tensor, count: int) -> torch.Tensor:
    """Return by how many dB the error fell from the first point (k + 1, n, ...) to each: (count, n), the last repeated."""
    import torch

    error = torch.stack([norm(point - truth) for point in points]).clamp_min(1e-12)
    error = torch.cat([error, error[-1:].expand(max(0, count - len(error)), -1)])[:count]
    return 20 * torch.log10(error[0] / error)


def _accepted_steps(gains: torch.Tensor, allowed: torch.Tensor) -> torch.Tensor:
    """Return each item's last allowed step with `_SHARE_OF_GAIN` of the best gain, or 0: (k + 1, n) twice -> (n,)."""
    import torch

    gains = torch.where(allowed, gains.nan_to_num(nan=0.0), 0.0)
    best = gains.max(dim=0).values
    good = (gains >= _SHARE_OF_GAIN * best) & (best >= _LEAST_GAIN)
    steps = torch.arange(len(gains), device=gains.device)[:, None]
    return torch.where(good, steps, 0).max(dim=0).values
