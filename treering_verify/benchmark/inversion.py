"""Decoder inversions compared: error, iterations, time and memory on clean images, then error and evidence under attack."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

from detectors import mean
from treering_verify import noise_inversion
from treering_verify.benchmark.memory import peak_memory
from treering_verify.benchmark.paths import Path, follow
from treering_verify.benchmark.published import INVERSION, SOURCE
from treering_verify.benchmark.scope import CLEAN, SEEDS, Scope, truth
from treering_verify.benchmark.variants import Variant, own, published
from treering_verify.decoder_inversion import DEFAULTS, METHODS
from treering_verify.findings import Cell, Findings, Table
from treering_verify.key import Key
from treering_verify.models import LatentModel
from treering_verify.verification import weigh

if TYPE_CHECKING:
    import torch

ATTACKS = (
    "jpeg:quality=90",
    "jpeg:quality=75",
    "jpeg:quality=50",
    "jpeg:quality=25",
    "noise:sigma=0.05",
    "blur:radius=1",
)
_SINGLE = 2  # images timed one by one


def inversion(model: LatentModel, scope: Scope) -> Findings:
    """Table 1 / S1 of Hong et al. 2024 on this model, with every method of ours, and the same under attack."""
    count, first = scope.images(4, 100), SEEDS["inversion"]
    longest = 10 if scope.quick else 100
    key = Key.generate(model.latent_shape, seed=first)
    known = truth(model, key, range(first, first + count))
    clean = known.pixels()
    refined = model.refine is not None
    methods = [method for method in METHODS if refined or method != "learned"]
    variants = [*published(longest), *own(longest, refined=refined)]
    attacks = ATTACKS[2:4] if scope.quick else ATTACKS
    rows: list[dict[str, Any]] = []
    with scope.progress("Methods", len(variants) + len(attacks) * len(methods)) as advance:
        lines: list[tuple[Cell, ...]] = []
        for variant in variants:
            path = follow(model, clean, known.latent, variant.method, variant.settings, budgets=variant.budgets)
            single = follow(model, clean[:_SINGLE], known.latent[:_SINGLE], variant.method, variant.settings, batch=1)
            peak = peak_memory(model.name, clean[:1], variant.method, variant.settings)
            for budget in variant.budgets:
                lines.append(_clean_line(model, key, variant, budget, path, single, peak.tensors, peak.resident, rows))
            advance()
        attacked: list[tuple[Cell, ...]] = []
        for name in attacks:
            pixels = known.pixels(name)
            for method in methods:
                path = follow(
                    model, pixels, known.latent, method, DEFAULTS[method], budgets=(DEFAULTS[method].iterations,)
                )
                (latent,) = path.latents.values()
                log10, cosine = _evidence(model, latent, key)
                error = path.error[-1].tolist()
                rows += [
                    {
                        "attack": name,
                        "method": method,
                        "family": "",
                        "iterations": int(path.steps[i]),
                        "image": i,
                        "nmse_db": error[i],
                        "log10_pvalue": log10[i],
                        "cosine": cosine[i],
                        "seconds": None,
                    }
                    for i in range(count)
                ]
                steps = float(path.steps.double().mean())
                attacked.append(
                    (
                        name,
                        method,
                        f"{steps:.1f}",
                        mean(error),
                        f"{statistics.fmean(cosine):.3f}",
                        f"{statistics.median(log10):.1f}",
                        f"{max(log10):.1f}",
                    )
                )
                advance()
    tables = [
        Table(
            "Clean images: error of z_0 by method and iterations",
            (
                "method",
                "family",
                "iterations",
                "NMSE (dB)",
                "s/image, batch 1",
                "s/image, batch 16",
                "peak tensors (MiB)",
                "peak resident (MiB)",
                "cosine",
                "median log10 p",
            ),
            tuple(lines),
            "NMSE: mean and 95 % interval. Time includes the evaluation of the last point, after warm-up; memory is of one "
            "image in a fresh process, beyond the loaded model. Cosine and p: the key in the noise behind the latent.",
        ),
        Table(
            "Attacked images: every method with its default settings",
            ("attack", "method", "steps kept", "NMSE (dB)", "cosine", "median log10 p", "largest log10 p"),
            tuple(attacked),
            "The published methods run without the overfit stop, as published, where their step allows no other.",
        ),
        *_beside(lines),
    ]
    return Findings(
        "inversion",
        "How near does each decoder inversion come to the latent that was decoded, how fast, and in how much memory?",
        tuple(rows),
        tuple(tables),
        seeds=f"{first} onwards, one key",
        count=f"{count} per line",
    )


def _clean_line(
    model: LatentModel,
    key: Key,
    variant: Variant,
    budget: int,
    path: Path,
    single: Path,
    tensors: float,
    resident: float,
    rows: list[dict[str, Any]],
) -> tuple[Cell, ...]:
    """One line of the first table, and its rows."""
    k = min(budget, len(path.error) - 1)
    error = path.error[k].tolist()
    log10, cosine = _evidence(model, path.latents[budget], key)
    seconds = [float(p.seconds[min(k, len(p.seconds) - 1)]) for p in (single, path)]
    rows += [
        {
            "attack": CLEAN,
            "method": variant.label,
            "family": variant.family,
            "iterations": budget,
            "image": i,
            "nmse_db": error[i],
            "log10_pvalue": log10[i],
            "cosine": cosine[i],
            "seconds": seconds[0],
        }
        for i in range(len(error))
    ]
    return (
        variant.label,
        variant.family,
        budget,
        mean(error),
        f"{seconds[0]:.3f}",
        f"{seconds[1]:.3f}",
        f"{tensors:.1f}",
        f"{resident:.0f}",
        f"{statistics.fmean(cosine):.3f}",
        f"{statistics.median(log10):.1f}",
    )


def _evidence(model: LatentModel, latent: torch.Tensor, key: Key) -> tuple[list[float], list[float]]:
    """log10 p and cosine of the key in the noise behind each latent, by the default noise inversion."""
    import torch

    found = []
    for part in latent.split(16):
        with torch.inference_mode():
            found += weigh(noise_inversion.invert(model, part), [key])
    return [e[0].log10_pvalue for e in found], [e[0].statistic for e in found]


def _beside(lines: list[tuple[Cell, ...]]) -> list[Table]:
    """Set published figures beside ours, for the methods and budgets that both have."""
    ours = {(line[0], line[2]): (line[3], line[4]) for line in lines}
    shown: list[tuple[Cell, ...]] = []
    for method, budgets in INVERSION.items():
        for budget, (error, half, seconds) in budgets.items():
            if (method, budget) in ours:
                mine, time = ours[method, budget]
                shown.append((method, budget, f"{error:.2f} +- {half:.2f}", f"{seconds:.2f}", mine, time))
    if not shown:
        return []
    table = Table(
        "The paper's table 1 / S1",
        ("method", "iterations", "published NMSE (dB)", "published s", "ours NMSE (dB)", "ours s/image"),
        tuple(shown),
        f"Published: {SOURCE}. Another model on another machine: compare the columns' shape, not their numbers.",
    )
    return [table]
