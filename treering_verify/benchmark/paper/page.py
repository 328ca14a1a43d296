"""The page of `treering benchmark paper`: the tables and figures of three papers, published and measured side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

from treering_verify.benchmark.catalogue import BENCHMARKS
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
from treering_verify.benchmark.paper.parts.extent import Extent
from treering_verify.benchmark.paper.parts.measured import Measured
from treering_verify.benchmark.paper.parts.whole import WholeRun
from treering_verify.benchmark.paper.readings import best, encoder_and_default, published_variants, read
from treering_verify.benchmark.published_figures import PAPER as HONG
from treering_verify.benchmark.published_figures import SFWMARK, TREE_RING
from treering_verify.errors import UsageError
from treering_verify.models import LatentModel, images_only
from treering_verify.report.findings import Findings, Part, Table


def measure(model: LatentModel, scope: Scope) -> Findings:
    """Measure every part. What a part or another benchmark has cached in the same folder is not measured again."""
    images_only(model, "the page of the paper")
    extent = Extent.of(scope)
    whole = WholeRun({_IMAGES: 3, **_SHARES})
    here = replace(extent.scope(scope), progress=whole.part)
    lab: Laboratory | None = None
    found: list[Measured] = []
    finished = False
    with whole.shown(scope.progress):
        with whole.begun(_IMAGES):
            lab = Laboratory.open(model, here, extent.images)
        for one in _measured(model, here, lab, extent, whole):
            found.append(one)
            scope.rows[:] = [row for each in found for row in each.rows]  # in place of what the part kept on its way
        finished = True
    if not found:
        raise KeyboardInterrupt
    return Findings(
        "paper",
        BENCHMARKS["paper"].question,
        tuple(row for one in found for row in one.rows),
        (_sources(),),
        seeds=f"{seeds(extent.images).start} onwards, one key; each benchmark's own for classification and attacks",
        count="; ".join(one.count for one in found if one.count),
        parts=tuple(one.part for one in found),
        answer=_answer(lab, extent)
        if lab and finished
        else f"Interrupted: {len(found)} of {len(_SHARES)} parts are here.",
    )


_IMAGES = "Images"
_SHARES = {
    "Tables 1 and S1": 30,
    "16-bit": 4,
    "Table 1, gradient rows": 3,
    "Table S2": 18,
    "Figure 3": 14,
    "Watermark classification": 24,
    "The editing figure": 5,
    "Tree-Ring's table 1 and SFWMark's means": 24,
    "Not measurable here": 1,
}
"""The parts of the page, and about how much of the time each takes where none is left out."""
_LEFT_OUT = ("Table 1, gradient rows", "Tree-Ring's table 1 and SFWMark's means")
"""Parts that take too long for a quick run, or that another quick run has."""


def _measured(model: LatentModel, scope: Scope, lab: Laboratory, extent: Extent, whole: WholeRun) -> Iterator[Measured]:
    beside = replace(scope, folder=BENCHMARKS["robustness"].cache_beside(scope.folder))
    work: tuple[Callable[[], Measured | list[Measured]], ...] = (
        partial(errors.measure, model, scope, lab, extent),
        partial(sixteen_bits.measure, model, scope, lab, extent),
        partial(implementation.measure, model, scope),
        partial(optimisers.measure, model, scope, lab, extent),
        partial(convergence.measure, model, scope, lab, extent),
        partial(classes.measure, model, scope, lab, extent),
        partial(edits.measure, model, scope, lab, extent),
        partial(attacks.measure, model, beside, extent),
        partial(missing.measure, model),
    )
    for title, measure_part in zip(_SHARES, work, strict=True):
        if extent.quick and title in _LEFT_OUT:
            yield Measured(Part(title, _without(title)), [], "")
            continue
        with whole.begun(title):
            try:
                found = measure_part()
            except UsageError as error:
                found = Measured(Part(title, f"Not measured on {model.name}: {error}."), [], "")
        yield from found if isinstance(found, list) else [found]


def _without(title: str) -> str:
    """Say which commands measure what a quick run leaves out."""
    alone = "robustness" if "SFWMark" in title else "baseline"
    return (
        f"Left out of --quick: `treering benchmark paper --count 6 --output DIR` measures it beside all else, and `treering "
        f"benchmark {alone} --output DIR` by itself."
    )


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


def _answer(lab: Laboratory, extent: Extent) -> str:
    """Say in two sentences where the published methods and the default stand."""
    start, ours = encoder_and_default(lab)
    variants = [v for v in published_variants(lab, extent.upto(100)) if v.precision == "float32"]
    steep, free = (
        read(lab, [v for v in variants if v.label == label][-1])
        for label in ("gradient .1 scheduled", "adam .01 scheduled")
    )
    others = [v for some in extent.sweep(100).values() for v in some]
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
