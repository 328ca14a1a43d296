"""Figure 3 of Hong et al. (2024): cocoercivity along the path and the distance left."""

from __future__ import annotations

from treering_verify.benchmark.harness.laboratory import Laboratory
from treering_verify.benchmark.harness.scope import Scope
from treering_verify.benchmark.paper.cocoercivity import Paths, cocoercivity_figure, cocoercivity_table, panels
from treering_verify.benchmark.paper.parts.extent import Extent
from treering_verify.benchmark.paper.parts.measured import Measured, listed
from treering_verify.benchmark.paper.readings import Reading, encoder_and_default, row
from treering_verify.models import LatentModel
from treering_verify.report.findings import Part

_NAME = "figure 3"


def measure(model: LatentModel, scope: Scope, lab: Laboratory, extent: Extent) -> Measured:
    """Follow the paths of the paper's panels on the laboratory's images."""
    start, ours = encoder_and_default(lab)
    found = panels(lab, scope, published=extent.quick)
    rows = [
        row(_NAME, one.panel.label, "published" if one.panel.published else "ours", measure, float(values[i]), image=i)
        for one in found
        for measure, values in (
            ("min_cocoercivity", one.beta),
            ("distance_left", one.left),
            ("nmse_db", one.error),
            ("distance_fell", one.falls),
        )
        for i in range(len(one.beta))
    ]
    return Measured(
        Part(
            "Figure 3: cocoercivity and convergence",
            _answer(found, start, ours),
            (cocoercivity_table(found),),
            (cocoercivity_figure(found),),
        ),
        rows,
        f"figure 3: {len(start.error)}",
    )


def _answer(found: list[Paths], start: Reading, ours: Reading) -> str:
    """Say in one sentence whether the slopes are negative, beta positive, and what the limits are worth."""
    down = [one.panel.label for one in found if (line := one.line) and line.high < 0]
    up = [one.panel.label for one in found if (line := one.line) and line.low > 0]
    lowest = min(min(one.beta) for one in found)  # infinite for paths that do not move
    ends = [sum(one.error) / len(one.error) for one in found]
    agrees = f"the slope is below 0 in {len(down)} of {len(found)} panels with its whole interval"
    if up:
        agrees += f" and above 0 for {listed(up)}"
    sign = "is positive on every path" if lowest > 0 else "is not positive on every path"
    return (
        f"{'Agrees' if len(down) == len(found) and lowest > 0 else 'Agrees in part'}: {agrees} (published: negative in "
        "all), "
        f"and beta {sign} (smallest {lowest:.2f}); what the theorems do not say is whether the limit is right: the paths "
        "end at "
        f"{min(ends):.1f} to {max(ends):.1f} dB, the encoder has {start.nmse:.1f} and the default {ours.nmse:.1f}, since "
        "z_inf "
        "solves E(D(z)) = E(x) and need not be the latent."
    )
