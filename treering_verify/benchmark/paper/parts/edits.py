"""The editing figure of Hong et al. (2024): image, mask, edit and difference after each decoder inversion."""

from __future__ import annotations

import statistics

from treering_detectors import Mean, mean

from treering_verify.benchmark.harness.laboratory import Laboratory
from treering_verify.benchmark.harness.scope import Scope
from treering_verify.benchmark.paper.editing import Edited, edit_figure, edited, setting
from treering_verify.benchmark.paper.parts.extent import Extent
from treering_verify.benchmark.paper.parts.measured import Measured
from treering_verify.benchmark.paper.readings import Reading, best, encoder_and_default, published_variants, read, row
from treering_verify.generation.editing import DEFAULT_STEPS
from treering_verify.models import LatentModel
from treering_verify.report.findings import Cell, Part, Table

_NAME = "editing"
_LONGEST = 50


def measure(model: LatentModel, scope: Scope, lab: Laboratory, extent: Extent) -> Measured:
    """Edit the laboratory's first images from the latents that table 1 found."""
    most, few = extent.edits
    count, steps = min(len(lab.known.images), most), few or DEFAULT_STEPS
    start, ours = encoder_and_default(lab)
    variants = [
        v for v in published_variants(lab, extent.upto(_LONGEST)) if v.precision == "float32" and v.method != "encoder"
    ]
    last = {v.label: v for v in variants if v.label in ("gradient .1 scheduled", "adam .01 scheduled")}
    lowest = best(lab, [*variants, *(v for some in extent.sweep(_LONGEST).values() for v in some)])
    readings: list[Reading] = [start, *(read(lab, v) for v in last.values()), lowest, ours]
    found: dict[str, Edited] = {}
    lines: list[tuple[Cell, ...]] = []
    rows = []
    with scope.progress("Edits", len(readings)) as advance:
        for reading in readings:
            one = edited(lab, reading.latent[:count], steps)
            name = f"{reading.variant.label}, {reading.iterations}"
            found[name] = one
            whole = reading.judged.log10[:count]
            lines.append(
                (
                    reading.variant.label,
                    "" if reading is start else reading.setting,
                    reading.iterations,
                    mean(one.background),
                    mean(reading.error[:count]),
                    f"{statistics.median(whole):.1f}",
                )
            )
            rows += [
                row(
                    _NAME,
                    reading.variant.label,
                    reading.setting,
                    "background_nmse_db",
                    v,
                    iterations=reading.iterations,
                    image=i,
                )
                for i, v in enumerate(one.background)
            ]
            advance()
    table = Table(
        "Background error of edited images",
        (
            "method",
            "setting",
            "iterations",
            "NMSE outside the mask (dB)",
            "NMSE of z_0 (dB)",
            "log10 p before the edit",
        ),
        tuple(lines),
        f"{setting(steps)} Mean and 95 % interval. The paper shows images and prints no figure. `treering benchmark "
        "editing` has "
        "more methods, images and seconds.",
    )
    return Measured(
        Part(
            "The editing figure: what an inversion leaves of the background",
            _answer(lines),
            (table,),
            (edit_figure(lab, found),),
        ),
        rows,
        f"editing: {count}",
    )


def _answer(lines: list[tuple[Cell, ...]]) -> str:
    error = [line[3].value if isinstance(line[3], Mean) else float("nan") for line in lines]
    latent = [line[4].value if isinstance(line[4], Mean) else float("nan") for line in lines]
    start, steep, free, lowest, ours = error
    same = sorted(range(5), key=error.__getitem__) == sorted(range(5), key=latent.__getitem__)
    return (
        f"The paper shows images and prints no figure, so nothing can agree or not; here the error outside the mask is "
        f"{start:.1f} dB for the encoder, {steep:.1f} for gradient descent and {free:.1f} for the gradient-free method "
        "at the "
        f"published step, {lowest:.1f} at the best step and {ours:.1f} by default, {'in' if same else 'not quite in'} "
        "the order "
        "of the latents' errors, because an edit keeps the latent outside the mask as it is."
    )
