"""Background error of edits after each decoder inversion, and its time (Hong et al. 2024, the editing figure)."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from treering_detectors import mean

from treering_verify.benchmark.catalogue import BENCHMARKS
from treering_verify.benchmark.harness.scope import SEEDS, Scope, truth
from treering_verify.generation.editing import DEFAULT_GUIDANCE, DEFAULT_STEPS, DEFAULT_STRENGTH, repaint
from treering_verify.inversion.decoder import DEFAULTS, Settings, invert, unstopped
from treering_verify.inversion.recovery import problem_of
from treering_verify.models import Condition, LatentModel
from treering_verify.report.findings import Cell, Curve, Curves, Figure, Findings, Table

_BATCH = 16


def measure(model: LatentModel, scope: Scope) -> Findings:
    """Repaint a disc in the middle of images as the next class, and compare the background with the original.

    Pixels within four latent cells of the mask are left out: there the decoder mixes both sides.
    """
    import torch

    count, first = scope.images(4, 48), SEEDS["editing"]
    known = truth(model, None, range(first, first + count))
    pixels = known.pixels()
    _, height, width = model.latent_shape
    y, x = torch.meshgrid(torch.arange(height) - (height - 1) / 2, torch.arange(width) - (width - 1) / 2, indexing="ij")
    distance = torch.hypot(y, x)
    inside = (distance < height / 6)[None, None]
    scale = pixels.shape[-1] // width
    outside = (distance > height / 6 + 4).float()[None, None]
    background = torch.nn.functional.interpolate(outside, scale_factor=scale) > 0
    names = model.classes
    prompts: list[Condition] = [names[(s + 1) % len(names)] if names else None for s in range(first, first + count)]
    rows: list[dict[str, Any]] = []
    lines: list[tuple[Cell, ...]] = []
    points: dict[str, list[tuple[float, float]]] = {}
    steps = 5 if scope.quick else DEFAULT_STEPS
    plan = _plan(scope.quick, refined=model.refine is not None)
    with scope.progress("Methods", len(plan)) as advance:
        for label, method, settings in plan:
            invert(
                problem_of(model, pixels[:1]), method, replace(settings, iterations=min(1, settings.iterations))
            )  # warm-up
            edited, seconds = [], 0.0
            for start in range(0, count, _BATCH):
                part = slice(start, start + _BATCH)
                begun = time.perf_counter()
                latent = invert(problem_of(model, pixels[part]), method, settings).latent
                seconds += time.perf_counter() - begun
                latent = repaint(model, latent, inside, prompts[part], steps=steps)
                with torch.inference_mode():
                    edited.append(model.decode(latent).clamp(-1, 1))
            error = ((torch.cat(edited) - pixels) * background).flatten(1).norm(dim=1)
            decibels = 20 * torch.log10(error / (pixels * background).flatten(1).norm(dim=1))
            for i, value in enumerate(decibels.tolist()):
                rows.append(
                    {"method": label, "iterations": settings.iterations, "image": i, "background_nmse_db": value}
                )
            average = mean(decibels.tolist())
            lines.append((label, settings.iterations, f"{seconds / count:.3f}", average))
            points.setdefault(label, []).append((seconds / count, average.value))
            advance()
    curves = tuple(Curve(k, tuple(s for s, _ in v), tuple(e for _, e in v)) for k, v in points.items())
    return Findings(
        "editing",
        BENCHMARKS["editing"].question,
        tuple(rows),
        (
            Table(
                "Background error of edited images",
                ("method", "iterations", "s / image (inversion)", "NMSE outside the mask (dB)"),
                tuple(lines),
                f"A disc is repainted as the next class, with {steps} DDIM steps, strength {DEFAULT_STRENGTH:g}, guidance "
                f"{DEFAULT_GUIDANCE:g}. Mean and 95 % interval. Published methods run without early stopping.",
            ),
        ),
        (Figure("Background error against time", (Curves("clean", "s / image", "NMSE (dB)", curves, log_x=True),)),),
        seeds=f"{first} onwards",
        count=str(count),
    )


def _plan(quick: bool, *, refined: bool) -> list[tuple[str, str, Settings]]:
    """Return label, method and settings of every inversion; the published ones run without early stopping."""
    plan = [("encoder", "encoder", DEFAULTS["encoder"])]
    budgets = {"forward-step": (1, 3, 10), "anderson": (3, 10), "adam": (20, 50), "gradient": (5, 20, 50)}
    for method, many in budgets.items():
        for n in (2,) if quick else many:
            plan.append((method, method, replace(unstopped(DEFAULTS[method]), iterations=n)))
    if refined:
        for n in (2,) if quick else (1, 2, 3):
            plan.append(("learned", "learned", replace(DEFAULTS["learned"], iterations=n)))
        n = 2 if quick else 20
        plan.append(("posterior-mode", "posterior-mode", replace(DEFAULTS["posterior-mode"], iterations=n)))
    return plan
