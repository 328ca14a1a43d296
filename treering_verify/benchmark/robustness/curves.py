"""Strength against evidence: how far each pattern holds, and the curves."""

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
"""Share of marked images that has to reach p <= 1e-6 where a pattern is said to hold."""


def held_table(found: Measurements, curves: Sequence[Scale], patterns: Sequence[str]) -> Table:
    """Give the last strength of each attack before the first at which a pattern fails, and both rates."""
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
        "How far each pattern holds",
        ("attack", "pattern", "detector", "holds up to", "p <= 1e-6 there", "first fails at", "p <= 1e-6 there"),
        tuple(lines),
        f"Holds: at least {100 * HOLDS:.0f} % of the marked images have p <= 1e-6, there and at all lesser strengths. "
        "Strengths as attacks.GRIDS orders them.",
    )


def strength_table(found: Measurements, curves: Sequence[Scale], patterns: Sequence[str]) -> Table:
    """Every strength."""
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
    """Strength against the share with p <= 1e-6 and against the median of log10 p, a figure for each attack."""
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
                    Curves("Marked images found", scale.parameter, "share with p <= 1e-6", tuple(shares), log_x=wide),
                    Curves("Evidence", scale.parameter, "median log10 p", tuple(medians), log_x=wide),
                ),
                "Marked images only; each under a key of its own.",
            )
        )
    return tuple(drawn)


def _along(found: Measurements, scale: Scale, pattern: str, detector: str) -> list[Series]:
    """Scores at every strength; nothing if one was not measured."""
    some = [series_of(found, pattern, condition.attack, detector) for condition in scale.conditions]
    known = [one for one in some if one is not None]
    return known if len(known) == len(some) else []


def _strength(scale: Scale, position: int) -> str:
    return f"{scale.parameter} {scale.values[position]:g}".strip() if scale.parameter else "yes"
