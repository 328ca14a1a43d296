"""Record a decoder inversion along its path: error and time of every evaluated point."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from treering_verify.inversion.decoder import Problem, Settings, in_precision, invert
from treering_verify.inversion.recovery import problem_of
from treering_verify.models import LatentModel

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False)
class Path:
    """The path of a method on n images in k steps.

    Attributes
    ----------
    error : (k + 1, n)
        NMSE in dB of the iterate that a budget of so many steps would return.
    seconds : (k + 1,)
        Time per image up to each point, its evaluation included, and, except for the last, the choice of the next point.
    latents : dict of int to (n, C, h, w)
        The iterates returned at the budgets asked for.
    steps : (n,)
        Steps that led to the iterate that the method returned in the end.
    """

    error: torch.Tensor
    seconds: torch.Tensor
    latents: dict[int, torch.Tensor]
    steps: torch.Tensor


def decibels(latent: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Return the NMSE of each item in dB, 10 log10(|z - z_0|^2 / |z_0|^2): (n, C, h, w) twice -> (n,)."""
    import torch

    ratio = (latent - truth).flatten(1).norm(dim=1) / truth.flatten(1).norm(dim=1)
    return 20 * torch.log10(ratio)


def follow(
    model: LatentModel,
    pixels: torch.Tensor,
    truth: torch.Tensor,
    method: str,
    settings: Settings,
    *,
    budgets: Sequence[int] = (),
    batch: int = 16,
    precision: str = "float32",
) -> Path:
    """Invert images in batches and record the path; errors are those of the iterate with the smallest residual so far."""
    parts = []
    for first in range(0, len(pixels), batch):
        part = slice(first, first + batch)
        problem = in_precision(problem_of(model, pixels[part]), precision)
        parts.append(_follow(problem, truth[part], method, settings, budgets))
    return joined(parts)


def joined(parts: Sequence[Path]) -> Path:
    """Return the paths of one method on several batches as one; they have latents at the same budgets."""
    import torch

    longest = max(len(p.error) for p in parts)
    weights = torch.tensor([p.error.shape[1] for p in parts], dtype=torch.float64)
    seconds = torch.stack([_extend(p.seconds, longest) for p in parts], dim=1)
    return Path(
        torch.cat([_extend(p.error, longest) for p in parts], dim=1),
        (seconds * weights).sum(1) / weights.sum(),
        {n: torch.cat([p.latents[n] for p in parts]) for n in parts[0].latents},
        torch.cat([p.steps for p in parts]),
    )


def _follow(problem: Problem, truth: torch.Tensor, method: str, settings: Settings, budgets: Sequence[int]) -> Path:
    import torch

    points: list[torch.Tensor] = []
    clock: list[float] = []

    def watch(k: int, rows: torch.Tensor, z: torch.Tensor) -> None:
        clock.append(_now())
        current = points[-1].clone() if points else truth * 0
        current[rows] = z.detach()
        points.append(current)

    started = _now()
    watched = replace(problem, watch=watch)
    result = invert(watched, method, settings)
    clock.append(_now())
    if not points:  # the encoder has no path
        points = [result.latent]
        clock = [started, clock[-1]]
    residual = result.trace.nan_to_num(nan=float("inf"))
    best = residual.cummin(dim=0).indices  # (k + 1, n): which point would be returned
    path = torch.stack(points)
    items = torch.arange(len(truth))
    returned = [path[best[k], items] for k in range(len(points))]
    returned[-1] = result.latent  # which early stopping may have moved back
    return Path(
        torch.stack([decibels(z, truth) for z in returned]),
        torch.tensor([(t - started) / len(truth) for t in clock[1:]], dtype=torch.float64),
        {n: returned[min(n, len(returned) - 1)] for n in budgets},
        result.iterations,
    )


def _extend(values: torch.Tensor, length: int) -> torch.Tensor:
    """Repeat the last row up to a length: a method that has stopped keeps its iterate."""
    import torch

    return torch.cat([values, values[-1:].expand(length - len(values), *values.shape[1:])])


def _now() -> float:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
