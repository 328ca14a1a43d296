"""Optimiser, step schedule and iterations of decoder inversion, without early stopping (Hong et al. 2024, table S2)."""

from __future__ import annotations

from dataclasses import dataclass

from treering_detectors import Mean, mean

from treering_verify.benchmark.catalogue import BENCHMARKS
from treering_verify.benchmark.harness import laboratory
from treering_verify.benchmark.harness.inversion_methods import Variant, fixed_adam, published, swept
from treering_verify.benchmark.harness.laboratory import Laboratory, seeds
from treering_verify.benchmark.harness.scope import Scope
from treering_verify.benchmark.paper.readings import Reading, best, read
from treering_verify.benchmark.published_figures import ABLATION, ABLATION_NOTE, SOURCE
from treering_verify.models import LatentModel
from treering_verify.report.findings import Cell, Curve, Curves, Figure, Findings, Table

BUDGETS = (20, 30, 50, 100, 200)


@dataclass(frozen=True, eq=False)
class Optimiser:
    """A row of table S2: a method by its label, the mean error at each budget, its last reading, and its best by a sweep.

    Attributes
    ----------
    label : str
    errors : dict of int to list of float
        NMSE in dB of each image, by iterations.
    last : Reading
        At the largest budget.
    best : Reading
        With the best step of the sweep, at its best number of iterations.
    """

    label: str
    errors: dict[int, list[float]]
    last: Reading
    best: Reading

    @property
    def means(self) -> dict[int, Mean]:
        """Mean error with its interval, by iterations."""
        return {n: mean(errors) for n, errors in self.errors.items()}


def measure(model: LatentModel, scope: Scope) -> Findings:
    """Run every optimiser with fixed steps, read along one run, and with scheduled steps, one run for each budget."""
    count = scope.images(4, 32)
    lab = Laboratory.open(model, scope, count)
    found = optimisers(lab, scope)
    rows = [
        {"optimiser": one.label, "iterations": n, "image": i, "nmse_db": error}
        for one in found
        for n, errors in one.errors.items()
        for i, error in enumerate(errors)
    ]
    return Findings(
        "ablation",
        BENCHMARKS["ablation"].question,
        tuple(rows),
        (optimiser_table(found),),
        (optimiser_figure(found),),
        seeds=f"{seeds(count).start} onwards, one key",
        count=str(count),
    )


def optimisers(lab: Laboratory, scope: Scope, sweep: dict[str, list[Variant]] | None = None) -> list[Optimiser]:
    """Measure the optimisers of table S2 with the published step and with those of a sweep, by default the whole one."""
    longest = laboratory.QUICK_STEPS if scope.quick else BUDGETS[-1]
    variants: dict[str, list[Variant]] = {}
    for variant in [*published(longest), *fixed_adam(longest)]:
        if variant.label in ABLATION:
            variants.setdefault(variant.label, []).append(variant)
    other = swept(longest) if sweep is None else sweep
    found = []
    with scope.progress("Optimisers", len(variants)) as advance:
        for label, some in variants.items():
            readings = [read(lab, v) for v in some]
            errors = {}
            for reading in readings:
                alone = reading.variant.settings.scheduled
                for n in (reading.iterations,) if alone else (n for n in BUDGETS if n <= reading.iterations):
                    errors[n] = read(lab, reading.variant, n).error
            if not errors:  # fewer iterations than the paper's least
                errors[readings[-1].iterations] = readings[-1].error
            family = "adam .01 scheduled" if label.startswith("adam") else label
            steps = [*some, *(other[family] if not label.startswith("adam") or label == family else [])]
            if label.endswith("fixed"):
                steps = [v for label, others in variants.items() if label.endswith("fixed") for v in others]
            found.append(Optimiser(label, errors, readings[-1], best(lab, steps)))
            advance()
    return found


def optimiser_table(found: list[Optimiser]) -> Table:
    """Return table S2 with our figures, the published ones, and the best of a sweep."""
    budgets = sorted({n for one in found for n in one.errors})
    lines: list[tuple[Cell, ...]] = []
    for one in found:
        means = one.means
        theirs = ", ".join(f"{n}: {e:.2f}" for n, e in ABLATION[one.label].items())
        reached = f"step {one.best.variant.settings.step:g}, {one.best.iterations} iterations"
        lines.append(
            (
                one.label,
                theirs,
                *(means.get(n) for n in budgets),
                f"{one.last.log10:.1f}",
                reached,
                mean(one.best.error),
                f"{one.best.log10:.1f}",
            )
        )
    return Table(
        "NMSE of z_0 (dB) by optimiser and iterations",
        (
            "optimiser",
            "published, SD 2.1 (iterations: dB)",
            *(str(n) for n in budgets),
            "log10 p at the last",
            "best step of the sweep",
            "its NMSE (dB)",
            "its log10 p",
        ),
        tuple(lines),
        f"Mean and 95 % interval of the iterate with the smallest residual. Published: {SOURCE}, {ABLATION_NOTE}. "
        "forward-step: "
        "rho 1; inertial-km: rho 1, alpha .3. The best step is the lowest mean error at any step and any number of "
        "iterations, "
        "chosen on these images. log10 p: median of one key.",
    )


def optimiser_figure(found: list[Optimiser]) -> Figure:
    """Draw error and evidence by iterations, with the published errors as hollow marks."""
    curves: list[Curve] = []
    paths: list[Curve] = []
    for one in found:
        means = one.means
        read_at = {0: mean(one.last.path.error[0].tolist()), **means}  # all begin at the encoder's latent
        x = tuple(float(n) for n in read_at)
        half = tuple(m.half_width for m in read_at.values())
        curves.append(Curve(one.label, x, tuple(m.value for m in read_at.values()), half, group=one.label))
        beside = {n: e for n, e in ABLATION[one.label].items() if n <= 2 * max(means)}
        marks = tuple(float(n) for n in beside)
        if beside:
            curves.append(
                Curve(f"{one.label}, published", marks, tuple(beside.values()), group=one.label, published=True)
            )
        if not one.last.variant.settings.scheduled:
            steps = range(len(one.last.path.error))
            paths.append(
                Curve(
                    one.label,
                    tuple(map(float, steps)),
                    tuple(one.last.path.error.mean(dim=1).tolist()),
                    group=one.label,
                )
            )
        if one.best.variant.label != one.label and not one.best.variant.settings.scheduled:
            error = one.best.path.error.mean(dim=1).tolist()
            name = f"{one.best.variant.method}, step {one.best.variant.settings.step:g}"
            if name not in {curve.label for curve in paths}:
                paths.append(
                    Curve(name, tuple(map(float, range(len(error)))), tuple(error), dashed=True, group=one.label)
                )
    return Figure(
        "Error by iterations",
        (
            Curves("clean images", "iterations", "NMSE (dB)", tuple(curves)),
            Curves("Fixed steps along the path", "iterations", "NMSE (dB)", tuple(paths)),
        ),
        "Hollow marks: published for SD 2.1, another model. Bands: 95 % intervals over images. Dashed: the best step of the "
        "sweep. A line that turns upwards solves E(D(z)) = E(x) ever better and lies ever further from the latent.",
    )
