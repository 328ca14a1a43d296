"""Error of the noise estimate by noise inversion, steps, condition, and the guidance of the generation."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from treering_detectors import mean

from treering_verify.benchmark.catalogue import BENCHMARKS
from treering_verify.benchmark.harness.inversion_paths import decibels
from treering_verify.benchmark.harness.scope import SEEDS, Scope, truth
from treering_verify.detection.evidence import evidence_of
from treering_verify.inversion import noise as noise_inversion
from treering_verify.inversion.decoder import invert
from treering_verify.inversion.recovery import problem_of
from treering_verify.models import Condition, LatentModel
from treering_verify.report.findings import Cell, Findings, Table
from treering_verify.watermark.keys.key import Key

if TYPE_CHECKING:
    import torch

_PLAN = (
    *(("naive", steps) for steps in (0, 5, 10, 20, 50)),
    *(("heun", steps) for steps in (5, 25)),
    *(("exact", steps) for steps in (10, 50)),
)
_BATCH = 16


def measure(model: LatentModel, scope: Scope) -> Findings:
    """Invert true and recovered latents of images generated with guidance 1 and 3, with the true class or no condition."""
    import torch

    count, first = scope.images(4, 32), SEEDS["noise"]
    plan = (_PLAN[1], _PLAN[2], _PLAN[5]) if scope.quick else _PLAN
    plan = (*plan, *((method, noise_inversion.DEFAULT_STEPS) for method in noise_inversion.METHODS.added))
    key = Key.generate(model.latent_shape, seed=first)
    rows: list[dict[str, Any]] = []
    lines: list[tuple[Cell, ...]] = []
    with scope.progress("Inversions", 2 * 2 * 2 * len(plan)) as advance:
        for guidance in (1.0, 3.0):
            seeds = range(first, first + count)
            known = truth(model, key, seeds, guidance=guidance)
            classes: list[Condition] = [model.classes[s % len(model.classes)] if model.classes else None for s in seeds]
            pixels = known.pixels()
            solved = torch.cat([invert(problem_of(model, p)).latent for p in pixels.split(_BATCH)])
            for source, latent in (("true", known.latent), ("recovered", solved)):
                unconditional: list[Condition] = [None] * count
                for condition, conditions in (("class", classes), ("none", unconditional)):
                    for method, steps in plan:
                        started = time.perf_counter()
                        noise_hat = _invert(model, latent, method, steps, conditions)
                        seconds = (time.perf_counter() - started) / count
                        error = decibels(noise_hat, known.noise).tolist()
                        cosine = [e[0].statistic for e in evidence_of(noise_hat, [key])]
                        for i in range(count):
                            rows.append(
                                {
                                    "guidance": guidance,
                                    "latent": source,
                                    "condition": condition,
                                    "method": method,
                                    "steps": steps,
                                    "image": i,
                                    "error_db": error[i],
                                    "cosine": cosine[i],
                                    "seconds": seconds,
                                }
                            )
                        middle = sorted(cosine)[count // 2]
                        lines.append(
                            (guidance, source, condition, method, steps, mean(error), f"{middle:.3f}", f"{seconds:.3f}")
                        )
                        advance()
    return Findings(
        "noise",
        BENCHMARKS["noise"].question,
        tuple(rows),
        (
            Table(
                "Error of z_T",
                ("guidance", "latent", "condition", "method", "steps", "error (dB)", "median cosine", "s / image"),
                tuple(lines),
                "Error: 10 log10(|z - z_T|^2 / |z_T|^2), mean and 95 % interval. Images are generated with 50 DDIM steps; "
                "inversion always has guidance 1. 'recovered': by the default decoder inversion.",
            ),
        ),
        seeds=f"{first} onwards, one key",
        count=f"{count} per guidance",
    )


def _invert(
    model: LatentModel, latent: torch.Tensor, method: str, steps: int, conditions: list[Condition]
) -> torch.Tensor:
    import torch

    with torch.inference_mode():
        parts = [
            noise_inversion.invert(
                model, part, method, steps=steps, conditions=conditions[i * _BATCH : (i + 1) * _BATCH]
            )
            for i, part in enumerate(latent.split(_BATCH))
        ]
    return torch.cat(parts)
