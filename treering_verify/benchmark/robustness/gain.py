"""What a model's default inversion finds that its encoder and DDIM miss: marked images after each of twelve attacks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from treering_verify.benchmark.catalogue import BENCHMARKS
from treering_verify.benchmark.harness.conditions import QUICK, STAND_INS, TWELVE, Condition, available
from treering_verify.benchmark.harness.keyed_images import evidence_of_images, generate_cached
from treering_verify.benchmark.harness.rates import STRICT, paired_cells
from treering_verify.benchmark.harness.scope import SEEDS, Scope
from treering_verify.benchmark.harness.trials import BLANK
from treering_verify.benchmark.robustness.over_exposure import blank
from treering_verify.inversion.recovery import InversionOptions, filters_used, restorer_used
from treering_verify.models import LatentModel
from treering_verify.models.weights import fingerprint
from treering_verify.report.findings import Cell, Findings, Table
from treering_verify.training.memory import Memory, remembering
from treering_verify.watermark.keys.key import Key

if TYPE_CHECKING:
    from PIL import Image

_BATCH = 8
_CLASSICAL = InversionOptions(method="encoder", noise_method="naive")
_DEFAULT = InversionOptions()


def measure(model: LatentModel, scope: Scope) -> Findings:
    """Judge marked images, each under its own key, by the encoder and DDIM, and by the model's default; without search."""
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
                scope.keep(scope.cached("gain", (*facts, condition.attack, chosen), take))
                for _ in chosen:
                    advance()
    return Findings(
        "gain",
        BENCHMARKS["gain"].question,
        tuple(scope.rows),
        (_table(scope.rows, conditions, left_out),),
        seeds=f"{first} onwards, keys likewise; each image under its own key",
        count=f"{count} marked, under each condition",
    )


def _judged(
    model: LatentModel, condition: Condition, images: Sequence[Image.Image], keys: Sequence[Key], chosen: range
) -> Iterator[dict[str, Any]]:
    seeds = [SEEDS["gain"] + i for i in chosen]
    some, own = [images[i] for i in chosen], [keys[i] for i in chosen]
    attacked = condition.apply(some, seeds, model)
    kept = remembering(model, Memory())  # what both ways have in common is computed once
    ways = [
        [log10 for log10, _ in evidence_of_images(kept, attacked, own, inversion)]
        for inversion in (_CLASSICAL, _DEFAULT)
    ]
    for seed, image, classical, default in zip(seeds, attacked, *ways, strict=True):
        yield {
            "condition": condition.name,
            "seed": seed,
            BLANK: blank(image),
            "classical": classical,
            "log10_pvalue": default,
        }


def _table(rows: Sequence[dict[str, Any]], conditions: Sequence[Condition], left_out: Sequence[str]) -> Table:
    seen = [row for row in rows if not row[BLANK]]
    groups = [("all", rows), ("all that are not blank", seen)]
    groups += [(one.name, [row for row in rows if row["condition"] == one.name]) for one in conditions]
    return Table(
        "The default against encoder and DDIM",
        (
            "condition",
            f"found at p <= {STRICT:g} by the default",
            "by encoder and DDIM",
            "found by one of both only",
            "McNemar's p",
            "median p by the default",
            "by encoder and DDIM",
        ),
        tuple(_line(name, some) for name, some in groups if some),
        f"Marked images, each under its own key, without search. {STAND_INS} 'Only': found by the default alone, and by "
        "encoder and DDIM alone; McNemar's test is exact. Intervals: Clopper-Pearson, 95 %; those of all conditions, and p, "
        "are narrower than they should be, since the images are the same under each. Blank: of one colour on 95 % or more "
        f"of the area after the attack, {len(rows) - len(seen)} of {len(rows)}."
        + "".join(f" Left out: {reason}." for reason in left_out),
    )


def _line(name: str, rows: Sequence[dict[str, Any]]) -> tuple[Cell, ...]:
    return (name, *paired_cells([row["log10_pvalue"] for row in rows], [row["classical"] for row in rows]))
