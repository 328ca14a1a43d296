"""Error of every decoder inversion relative to its start, on an autoencoder that no setting was tuned on."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from treering_detectors import Rate, mean

from treering_verify.benchmark.catalogue import BENCHMARKS
from treering_verify.benchmark.harness.inversion_methods import BASELINE, OURS, Variant, attacked, own, stages_of
from treering_verify.benchmark.harness.inversion_paths import follow
from treering_verify.benchmark.harness.scope import CLEAN, SEEDS, Scope, truth
from treering_verify.inversion.decoder import DEFAULTS
from treering_verify.models import LatentModel, load_model
from treering_verify.report.findings import Cell, Findings, Table

if TYPE_CHECKING:
    from treering_verify.benchmark.harness.inversion_paths import Path

ATTACKS = (CLEAN, "jpeg:quality=50", "jpeg:quality=25", "noise:sigma=0.05", "blur:radius=1")
TOLERANCE = 0.1  # dB that an error may lie above its start
_OTHER = {"landscape": "landscape-tiny"}


def measure(model: LatentModel, scope: Scope) -> Findings:
    """Invert images of the held-out autoencoder (of the given model if it has none), and compare results with starts."""
    if model.name in _OTHER:
        model = load_model(_OTHER[model.name])
    count, first = scope.images(4, 32), SEEDS["heldout"]
    known = truth(model, None, range(first, first + count))
    names, refined, stages = ATTACKS[:2] if scope.quick else ATTACKS, model.refine is not None, stages_of(model)
    tried = _tried(3, refined, stages, most=20) if scope.quick else _tried(20, refined, stages)
    rows: list[dict[str, Any]] = []
    lines: list[tuple[Cell, ...]] = []
    with scope.progress("Methods", len(names) * len(tried)) as advance:
        for name in names:
            pixels = known.pixels(name)
            start: list[float] = []
            for variant in tried:
                path = follow(model, pixels, known.latent, variant.method, variant.settings, budgets=variant.budgets)
                start = start or path.error[-1].tolist()  # the encoder comes first
                lines.append(_line(name, variant, path, start, rows))
                advance()
    return Findings(
        "heldout",
        BENCHMARKS["heldout"].question,
        tuple(rows),
        (
            Table(
                "Error relative to the encoder's start, on a held-out autoencoder",
                (
                    "attack",
                    "method",
                    "safeguards",
                    "NMSE (dB)",
                    "above the start (dB)",
                    "worst image (dB)",
                    f"above it by > {TOLERANCE} dB",
                ),
                tuple(lines),
                "Negative is better. 'full': default settings, with early stopping by parametric bootstrap. 'residual "
                "only': stopped by the budget alone, as published; the iterate with the smallest residual is returned."
                + (" 'filtered': by filters that were fitted to other images of this model." if stages else ""),
            ),
        ),
        seeds=f"{first} onwards",
        count=f"{count} per line",
        model=model.name,
    )


def _tried(longest: int, refined: bool, stages: int, *, most: int = 1000) -> list[Variant]:
    """Return every method with default settings, of at most so many iterations, and the published ones without stopping."""
    ours = [v for v in attacked(longest, refined=refined, stages=stages) if v.family in (BASELINE, OURS)]
    defaults = [
        Variant(m, OURS, m, replace(DEFAULTS[m], iterations=budget), (budget,))
        for m in ("inertial-km", "adam", "gradient", "gauss-newton")
        for budget in (min(DEFAULTS[m].iterations, most),)
    ]
    free = [v for v in attacked(longest, refined=refined, stages=stages) if v.family not in (BASELINE, OURS)]
    return [
        *ours,
        *defaults,
        *free,
        *[v for v in own(longest, refined=refined, stages=stages) if v.method == "anderson"],
    ]


def _line(
    attack: str, variant: Variant, path: Path, start: list[float], rows: list[dict[str, Any]]
) -> tuple[Cell, ...]:
    error = path.error[-1].tolist()
    above = [e - s for e, s in zip(error, start, strict=True)]
    full = variant.settings.early_stopping or variant.family == BASELINE
    rows += [
        {
            "attack": attack,
            "method": variant.label,
            "safeguards": full,
            "image": i,
            "steps": int(path.steps[i]),
            "nmse_db": error[i],
            "above_start_db": above[i],
        }
        for i in range(len(error))
    ]
    return (
        attack,
        variant.label,
        "full" if full else "residual only",
        mean(error),
        mean(above),
        f"{max(above):+.2f}",
        Rate(sum(a > TOLERANCE for a in above), len(above)),
    )
