"""The page of `treering benchmark paper`: the tables and figures of three papers, published and measured side by side."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

from treering_verify.benchmark.catalogue import BENCHMARKS
from treering_verify.benchmark.harness import laboratory
from treering_verify.benchmark.harness.inversion_methods import swept
from treering_verify.benchmark.harness.laboratory import Laboratory, seeds
from treering_verify.benchmark.harness.scope import Scope
from treering_verify.benchmark.paper.parts import (
    attacks,
    classes,
    convergence,
    edits,
    errors,
    implementation,
    missing,
    optimisers,
    sixteen_bits,
)
from treering_verify.benchmark.paper.parts.measured import Measured
from treering_verify.benchmark.paper.readings import best, encoder_and_default, published_variants, read
from treering_verify.benchmark.published_figures import PAPER as HONG
from treering_verify.benchmark.published_figures import SFWMARK, TREE_RING
from treering_verify.errors import UsageError
from treering_verify.models import LatentModel, images_only
from treering_verify.report.findings import Findings, Part, Table


def measure(model: LatentModel, scope: Scope) -> Findings:
    """Measure every part. What a part or another benchmark has cached in the same folder is not measured again."""
    images_only(model, "the page of the paper")
    count = scope.images(6, 24)
    lab = Laboratory.open(model, scope, count)
    found: list[Measured] = []
    try:
        for one in _measured(model, scope, lab):
            found.append(one)
            scope.keep(one.rows)
    except KeyboardInterrupt:
        if not found:
            raise
        with contextlib.suppress(KeyboardInterrupt), scope.progress("Parts", len(found)) as advance:
            for _ in found:
                advance()
            raise  # so that the page of the parts that are there is marked as partial
    return Findings(
        "paper",
        BENCHMARKS["paper"].question,
        tuple(row for one in found for row in one.rows),
        (_sources(),),
        seeds=f"{seeds(count).start} onwards, one key; each benchmark's own for classification and attacks",
        count="; ".join(one.count for one in found if one.count),
        parts=tuple(one.part for one in found),
        answer=_answer(lab),
    )


def _measured(model: LatentModel, scope: Scope, lab: Laboratory) -> Iterator[Measured]:
    beside = replace(scope, folder=BENCHMARKS["robustness"].cache_beside(scope.folder))
    parts: tuple[tuple[str, Callable[[], Measured | list[Measured]]], ...] = (
        ("Tables 1 and S1", partial(errors.measure, model, scope, lab)),
        ("16-bit", partial(sixteen_bits.measure, model, scope, lab)),
        ("Table 1, gradient rows", partial(implementation.measure, model, scope)),
        ("Table S2", partial(optimisers.measure, model, scope, lab)),
        ("Figure 3", partial(convergence.measure, model, scope, lab)),
        ("Watermark classification", partial(classes.measure, model, scope, lab)),
        ("The editing figure", partial(edits.measure, model, scope, lab)),
        ("Tree-Ring's table 1 and SFWMark's means", partial(attacks.measure, model, beside)),
        ("Not measurable here", partial(missing.measure, model)),
    )
    for title, measure_part in parts:
        try:
            found = measure_part()
        except UsageError as error:
            yield Measured(Part(title, f"Not measured on {model.name}: {error}."), [], "")
        else:
            yield from found if isinstance(found, list) else [found]


def _sources() -> Table:
    return Table(
        "Papers on this page",
        ("paper", "what of it"),
        (
            (HONG, "tables 1, S1 and S2, figure 3, watermark classification, the editing figure"),
            (TREE_RING, "table 1: AUC by attack"),
            (SFWMARK, "means over twelve conditions"),
        ),
        "'published' is always the paper's own figure, on its own model and machine. Ours are measured by this command.",
    )


def _answer(lab: Laboratory) -> str:
    """Say in two sentences where the published methods and the default stand."""
    start, ours = encoder_and_default(lab)
    longest = laboratory.QUICK_STEPS if lab.scope.quick else 100
    variants = [v for v in published_variants(lab, longest) if v.precision == "float32"]
    steep, free = (
        read(lab, [v for v in variants if v.label == label][-1])
        for label in ("gradient .1 scheduled", "adam .01 scheduled")
    )
    others = [v for some in swept(longest).values() for v in some]
    lowest = best(lab, [*(v for v in variants if v.method != "encoder"), *others])
    return (
        f"At the published settings gradient descent ends at {steep.nmse:.1f} dB and the gradient-free method at "
        f"{free.nmse:.1f} "
        f"({steep.iterations} and {free.iterations} iterations), the encoder has {start.nmse:.1f}; the best step of a "
        "sweep brings "
        f"the published methods to {lowest.nmse:.1f} dB. The default has {ours.nmse:.1f} dB, and log10 p "
        f"{ours.log10:.0f} beside "
        f"{lowest.log10:.0f}."
    )
