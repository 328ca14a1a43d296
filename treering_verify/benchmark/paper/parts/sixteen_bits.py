"""The 16-bit rows of tables 1 and S1: the gradient-free method in half the precision, beside itself in 32 bits."""

from __future__ import annotations

import statistics
from typing import Any

from treering_detectors import mean

from treering_verify.benchmark.harness.laboratory import Laboratory
from treering_verify.benchmark.harness.scope import Scope
from treering_verify.benchmark.paper.parts.extent import Extent
from treering_verify.benchmark.paper.parts.measured import Measured
from treering_verify.benchmark.paper.readings import published_variants, read, row, timed_variants
from treering_verify.benchmark.published_figures import PAPER, PEAK_GB, SD, TABLE_1
from treering_verify.errors import UsageError
from treering_verify.models import LatentModel
from treering_verify.report.findings import Cell, Part, Table

_NAME = "16-bit"
_WHOLE, _HALF = "adam .01 scheduled", "adam .01 scheduled, 16-bit"


def measure(model: LatentModel, scope: Scope, lab: Laboratory, extent: Extent) -> Measured:
    """Compare each budget of the gradient-free method in 16 bits with the same in 32, image by image."""
    variants = published_variants(lab, extent.upto(100))
    pairs = [
        (whole, half)
        for half in variants
        if half.label == _HALF
        for whole in variants
        if whole.label == _WHOLE and whole.budgets == half.budgets
    ]
    if not pairs:
        raise UsageError("this processor emulates 16 bits, which takes too long for --quick")
    timed = timed_variants(lab)
    clocks = lab.clock(timed, extent.rounds, 1, warm_up=extent.full)
    rows: list[dict[str, Any]] = []
    lines: list[tuple[Cell, ...]] = []
    with scope.progress("16-bit", len(pairs)) as advance:
        for whole, half in pairs:
            a, b = read(lab, whole), read(lab, half)
            error = b.above(a)
            evidence = [y - x for x, y in zip(a.judged.log10, b.judged.log10, strict=True)]
            times = [
                statistics.median(clock.at(r.iterations) for v in timed if _same(v, r.variant) for clock in clocks[v])
                for r in (a, b)
            ]
            peaks = [lab.peak(r.variant).tensors for r in (a, b)]
            n = a.iterations
            theirs = [TABLE_1[SD][label].get(n) for label in (_WHOLE, _HALF)]
            shown: tuple[Cell, ...] = (None, None, None)
            if theirs[0] and theirs[1]:
                shown = (
                    f"{theirs[1].nmse - theirs[0].nmse:+.2f}",
                    f"{theirs[1].seconds / theirs[0].seconds:.2f}",
                    f"{PEAK_GB[SD][_HALF] / PEAK_GB[SD][_WHOLE]:.2f}",
                )
            lines.append(
                (
                    n,
                    half.precision,
                    *shown,
                    error,
                    mean(evidence),
                    f"{times[1] / times[0]:.2f}",
                    f"{peaks[1] / peaks[0]:.2f}",
                )
            )
            for i, (x, y) in enumerate(zip(a.error, b.error, strict=True)):
                rows.append(row(_NAME, _HALF, half.precision, "nmse_db_above_32_bit", y - x, iterations=n, image=i))
                rows.append(
                    row(_NAME, _HALF, half.precision, "log10_pvalue_above_32_bit", evidence[i], iterations=n, image=i)
                )
            advance()
    table = Table(
        "The gradient-free method in 16 bits, relative to 32",
        (
            "iterations",
            "precision here",
            "published: NMSE (dB)",
            "published: s",
            "published: GB",
            "NMSE (dB)",
            "log10 p",
            "s",
            "peak tensors",
        ),
        tuple(lines),
        f"Differences of NMSE and log10 p, paired by image, and ratios of seconds and memory. Published: {PAPER}, SD 2.1, "
        "float16 on an RTX 3090 Ti. The gradient method has no 16-bit row: the paper reports that its gradients underflow. "
        "`treering benchmark precision` has other methods and whole verdicts.",
    )
    return Measured(
        Part("16-bit: the gradient-free method in half the precision", _answer(lines), (table,)),
        rows,
        f"16-bit: {len(lab.known.images)}",
    )


def _same(one: Any, other: Any) -> bool:
    return bool(one.method == other.method and one.precision == other.precision and one.settings == other.settings)


def _answer(lines: list[tuple[Cell, ...]]) -> str:
    last = lines[-1]
    error, time, memory = last[5], float(str(last[7])), float(str(last[8]))
    low, high = error.value - error.half_width, error.value + error.half_width  # type: ignore[union-attr]
    cost = "no difference of error that these images show" if low <= 0 <= high else f"{error} dB of error"
    return (
        f"{'Agrees' if time < 1 else 'Does not agree'}: {last[1]} took {time:.2f} times the seconds of 32 bits on this "
        "machine "
        f"and {memory:.2f} times the memory (published: {last[3] or '0.57'} and {last[4] or '0.83'}), at {cost} after "
        f"{last[0]} "
        f"iterations, since the latent is added up in 32 bits and only the networks' passes are rounded"
        f"{'' if time < 1 else '; a processor gains only where it multiplies in 16 bits'}."
    )
