"""Evidence against the strength of each attack: curves, and the strength up to which each pattern is detected."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from treering_verify.benchmark.harness.conditions import Scale
from treering_verify.benchmark.harness.rates import STRICT, Series
from treering_verify.benchmark.harness.trials import EXACT, SEARCHED
from treering_verify.benchmark.robustness.measurements import Measurements
from treering_verify.benchmark.robustness.tables import CELLS, cells, series_of
from treering_verify.report.findings import Cell, Curve, Curves, Figure, Table

HOLDS = 0.9
"""Share of marked images that must have p <= 1e-6 for a pattern to count as detected."""


def held_table(found: Measurements, curves: Sequence[Scale], patterns: Sequence[str]) -> Table:
    """Return the strongest attack up to which each pattern is detected, the first at which it fails, and both rates."""
    lines: list[tuple[Cell, ...]] = []
    for scale in curves:
        for pattern in patterns:
            for detector in (EXACT, SEARCHED):
                some = _along(found, scale, pattern, detector)
                if not some:
                    continue
                rates = [one.tpr(STRICT) for one in some]
                failed = next((i for i, rate in enumerate(rates) if rate is not None and rate.value < HOLDS), len(some))
                held = (_strength(scale, failed - 1), rates[failed - 1]) if failed else ("none", None)
                lost = (_strength(scale, failed), rates[failed]) if failed < len(some) else ("none", None)
                lines.append((scale.name, pattern, detector, *held, *lost))
    return Table(
        "Strength up to which each pattern is detected",
        ("attack", "pattern", "detector", "detected up to", "p <= 1e-6 there", "first fails at", "p <= 1e-6 there"),
        tuple(lines),
        f"Detected: at least {100 * HOLDS:.0f} % of the marked images have p <= 1e-6, at this strength and all lower ones. "
        "Strengths are those of attacks.GRIDS.",
    )


def strength_table(found: Measurements, curves: Sequence[Scale], patterns: Sequence[str]) -> Table:
    """Return the rates at every strength."""
    lines = [
        (condition.attack, pattern, detector, *cells(one, detector))
        for scale in curves
        for condition in scale.conditions
        for pattern in patterns
        for detector in (EXACT, SEARCHED)
        for one in [series_of(found, pattern, condition.attack, detector)]
        if one is not None
    ]
    return Table("By attack and strength", ("attack", "pattern", "detector", *CELLS), tuple(lines))


def figures(found: Measurements, curves: Sequence[Scale], patterns: Sequence[str]) -> tuple[Figure, ...]:
    """Return a figure for each attack: the share with p <= 1e-6 and the median log10 p against the strength."""
    drawn = []
    for scale in curves:
        if len(scale.values) < 2:
            continue
        shares, medians = [], []
        for pattern in patterns:
            for detector in (EXACT, SEARCHED):
                some = _along(found, scale, pattern, detector)
                if not some:
                    continue
                label = pattern if detector == EXACT else f"{pattern}, with search"
                rates = tuple(rate.value if (rate := one.tpr(STRICT)) else float("nan") for one in some)
                shares.append(Curve(label, scale.values, rates, dashed=detector == SEARCHED, group=pattern))
                median = tuple(-float(np.median(one.marked)) for one in some)
                medians.append(Curve(label, scale.values, median, dashed=detector == SEARCHED, group=pattern))
        wide = min(scale.values) > 0 and max(scale.values) / min(scale.values) > 20
        drawn.append(
            Figure(
                f"Attack {scale.name}",
                (
                    Curves(
                        "Marked images detected", scale.parameter, "share with p <= 1e-6", tuple(shares), log_x=wide
                    ),
                    Curves("Evidence", scale.parameter, "median log10 p", tuple(medians), log_x=wide),
                ),
                "Marked images only, each under its own key.",
            )
        )
    return tuple(drawn)


def _along(found: Measurements, scale: Scale, pattern: str, detector: str) -> list[Series]:
    """Return the scores at every strength; an empty list if one was not measured."""
    some = [series_of(found, pattern, condition.attack, detector) for condition in scale.conditions]
    known = [one for one in some if one is not None]
    return known if len(known) == len(some) else []


def _strength(scale: Scale, position: int) -> str:
    return f"{scale.parameter} {scale.values[position]:g}".strip() if scale.parameter else "yes"
