"""Evidence of every pattern under every attack, at thresholds fixed beforehand, and its cost to the image."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from treering_verify.benchmark.catalogue import BENCHMARKS
from treering_verify.benchmark.harness.conditions import (
    QUICK,
    SEVEN,
    TWELVE,
    Condition,
    Scale,
    available,
    quick_scales,
    scales,
)
from treering_verify.benchmark.harness.scope import SEEDS, Scope
from treering_verify.benchmark.harness.trials import BLANK, EXACT, SEARCHED
from treering_verify.benchmark.robustness.curves import figures, held_table, strength_table
from treering_verify.benchmark.robustness.measurements import DEFAULT, Measurements, Task, measure_tasks
from treering_verify.benchmark.robustness.tables import (
    conditions_table,
    methods_table,
    sfwmark_table,
    summary_table,
    tree_ring_table,
)
from treering_verify.detection.calibration.registry import CHI_SQUARE, DETECTORS, DISTANCE
from treering_verify.inversion import decoder as decoder_inversion
from treering_verify.inversion import noise as noise_inversion
from treering_verify.inversion.recovery import InversionOptions
from treering_verify.models import LatentModel
from treering_verify.models.inverter import fitted
from treering_verify.report.findings import Findings
from treering_verify.watermark.patterns import PATTERNS

# Patterns whose curves are drawn over all strengths; the others are measured under the conditions only.
_CURVES = ("random", "rings", "mixed-rings", "centre-signs")
# The default pattern: it is measured on most images, and inversion methods are compared with it.
_MAIN = "random"
_METHODS: dict[str, InversionOptions] = {
    "encoder": InversionOptions(method="encoder"),
    "forward-step": InversionOptions(method="forward-step"),
    "anderson": InversionOptions(method="anderson"),
    "adam": InversionOptions(method="adam"),
    "default, naive": InversionOptions(noise_method="naive"),
    "default, exact": InversionOptions(noise_method="exact"),
    "encoder, naive, 50 steps": InversionOptions(method="encoder", noise_method="naive", steps=50),
}
# All patterns but the main one take a fifth of the images, inversion methods and each strength of a curve a 31st, a batch
# of 16: some 50,000 inversions at the full count of 500. With a fifth for all it would be 150,000.
_FEWER, _FEWEST = 5, 31


def measure(model: LatentModel, scope: Scope) -> Findings:
    """Judge marked images, each under its own key, and unmarked ones, each under a new key, both processed alike."""
    count = scope.images(4, 500)
    planned = plan(model, count, quick=scope.quick)
    conditions, patterns, drawn = planned.conditions, planned.patterns, planned.drawn
    compared, curves, fewer, fewest = planned.compared, planned.curves, planned.fewer, planned.fewest
    methods = _methods(model, quick=scope.quick)
    methods |= {name: InversionOptions(method=name) for name in scope.methods}
    tasks = [
        *planned.tasks,
        *(
            Task(condition, {_MAIN: fewest}, 0, searched=False, method=name, inversion=inversion)
            for name, inversion in methods.items()
            for condition in conditions
        ),
    ]
    found = measure_tasks(model, scope, tasks, 2 * count, fewer)
    photographs = sum(kind == "photograph" for kind in found.kinds)
    return Findings(
        "robustness",
        BENCHMARKS["robustness"].question,
        tuple(rows_of(found)),
        (
            summary_table(found, conditions, patterns, planned.left_out),
            conditions_table(found, conditions, patterns),
            held_table(found, curves, drawn),
            methods_table(found, conditions, (DEFAULT, *methods), _MAIN),
            tree_ring_table(found, compared, drawn),
            sfwmark_table(found, conditions, patterns),
            strength_table(found, curves, drawn),
        ),
        figures(found, curves, drawn),
        seeds=f"{SEEDS['robustness']} onwards, keys likewise; each image under its own key",
        count=f"{count} marked by {_MAIN}, {fewer} by each other pattern and {2 * count} unmarked ({photographs} "
        f"photographs) under the conditions; {fewest} for each inversion method; {fewest} marked and "
        f"{2 * fewest} unmarked elsewhere; {2 * count} other unmarked ones for thresholds",
    )


@dataclass(frozen=True)
class Plan:
    """What is measured with the default inversion.

    Attributes
    ----------
    conditions, compared : tuples of Condition
        SFWMark's and Tree-Ring's, or some of them.
    curves : tuple of Scale
    left_out : tuple of str
        What cannot run here, with the reason.
    patterns, drawn : tuples of str
        All patterns, and those that are also measured outside `conditions`.
    tasks : tuple of Task
        A task's place among them is part of its measurement.
    fewer, fewest : int
        Images of each pattern but the main one, and of each strength of a curve.
    """

    conditions: tuple[Condition, ...]
    compared: tuple[Condition, ...]
    curves: tuple[Scale, ...]
    left_out: tuple[str, ...]
    patterns: tuple[str, ...]
    drawn: tuple[str, ...]
    tasks: tuple[Task, ...]
    fewer: int
    fewest: int

    def without_curves(self) -> tuple[Task, ...]:
        """Return the tasks of the conditions that papers are compared under; their measurements are the same ones."""
        kept = {condition.attack for condition in (*self.conditions, *self.compared)}
        return tuple(task for task in self.tasks if task.condition.attack in kept)


def plan(model: LatentModel, count: int, *, quick: bool, everything: bool = False) -> Plan:
    """Plan the measurement of `count` images; `everything` keeps all conditions of both papers in a quick run too."""
    fewer, fewest = (count if quick else max(2, count // share) for share in (_FEWER, _FEWEST))
    conditions, left_out = available(QUICK if quick and not everything else TWELVE, model)
    curves, missing = _curves(quick_scales() if quick else scales(), model)
    patterns = ("random", "rings") if quick else tuple(PATTERNS)
    compared = SEVEN[:1] + SEVEN[2:3] if quick and not everything else SEVEN
    many = {pattern: count if pattern == _MAIN else fewer for pattern in patterns}
    few = {pattern: fewest for pattern in patterns if pattern in _CURVES}
    tasks = _plan(conditions, compared, curves, many, few, 2 * count)
    drawn = tuple(pattern for pattern in _CURVES if pattern in few)
    return Plan(conditions, compared, curves, (*left_out, *missing), patterns, drawn, tuple(tasks), fewer, fewest)


def _curves(wanted: tuple[Scale, ...], model: LatentModel) -> tuple[tuple[Scale, ...], tuple[str, ...]]:
    """Return the scales that can run here, and the reasons why others cannot."""
    usable: list[Scale] = []
    left_out: list[str] = []
    for scale in wanted:
        _, missing = available(scale.conditions[:1], model)
        if missing:
            left_out += missing
        else:
            usable.append(scale)
    return tuple(usable), tuple(left_out)


def _methods(model: LatentModel, *, quick: bool) -> dict[str, InversionOptions]:
    """Return the inversions to compare, without those that are equal to the default or to another one."""
    refined = model.refine is not None
    known = {_resolved(model, InversionOptions(), refined)}
    chosen = {}
    for name, inversion in list(_METHODS.items())[: 1 if quick else None]:
        resolved = _resolved(model, inversion, refined)
        if resolved not in known:
            known.add(resolved)
            chosen[name] = inversion
    return chosen


def _resolved(model: LatentModel, inversion: InversionOptions, refined: bool) -> InversionOptions:
    if inversion.method == decoder_inversion.AUTO:
        filtered = fitted(model) is not None
        inversion = replace(inversion, method=decoder_inversion.default_method(refined=refined, filtered=filtered))
    if inversion.method == "filtered" and inversion.noise_method == noise_inversion.AUTO:
        inversion = replace(inversion, noise_method="filtered")
    if inversion.noise_method == noise_inversion.AUTO:
        inversion = replace(inversion, noise_method=noise_inversion.default_method(model, inversion.steps))
    return inversion


def _plan(
    conditions: tuple[Condition, ...],
    compared: tuple[Condition, ...],
    curves: tuple[Scale, ...],
    many: dict[str, int],
    few: dict[str, int],
    unmarked: int,
) -> list[Task]:
    """Return one task per condition, the largest if several need it; `many` and `few`: marked images by pattern."""
    tasks: dict[str, Task] = {}
    for condition in conditions:
        tasks[condition.attack] = Task(condition, many, unmarked, published=True, searched_unmarked=(_MAIN,))
    elsewhere = 2 * max(few.values())
    for condition in compared:
        tasks.setdefault(condition.attack, Task(condition, few, elsewhere, searched_unmarked=(_MAIN,)))
    for scale in curves:
        for condition in scale.conditions:
            tasks.setdefault(condition.attack, Task(condition, few, elsewhere))
    return list(tasks.values())


def rows_of(found: Measurements) -> list[dict[str, Any]]:
    """Return one row for each image under each pattern and attack."""
    columns = {
        "log10_pvalue": EXACT,
        "statistic": "statistic",
        "searched_log10_pvalue": SEARCHED,
        "rival_log10_pvalue": f"rival {EXACT}",
        "chi_square": CHI_SQUARE,
        "distance": DISTANCE,
        "blank": BLANK,
        "rival_distance": f"rival {DISTANCE}",
        **{name: name for name in DETECTORS.added},
    }
    groups = [
        *(((pattern, method, attack, "marked"), arrays) for (pattern, method, attack), arrays in found.marked.items()),
        *(((pattern, DEFAULT, attack, "unmarked"), arrays) for (pattern, attack), arrays in found.unmarked.items()),
    ]
    rows = []
    for (pattern, method, attack, truth), arrays in groups:
        for i in range(len(arrays[EXACT])):
            rows.append(
                {
                    "pattern": pattern,
                    "method": method,
                    "attack": attack,
                    "truth": truth,
                    "image": i,
                    "kind": found.kinds[i] if truth == "unmarked" else "model, marked",
                    **{column: float(arrays[name][i]) if name in arrays else None for column, name in columns.items()},
                }
            )
    return rows
