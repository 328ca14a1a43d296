"""Cocoercivity of the residual along the path and the remaining distance to the limit (Hong et al. 2024, figure 3)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from treering_detectors import Rate, fit_line

from treering_verify.benchmark.catalogue import BENCHMARKS
from treering_verify.benchmark.harness.inversion_paths import decibels
from treering_verify.benchmark.harness.scope import SEEDS, Scope, truth
from treering_verify.inversion.decoder import DEFAULTS, Problem, Settings, invert, unstopped
from treering_verify.models import LatentModel
from treering_verify.report.findings import Cell, Cloud, Figure, Findings, Table

if TYPE_CHECKING:
    import torch

_BATCH = 8


@dataclass(frozen=True)
class _Panel:
    """A method, the step whose iterate is taken as the limit (`last`), and the number of steps examined (`middle`)."""

    label: str
    method: str
    settings: Settings
    middle: int
    last: int


def measure(model: LatentModel, scope: Scope) -> Findings:
    """Measure beta along each path and check the theorems' conditions with it.

    With T = E D - E(x) and z_inf the path's end, beta = min over k of <T z_inf - T z_k, z_inf - z_k> / |T z_inf - T z_k|^2.
    Theorem 1 (forward-step) asks for 0 < rho < 2 beta; theorem 2 (inertial KM, rho = 2 lambda beta) for
    lambda (1 - alpha + 2 alpha^2) < (1 - alpha)^2.
    """
    count, first = scope.images(4, 32), SEEDS["cocoercivity"]
    known = truth(model, None, range(first, first + count))
    pixels = known.pixels()
    rows: list[dict[str, Any]] = []
    lines: list[tuple[Cell, ...]] = []
    panels = []
    plan = _plan(scope.quick)
    with scope.progress("Panels", len(plan)) as advance:
        for panel in plan:
            beta, left, error, falls = _measure(model, pixels, known.latent, panel)
            fitted = fit_line(beta, left)
            alpha, rho = panel.settings.momentum, panel.settings.step
            holds = [_condition(panel.method, rho, alpha, b) for b in beta]
            rows += [
                {
                    "method": panel.label,
                    "image": i,
                    "min_cocoercivity": beta[i],
                    "distance_left": left[i],
                    "nmse_db": error[i],
                    "distance_fell": falls[i],
                    "condition_holds": holds[i],
                }
                for i in range(count)
            ]
            lines.append(
                (
                    panel.label,
                    f"{min(beta):.3f}",
                    f"{sorted(beta)[count // 2]:.3f}",
                    f"{fitted.slope:.3g} [{fitted.low:.3g}, {fitted.high:.3g}]",
                    "n/a" if panel.method == "adam" else Rate(sum(map(bool, holds)), count),
                    Rate(sum(falls), count),
                )
            )
            panels.append(
                Cloud(
                    panel.label,
                    f"min cocoercivity, k <= {panel.middle}",
                    f"|z_{panel.middle} - z_inf|",
                    tuple(beta),
                    tuple(left),
                    tuple(error),
                    "NMSE of z_inf (dB)",
                    (fitted.slope, fitted.intercept),
                )
            )
            advance()
    return Findings(
        "cocoercivity",
        BENCHMARKS["cocoercivity"].question,
        tuple(rows),
        (
            Table(
                "Cocoercivity along the path",
                (
                    "method",
                    "smallest beta",
                    "median beta",
                    "slope [95 %]",
                    "theorem's condition holds",
                    "distance fell",
                ),
                tuple(lines),
                "Slope: least squares of the remaining distance on beta, with a bootstrap interval. 'distance fell': "
                "|z_k - z_inf| never grew, as the theorems state. z_inf is the last point of the path, not the true latent.",
            ),
        ),
        (
            Figure(
                "Cocoercivity and convergence",
                tuple(panels),
                "As figure 3 of Hong et al. 2024. Each point is an image; red: least squares.",
            ),
        ),
        seeds=f"{first} onwards",
        count=str(count),
    )


def _plan(quick: bool) -> tuple[_Panel, ...]:
    middle, last = (5, 15) if quick else (100, 300)
    slow = 0.1 if quick else 0.01
    free = {name: unstopped(settings) for name, settings in DEFAULTS.items()}
    return (
        _Panel(f"forward-step, rho {slow:g}", "forward-step", replace(free["forward-step"], step=slow), middle, last),
        _Panel(
            f"inertial-km, rho {slow:g}, alpha .3",
            "inertial-km",
            replace(free["inertial-km"], step=slow, momentum=0.3),
            middle,
            last,
        ),
        _Panel("adam .01 scheduled", "adam", free["adam"], *((5, 15) if quick else (25, 50))),
    )


def _condition(method: str, rho: float, alpha: float, beta: float) -> bool | None:
    """Return whether the theorem's condition holds with the cocoercivity of this path; None where there is no theorem."""
    if method == "forward-step":
        return 0 < rho < 2 * beta
    if method == "inertial-km":
        return beta > 0 and rho / (2 * beta) * (1 - alpha + 2 * alpha**2) < (1 - alpha) ** 2
    return None


def _measure(
    model: LatentModel, pixels: torch.Tensor, latent: torch.Tensor, panel: _Panel
) -> tuple[list[float], list[float], list[float], list[bool]]:
    """Return per image: min cocoercivity, remaining distance, error of the limit, and whether the distance never grew."""
    import torch

    answers: tuple[list[float], list[float], list[float], list[bool]] = ([], [], [], [])
    for first in range(0, len(pixels), _BATCH):
        part = slice(first, first + _BATCH)
        points: list[torch.Tensor] = []
        values: list[torch.Tensor] = []

        def encode(image: torch.Tensor, seen: list[torch.Tensor] = values) -> torch.Tensor:
            seen.append(model.encode(image).clone())  # E(x) first, then E(D(z_k)) for each k
            return seen[-1]

        def watch(k: int, rows: torch.Tensor, z: torch.Tensor, path: list[torch.Tensor] = points) -> None:
            path.append(z.clone())

        settings = replace(panel.settings, iterations=panel.last)
        invert(Problem(pixels[part], encode, model.decode, watch=watch), panel.method, settings)
        path = torch.stack(points).flatten(2).double()
        mapped = torch.stack(values[1:]).flatten(2).double()
        ahead, image = path[-1] - path[:-1], mapped[-1] - mapped[:-1]
        beta = (image * ahead).sum(2) / image.square().sum(2).clamp_min(1e-30)
        left = ahead.norm(dim=2)
        answers[0].extend(beta[: panel.middle + 1].min(dim=0).values.tolist())
        answers[1].extend(left[panel.middle].tolist())
        answers[2].extend(decibels(points[-1], latent[part]).tolist())
        answers[3].extend((left.diff(dim=0) <= 1e-6 * left[:-1]).all(dim=0).tolist())
    return answers
