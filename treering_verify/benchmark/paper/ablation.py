"""Optimiser, step schedule and iterations of decoder inversion, without early stopping (Hong et al. 2024, table S2)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from treering_detectors import mean

from treering_verify.benchmark.catalogue import BENCHMARKS
from treering_verify.benchmark.harness.inversion_paths import follow
from treering_verify.benchmark.harness.scope import SEEDS, Scope, truth
from treering_verify.benchmark.paper.published_figures import ABLATION, SOURCE
from treering_verify.inversion.decoder import DEFAULTS, Settings, unstopped
from treering_verify.models import LatentModel
from treering_verify.report.findings import Cell, Curve, Curves, Figure, Findings, Table


def measure(model: LatentModel, scope: Scope) -> Findings:
    """Run every optimiser with fixed steps, read along one run, and with scheduled steps, one run for each budget."""
    count, first = scope.images(2, 32), SEEDS["ablation"]
    budgets = (5, 10) if scope.quick else (20, 30, 50, 100)
    known = truth(model, None, range(first, first + count))
    pixels = known.pixels()
    rows: list[dict[str, Any]] = []
    lines: list[tuple[Cell, ...]] = []
    curves = []
    plan = _plan()
    with scope.progress("Optimisers", len(plan)) as advance:
        for label, (method, settings) in plan.items():
            errors = {}
            if settings.scheduled:
                for n in budgets:
                    path = follow(model, pixels, known.latent, method, replace(settings, iterations=n))
                    errors[n] = path.error[-1].tolist()
            else:
                path = follow(model, pixels, known.latent, method, replace(settings, iterations=budgets[-1]))
                errors = {n: path.error[n].tolist() for n in budgets}
            rows += [
                {"optimiser": label, "iterations": n, "image": i, "nmse_db": error}
                for n, found in errors.items()
                for i, error in enumerate(found)
            ]
            means = {n: mean(found) for n, found in errors.items()}
            beside = ABLATION.get(label, {})
            lines.append((label, *means.values(), ", ".join(f"{n}: {e:.2f}" for n, e in beside.items())))
            curves.append(
                Curve(
                    label,
                    tuple(means),
                    tuple(m.value for m in means.values()),
                    tuple(m.half_width for m in means.values()),
                    dashed=settings.scheduled,
                )
            )
            advance()
    return Findings(
        "ablation",
        BENCHMARKS["ablation"].question,
        tuple(rows),
        (
            Table(
                "NMSE of z_0 (dB) by optimiser and iterations",
                ("optimiser", *(str(n) for n in budgets), "published, SD 2.1 (iterations: dB)"),
                tuple(lines),
                f"Mean and 95 % interval of the iterate with the smallest residual. Published: {SOURCE}, table S2.",
            ),
        ),
        (Figure("Error by iterations", (Curves("clean images", "iterations", "NMSE (dB)", tuple(curves)),)),),
        seeds=f"{first} onwards",
        count=str(count),
    )


def _plan() -> dict[str, tuple[str, Settings]]:
    free = {name: unstopped(settings) for name, settings in DEFAULTS.items()}
    return {
        "forward-step": ("forward-step", free["forward-step"]),
        "forward-step .5": ("forward-step", replace(free["forward-step"], step=0.5)),
        "inertial-km": ("inertial-km", free["inertial-km"]),
        "inertial-km alpha .9, rho .1": ("inertial-km", replace(free["inertial-km"], momentum=0.9, step=0.1)),
        "adam .01 scheduled": ("adam", free["adam"]),
        "adam .01 fixed": ("adam", replace(free["adam"], scheduled=False)),
        "adam .002 fixed": ("adam", replace(free["adam"], scheduled=False, step=0.002)),
        "anderson": ("anderson", free["anderson"]),
    }
