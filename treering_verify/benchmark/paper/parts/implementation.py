"""What the published gap in time and memory owes to the implementation of the gradient baseline."""

from __future__ import annotations

import statistics
from dataclasses import replace
from typing import Any

from treering_verify.benchmark.harness.scope import Scope
from treering_verify.benchmark.paper import baseline
from treering_verify.benchmark.paper.parts.measured import Measured
from treering_verify.benchmark.paper.readings import row
from treering_verify.benchmark.published_figures import SD, TABLE_1
from treering_verify.models import LatentModel
from treering_verify.report.findings import Part


def measure(model: LatentModel, scope: Scope) -> Measured:
    """Run the benchmark `baseline`, with its own number of rounds."""
    found = baseline.measure(model, replace(scope, count=None))
    rows = [
        row(
            "implementation", str(one["method"]), "published", "seconds", float(one["seconds"]), image=int(one["round"])
        )
        for one in found.rows
    ]
    released, fair = (_ratio(rows, name) for name in ("gradient, as released", "gradient, fair"))
    theirs = TABLE_1[SD]["gradient .1 scheduled"][20].seconds / TABLE_1[SD]["adam .01 scheduled"][20].seconds
    answer = (
        f"Gradient descent as released takes {released:.1f} times the seconds of the gradient-free method (published, SD "
        "2.1, 20 "
        f"iterations: {theirs:.1f}), and with frozen weights and no copies {fair:.1f} times, so the released implementation "
        f"makes {'part' if released > fair else 'none'} of that gap; the other tables use the fair one."
    )
    return Measured(
        Part("Table 1, gradient rows: what the implementation costs", answer, found.tables),
        rows,
        f"implementation: {found.count}",
    )


def _ratio(rows: list[dict[str, Any]], name: str) -> float:
    """Return the median over rounds of a method's seconds relative to the gradient-free method's in the same round."""
    seconds = {(one["method"], one["image"]): one["value"] for one in rows}
    rounds = {number for _, number in seconds}
    return statistics.median(seconds[name, number] / seconds["adam", number] for number in rounds)
