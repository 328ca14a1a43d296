"""Error against time of all decoder inversions on clean images, and the area between the families' curves."""

from __future__ import annotations

import statistics
from typing import Any

import numpy as np
from numpy.typing import NDArray
from treering_detectors import mean

from treering_verify.benchmark.catalogue import BENCHMARKS
from treering_verify.benchmark.harness.inversion_methods import GRADIENT, GRADIENT_FREE, OURS
from treering_verify.benchmark.harness.laboratory import Laboratory, seeds
from treering_verify.benchmark.harness.scope import Scope
from treering_verify.benchmark.published_figures import SD, SOURCE, TABLE_1
from treering_verify.models import LatentModel
from treering_verify.report.findings import Cell, Curve, Curves, Figure, Findings, Table


def measure(model: LatentModel, scope: Scope) -> Findings:
    """Relate the laboratory's errors to the time of one image at a time, and compare the families' lower envelopes."""
    count, rounds = scope.images(4, 100), 1 if scope.quick else 5
    lab = Laboratory.open(model, scope, count)
    variants = lab.variants()
    rows: list[dict[str, Any]] = []
    points: dict[str, list[tuple[float, float]]] = {}
    drawn: dict[str, list[tuple[float, float]]] = {}
    with scope.progress("Methods", len(variants) + 1) as advance:
        clocks = lab.clock(variants, rounds, 1)
        advance()
        for variant in variants:
            path = lab.path(variant)
            chosen = [len(path.error) - 1] if variant.one_point else range(len(path.error))
            for k in chosen:
                seconds = statistics.median(clock.at(k) for clock in clocks[variant])
                error = mean(path.error[k].tolist()).value
                rows.append(
                    {"method": variant.label, "family": variant.family, "k": k, "seconds": seconds, "nmse_db": error}
                )
                drawn.setdefault(variant.label, []).append((seconds, error))
                points.setdefault(variant.family, []).append((seconds, error))
            advance()
    lines: list[tuple[Cell, ...]] = []
    for better, worse in ((GRADIENT_FREE, GRADIENT), (OURS, GRADIENT), (OURS, GRADIENT_FREE)):
        area, low, high = area_between(points[better], points[worse])
        lines.append((better, worse, f"{area:+.2f} dB", f"{low:.2f} to {high:.2f} s"))
    curves = tuple(
        Curve(label, tuple(s for s, _ in line), tuple(e for _, e in line), dashed=len(line) == 1)
        for label, line in drawn.items()
    )
    return Findings(
        "pareto",
        BENCHMARKS["pareto"].question,
        tuple(rows),
        (
            Table(
                "Area between the families' curves",
                ("family", "against", "lower by", "over"),
                tuple(lines),
                "Mean difference of the lowest error reached so far, over the logarithm of time, where both families have a "
                "result.",
            ),
        ),
        (
            Figure(
                "Error against time",
                (Curves("clean images", "s / image", "NMSE (dB)", (*curves, *_published(curves)), log_x=True),),
                "Lower and further left is better. A line is one method along its iterations, a point one that is read at "
                f"its end only. Hollow marks: published, {SOURCE}, another model on a GPU: compare their order alone.",
            ),
        ),
        seeds=f"{seeds(count).start} onwards, one key",
        count=str(count),
    )


def _published(curves: tuple[Curve, ...]) -> tuple[Curve, ...]:
    """Return the published errors and seconds of the methods that are drawn, as marks in their colours."""
    return tuple(
        Curve(
            f"{label}, published",
            tuple(cell.seconds for cell in found.values()),
            tuple(cell.nmse for cell in found.values()),
            tuple(cell.half or 0.0 for cell in found.values()),
            group=label,
            published=True,
        )
        for label, found in TABLE_1[SD].items()
        if label in {curve.label for curve in curves}
    )


def area_between(better: list[tuple[float, float]], worse: list[tuple[float, float]]) -> tuple[float, float, float]:
    """Return the mean of worse - better over log time, each the lowest error so far, and the range of times covered.

    Positive where `better` is lower. The range begins where both have a result and ends at the slower one's last.
    """
    first = [min(s for s, _ in points) for points in (better, worse)]
    last = [max(s for s, _ in points) for points in (better, worse)]
    grid = np.geomspace(max(first), max(*last, max(first) * (1 + 1e-9)), 2000)
    return float((_lowest(worse, grid) - _lowest(better, grid)).mean()), float(grid[0]), float(grid[-1])


def _lowest(points: list[tuple[float, float]], grid: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the lowest error among the points not later than each time."""
    ordered = sorted(points)
    seconds = np.array([s for s, _ in ordered])
    best = np.minimum.accumulate([e for _, e in ordered])
    return np.asarray(best[np.searchsorted(seconds, grid * (1 + 1e-12), side="right") - 1])
