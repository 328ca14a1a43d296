"""Cocoercivity of the residual along the path and the remaining distance to the limit (Hong et al. 2024, figure 3)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from treering_detectors import Line, Rate, fit_line

from treering_verify.benchmark.catalogue import BENCHMARKS
from treering_verify.benchmark.harness.cache import cached
from treering_verify.benchmark.harness.inversion_methods import compared_precision
from treering_verify.benchmark.harness.inversion_paths import decibels
from treering_verify.benchmark.harness.laboratory import Laboratory, chunks, seeds
from treering_verify.benchmark.harness.scope import Scope
from treering_verify.inversion.decoder import DEFAULTS, Settings, in_precision, invert, unstopped
from treering_verify.inversion.recovery import problem_of
from treering_verify.models import LatentModel
from treering_verify.report.findings import Cell, Cloud, Figure, Findings, Table
from treering_verify.version import __version__

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

SHORTER = 10
"""A quick run takes steps of so many times the length, and so many times fewer: it goes as far along the same path."""


@dataclass(frozen=True)
class Panel:
    """A method, the step whose iterate is taken as the limit (`last`), and the number of steps examined (`middle`)."""

    label: str
    method: str
    settings: Settings
    middle: int
    last: int
    precision: str = "float32"
    published: bool = True  # whether these are the paper's settings


@dataclass(frozen=True, eq=False)
class Paths:
    """What one panel's paths show, a number an image: smallest beta, distance left, error of the limit, monotony.

    Attributes
    ----------
    panel : Panel
    beta : list of float
        min over k <= middle of <T z_inf - T z_k, z_inf - z_k> / |T z_inf - T z_k|^2; infinite for a path that does not move.
    left : list of float
        |z_middle - z_inf|.
    error : list of float
        NMSE of z_inf in dB.
    falls : list of bool
        Whether |z_k - z_inf| never grew.
    """

    panel: Panel
    beta: list[float]
    left: list[float]
    error: list[float]
    falls: list[bool]

    @property
    def line(self) -> Line | None:
        """Least-squares line of the distance left on beta; None where fewer than three points differ."""
        known = [(b, d) for b, d in zip(self.beta, self.left, strict=True) if np.isfinite(b)]
        beta, left = [b for b, _ in known], [d for _, d in known]
        return fit_line(beta, left) if len(beta) > 2 and np.ptp(beta) > 0 else None

    @property
    def holds(self) -> Rate | None:
        """How many paths satisfy the theorem's condition with their own beta; None where there is no theorem."""
        alpha, rho = self.panel.settings.momentum, self.panel.settings.step
        found = [_condition(self.panel.method, rho, alpha, b) for b in self.beta]
        return None if None in found else Rate(sum(map(bool, found)), len(found))


def measure(model: LatentModel, scope: Scope) -> Findings:
    """Measure beta along each path and check the theorems' conditions with it.

    With T = E D - E(x) and z_inf the path's end, beta = min over k of <T z_inf - T z_k, z_inf - z_k> / |T z_inf - T z_k|^2.
    Theorem 1 (forward-step) asks for 0 < rho < 2 beta; theorem 2 (inertial KM, rho = 2 lambda beta) for
    lambda (1 - alpha + 2 alpha^2) < (1 - alpha)^2.
    """
    count = scope.images(6, 32)
    lab = Laboratory.open(model, scope, count)
    found = panels(lab, scope)
    return Findings(
        "cocoercivity",
        BENCHMARKS["cocoercivity"].question,
        tuple(
            {
                "method": one.panel.label,
                "published_setting": one.panel.published,
                "image": i,
                "min_cocoercivity": one.beta[i],
                "distance_left": one.left[i],
                "nmse_db": one.error[i],
                "distance_fell": one.falls[i],
            }
            for one in found
            for i in range(count)
        ),
        (cocoercivity_table(found),),
        (cocoercivity_figure(found),),
        seeds=f"{seeds(count).start} onwards, one key",
        count=str(count),
    )


def panels(lab: Laboratory, scope: Scope, *, published: bool = False) -> list[Paths]:
    """Return every panel's paths on the laboratory's images, each part of which is cached; or those of the paper only."""
    plan = _plan(scope.quick, compared_precision(lab.model, scope))
    plan = tuple(panel for panel in plan if panel.published) if published else plan
    parts = chunks(len(lab.known.images), lab.model)
    found = []
    with scope.progress("Paths", len(plan) * len(parts)) as advance:
        for panel in plan:
            gathered: dict[str, list[Any]] = {}
            for part in parts:
                facts = (lab.weights, __version__, part, panel)
                arrays = cached(scope.folder, "cocoercivity", facts, partial(_measure, lab, part, panel))
                for name, array in arrays.items():
                    gathered.setdefault(name, []).extend(array.tolist())
                advance()
            found.append(Paths(panel, **gathered))
    return found


def cocoercivity_table(found: list[Paths]) -> Table:
    """Return the panels as a table."""
    lines: list[tuple[Cell, ...]] = []
    for one in found:
        line = one.line
        slope = f"{line.slope:.3g} [{line.low:.3g}, {line.high:.3g}]" if line else None
        middle = sorted(one.beta)[len(one.beta) // 2]
        lines.append(
            (
                one.panel.label,
                "published" if one.panel.published else "ours",
                f"{one.panel.middle} of {one.panel.last}",
                f"{min(one.beta):.3f}",
                f"{middle:.3f}",
                slope,
                one.holds if one.holds is not None else "no theorem",
                Rate(sum(one.falls), len(one.falls)),
                f"{sum(one.error) / len(one.error):.1f}",
            )
        )
    return Table(
        "Cocoercivity along the path",
        (
            "method",
            "setting",
            "steps examined",
            "smallest beta",
            "median beta",
            "slope [95 %]",
            "theorem's condition holds",
            "distance fell",
            "NMSE of z_inf (dB)",
        ),
        tuple(lines),
        "Slope: least squares of the remaining distance on beta, with a bootstrap interval. 'distance fell': |z_k - z_inf| "
        "never grew, as the theorems state. z_inf is the last point of the path, not the true latent. Published setting: "
        "rho "
        f".001, alpha .9 for KM, 100 of 300 steps, Adam 50 steps in 16 bits; a quick run takes steps of {SHORTER} times the "
        f"length and {SHORTER} times fewer.",
    )


def cocoercivity_figure(found: list[Paths]) -> Figure:
    """Draw a cloud of points a panel, with its least-squares line."""
    clouds = []
    for one in found:
        line, middle = one.line, one.panel.middle
        shown = [i for i, b in enumerate(one.beta) if np.isfinite(b)]
        slope = f"\nslope {line.slope:.2g} [{line.low:.2g}, {line.high:.2g}]" if line else ""
        clouds.append(
            Cloud(
                one.panel.label + slope,
                f"min cocoercivity, k <= {middle}",
                f"|z_{middle} - z_inf|",
                tuple(one.beta[i] for i in shown),
                tuple(one.left[i] for i in shown),
                tuple(one.error[i] for i in shown),
                "NMSE of z_inf (dB)",
                (line.slope, line.intercept) if line else None,
            )
        )
    return Figure(
        "Cocoercivity and convergence",
        tuple(clouds),
        "As figure 3 of Hong et al. 2024. Each point is an image; red: least squares, which falls in every panel of the "
        "paper "
        "(it prints no slope). Colour: the error of the path's end, which the theorems say nothing of.",
    )


def _plan(quick: bool, sixteen: str) -> tuple[Panel, ...]:
    free = {name: unstopped(settings) for name, settings in DEFAULTS.items()}
    scale = SHORTER if quick else 1
    middle, last = 100 // scale, 300 // scale
    adam = (10, 20) if quick else (25, 50)

    def forward(rho: float, published: bool) -> Panel:
        settings = replace(free["forward-step"], step=rho, iterations=last)
        return Panel(f"forward-step, rho {rho:g}", "forward-step", settings, middle, last, published=published)

    def inertial(rho: float, alpha: float, published: bool) -> Panel:
        settings = replace(free["inertial-km"], step=rho, momentum=alpha, iterations=last)
        label = f"inertial-km, rho {rho:g}, alpha {alpha:g}"
        return Panel(label, "inertial-km", settings, middle, last, published=published)

    theirs = (
        forward(0.001 * scale, True),
        inertial(0.001 * scale, 0.9, True),
        Panel(
            f"adam .01 scheduled{', 16-bit' if sixteen else ''}",
            "adam",
            replace(free["adam"], iterations=adam[1]),
            *adam,
            sixteen or "float32",
            published=bool(sixteen),
        ),
    )
    return theirs if quick else (*theirs, forward(0.01, False), inertial(0.01, 0.3, False))


def _condition(method: str, rho: float, alpha: float, beta: float) -> bool | None:
    """Return whether the theorem's condition holds with the cocoercivity of this path; None where there is no theorem."""
    if method == "forward-step":
        return 0 < rho < 2 * beta
    if method == "inertial-km":
        return beta > 0 and rho / (2 * beta) * (1 - alpha + 2 * alpha**2) < (1 - alpha) ** 2
    return None


def _filled(before: list[torch.Tensor], rows: torch.Tensor | None, found: torch.Tensor) -> torch.Tensor:
    """Return the tensors of all images, where only `rows` of them are still iterated."""
    if rows is None or not before or len(rows) == len(before[-1]):
        return found.clone()
    whole = before[-1].clone()
    whole[rows] = found
    return whole


def _measure(lab: Laboratory, part: range, panel: Panel) -> dict[str, NDArray[Any]]:
    """Return per image: min cocoercivity, remaining distance, error of the limit, and whether the distance never grew."""
    import torch

    known = lab.known.part(part)
    points: list[torch.Tensor] = []
    values: list[torch.Tensor] = []  # E(x) first, then E(D(z_k)) for each k
    going: list[torch.Tensor] = []
    problem = in_precision(problem_of(lab.model, known.pixels()), panel.precision)

    def encode(image: torch.Tensor) -> torch.Tensor:
        found = problem.encode(image).clone()
        values.append(_filled(values, going[-1] if going else None, found))
        return found

    def watch(k: int, rows: torch.Tensor, z: torch.Tensor) -> None:
        going.append(rows)
        points.append(_filled(points, rows, z))

    invert(replace(problem, encode=encode, watch=watch), panel.method, panel.settings)
    missing = panel.last + 1 - len(points)  # where every image was solved exactly before the end
    path = torch.stack([*points, *points[-1:] * missing]).flatten(2).double()
    mapped = torch.stack([*values[1:], *values[-1:] * missing]).flatten(2).double()
    ahead, image = path[-1] - path[:-1], mapped[-1] - mapped[:-1]
    moved = image.square().sum(2)
    beta = torch.where(moved > 0, (image * ahead).sum(2) / moved.clamp_min(1e-30), torch.inf)
    left = ahead.norm(dim=2)
    return {
        "beta": beta[: panel.middle + 1].min(dim=0).values.numpy(),
        "left": left[panel.middle].numpy(),
        "error": decibels(points[-1], known.latent).numpy(),
        "falls": (left.diff(dim=0) <= 1e-6 * left[:-1]).all(dim=0).numpy(),
    }
