"""Table S2 of Hong et al. (2024): forward steps, inertial KM and Adam, and Adam's learning rates."""

from __future__ import annotations

from treering_verify.benchmark.harness.laboratory import Laboratory
from treering_verify.benchmark.harness.scope import Scope
from treering_verify.benchmark.paper.ablation import BUDGETS, Optimiser, optimiser_figure, optimiser_table, optimisers
from treering_verify.benchmark.paper.parts.extent import Extent
from treering_verify.benchmark.paper.parts.measured import Measured
from treering_verify.benchmark.paper.readings import Reading, encoder_and_default, row
from treering_verify.benchmark.published_figures import ABLATION
from treering_verify.models import LatentModel
from treering_verify.report.findings import Part

_NAME = "table S2"


def measure(model: LatentModel, scope: Scope, lab: Laboratory, extent: Extent) -> Measured:
    """Run the optimisers on the laboratory's images; those of table 1 are not run again."""
    start, ours = encoder_and_default(lab)
    found = optimisers(lab, scope, extent.sweep(BUDGETS[-1]))
    rows = [
        row(_NAME, one.label, "published", "nmse_db", error, iterations=n, image=i)
        for one in found
        for n, errors in one.errors.items()
        for i, error in enumerate(errors)
    ]
    for one in found:
        rows += one.best.rows(_NAME)
    table, figure = optimiser_table(found), optimiser_figure(found)
    return Measured(
        Part("Table S2: optimisers and learning rates", _answer(found, start, ours), (table,), (figure,)),
        rows,
        f"table S2: {len(start.error)}",
    )


def _answer(found: list[Optimiser], start: Reading, ours: Reading) -> str:
    """Say in one sentence whether the optimisers end in the paper's order, and what the best steps reach."""
    last = {one.label: one.last for one in found}
    order = sorted(last, key=lambda label: last[label].nmse)
    theirs = sorted(ABLATION, key=lambda label: ABLATION[label][max(ABLATION[label])])
    gains = {label: last[label].above(start) for label in order}
    above = [label for label, gain in gains.items() if gain.value > gain.half_width]
    below = [label for label, gain in gains.items() if gain.value < -gain.half_width]
    plain = next(one for one in found if one.label == "forward-step")
    lowest = min((one.best for one in found), key=lambda reading: reading.nmse)
    n = plain.last.iterations
    verdict = "agrees" if order == theirs else "does not agree"
    why = (
        f"{len(above)} of {len(order)} end above the encoder's {start.nmse:.1f} dB, because they solve E(D(z)) = E(x), "
        "whose "
        f"solution is not the latent on this model (forward steps of 1 leave {plain.last.residual:.2f} of the encoder's "
        "residual "
        f"and {plain.last.nmse:.1f} dB after {n})"
        if above
        else f"{len(below)} of {len(order)} end below the encoder's {start.nmse:.1f} dB, as published, and none above it"
    )
    return (
        f"The order of the optimisers at their last iteration {verdict} with the paper's ({order[0]} first here, "
        f"{theirs[0]} "
        f"there): {why}; with the best step of a sweep forward steps reach {plain.best.nmse:.1f} dB (rho "
        f"{plain.best.variant.settings.step:g}, {plain.best.iterations} iterations), the best of all {lowest.nmse:.1f} "
        "dB and log10 "
        f"p {lowest.log10:.0f}, and the default {ours.nmse:.1f} dB and {ours.log10:.0f}."
    )
