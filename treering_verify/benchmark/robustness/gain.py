"""What fitted filters and networks find that the encoder and DDIM miss: marked images after each of twelve attacks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from treering_detectors import Rate, mean

from treering_verify.benchmark.catalogue import BENCHMARKS
from treering_verify.benchmark.harness.conditions import QUICK, STAND_INS, TWELVE, Condition, available
from treering_verify.benchmark.harness.keyed_images import evidence_of_images, generate_cached
from treering_verify.benchmark.harness.rates import STRICT, only_cells
from treering_verify.benchmark.harness.scope import SEEDS, Scope
from treering_verify.benchmark.harness.trials import BLANK
from treering_verify.benchmark.robustness.over_exposure import blank
from treering_verify.inversion.recovery import InversionOptions, filters_used, restorer_used
from treering_verify.models import LatentModel
from treering_verify.models.filter_bank import CorrectedBank
from treering_verify.models.inverter import carrying, fitted, without_network
from treering_verify.models.weights import fingerprint
from treering_verify.report import format_pvalue
from treering_verify.report.findings import Cell, Findings, Table
from treering_verify.training.memory import Memory, remembering
from treering_verify.watermark.keys.key import Key

if TYPE_CHECKING:
    from PIL import Image

ENCODER, CLOSED_FORM, NETWORKS, DEFAULT = "encoder and DDIM", "closed form", "networks", "the default"
WAYS = (ENCODER, CLOSED_FORM, NETWORKS, DEFAULT)
_BATCH = 8
_DEFAULT = InversionOptions()


def ways_of(model: LatentModel) -> dict[str, tuple[LatentModel, InversionOptions]]:
    """Return the ways of inversion that are compared, by name: a model and how it inverts.

    The filters are those that the model carries, without a network on top. The networks are those that it brings for both
    inversions, or the one on top of its filters. A model with neither is judged by its default.
    """
    filters, without = fitted(model), carrying(model, None)
    learned = model.refine is not None and model.estimate is not None
    ways = {ENCODER: (without, InversionOptions(method="encoder", noise_method="naive"))}
    if filters is not None and filters.noise is not None:
        only = carrying(model, without_network(filters))
        ways[CLOSED_FORM] = (only, InversionOptions(method="filtered", noise_method="filtered"))
        if not learned and isinstance(filters.noise, CorrectedBank):
            ways[NETWORKS] = (model, _DEFAULT)
    if learned or len(ways) == 1:
        ways[NETWORKS if learned else DEFAULT] = (without, _DEFAULT)
    return ways


def measure(model: LatentModel, scope: Scope) -> Findings:
    """Judge marked images, each under its own key, by each of `ways_of` the model; without search."""
    count, first = scope.images(2, 48), SEEDS["gain"]
    conditions, left_out = available(QUICK if scope.quick else TWELVE, model)
    keys = [Key.generate(model.latent_shape, seed=first + i) for i in range(count)]
    with scope.progress("Images", count) as advance:
        images = generate_cached(model, keys, range(first, first + count), scope, advance)
    facts = (fingerprint(model), filters_used(model, _DEFAULT), restorer_used(model, _DEFAULT))
    with scope.progress("Conditions", len(conditions) * count) as advance:
        for condition in conditions:
            for start in range(0, count, _BATCH):
                chosen = range(start, min(start + _BATCH, count))
                take = partial(_judged, model, condition, images, keys, chosen)
                scope.keep(scope.cached("gain-ways", (*facts, condition.attack, chosen), take))
                for _ in chosen:
                    advance()
    return Findings(
        "gain",
        BENCHMARKS["gain"].question,
        tuple(scope.rows),
        (_table(scope.rows, conditions, left_out), _changes(scope.rows, conditions)),
        seeds=f"{first} onwards, keys likewise; each image under its own key",
        count=f"{count} marked, under each condition",
    )


def _judged(
    model: LatentModel, condition: Condition, images: Sequence[Image.Image], keys: Sequence[Key], chosen: range
) -> Iterator[dict[str, Any]]:
    seeds = [SEEDS["gain"] + i for i in chosen]
    some, own = [images[i] for i in chosen], [keys[i] for i in chosen]
    attacked = condition.apply(some, seeds, model)
    memory = Memory()  # what the ways have in common is computed once
    found = {
        way: [log10 for log10, _ in evidence_of_images(remembering(carrier, memory), attacked, own, inversion)]
        for way, (carrier, inversion) in ways_of(model).items()
    }
    for i, (seed, image) in enumerate(zip(seeds, attacked, strict=True)):
        judged = {way: log10[i] for way, log10 in found.items()}
        yield {"condition": condition.name, "seed": seed, BLANK: blank(image), **judged}


def _table(rows: Sequence[dict[str, Any]], conditions: Sequence[Condition], left_out: Sequence[str]) -> Table:
    ways, groups = _ways_in(rows), _groups(rows, conditions)
    blank_ones = sum(row[BLANK] for row in rows)
    return Table(
        f"Found by {_listed(ways)}",
        (
            "condition",
            *(f"{'found at p <= 1e-06 ' if way == ways[0] else ''}by {way}" for way in ways),
            *(f"only {new}, only {old}; McNemar's p" for old, new in combinations(ways, 2)),
            *(f"{'median p ' if way == ways[0] else ''}by {way}" for way in ways),
        ),
        tuple(_line(name, some, ways) for name, some in groups),
        f"Marked images, each under its own key, without search. {STAND_INS} 'Only': found by one of the two alone; "
        "McNemar's test is exact. Closed form: fitted filters. Networks: those that the model brings, or one on top of the "
        "filters. Intervals: Clopper-Pearson, 95 %; those of all conditions, and p, are narrower than they should be, since "
        "the images are the same under each. Blank: of one colour on 95 % or more of the area after the attack, "
        f"{blank_ones} of {len(rows)}." + "".join(f" Left out: {reason}." for reason in left_out),
    )


def _changes(rows: Sequence[dict[str, Any]], conditions: Sequence[Condition]) -> Table:
    pairs = list(combinations(_ways_in(rows), 2))
    return Table(
        "Change of log10 p in pairs",
        ("condition", *(f"{new} less {old}" for old, new in pairs)),
        tuple(
            (name, *(mean([row[new] - row[old] for row in some]) for old, new in pairs))
            for name, some in _groups(rows, conditions)
        ),
        "Mean over the same images, with its 95 % interval; negative: more evidence by the first. Intervals of all "
        "conditions are narrower than they should be, since the images are the same under each.",
    )


def _ways_in(rows: Sequence[dict[str, Any]]) -> list[str]:
    return [way for way in WAYS if way in rows[0]]


def _groups(rows: Sequence[dict[str, Any]], conditions: Sequence[Condition]) -> list[tuple[str, list[dict[str, Any]]]]:
    """Return the rows of each line of a table; lines without rows are left out."""
    groups = [("all", list(rows)), ("all that are not blank", [row for row in rows if not row[BLANK]])]
    groups += [(one.name, [row for row in rows if row["condition"] == one.name]) for one in conditions]
    return [(name, some) for name, some in groups if some]


def _listed(ways: Sequence[str]) -> str:
    return f"{', '.join(ways[:-1])} and {ways[-1]}" if len(ways) > 2 else " and by ".join(ways)


def _line(name: str, rows: Sequence[dict[str, Any]], ways: Sequence[str]) -> tuple[Cell, ...]:
    log10 = {way: np.array([row[way] for row in rows]) for way in ways}
    found = {way: some <= math.log10(STRICT) for way, some in log10.items()}
    return (
        name,
        *(Rate(int(some.sum()), len(some)) for some in found.values()),
        *("; ".join(only_cells(new, old)) for old, new in combinations(found.values(), 2)),
        *(format_pvalue(float(np.median(some))) for some in log10.values()),
    )
