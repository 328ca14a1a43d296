"""Tables 1 and S1 of Hong et al. (2024): error, seconds and memory of decoder inversions, by iterations."""

from __future__ import annotations

import statistics
from typing import Any

from treering_detectors import mean

from treering_verify.benchmark.harness.inversion_methods import GRADIENT, Variant
from treering_verify.benchmark.harness.laboratory import Clock, Laboratory
from treering_verify.benchmark.harness.memory import Peak
from treering_verify.benchmark.harness.scope import Scope
from treering_verify.benchmark.paper.parts.extent import Extent
from treering_verify.benchmark.paper.parts.measured import Measured, listed, reference
from treering_verify.benchmark.paper.readings import (
    PUBLISHED,
    Reading,
    best,
    encoder_and_default,
    published_variants,
    read,
    timed_variants,
)
from treering_verify.benchmark.published_figures import CARDS, PAPER, PEAK_GB, TABLE_1, Published
from treering_verify.models import LatentModel
from treering_verify.report.findings import Cell, Curve, Curves, Figure, Part, Table

_NAME = "table 1"
_ROWS = ("gradient .1 scheduled", "gradient .01 fixed", "adam .01 scheduled", "adam .01 scheduled, 16-bit")
_SWEPT = ("gradient .1 scheduled", "adam .01 scheduled")
_LONGEST = 200


def measure(model: LatentModel, scope: Scope, lab: Laboratory, extent: Extent) -> Measured:
    """Read every published method at the paper's iterations, its best step, and the default of verification."""
    table_1 = [v for v in published_variants(lab, extent.upto(_LONGEST)) if v.label in _ROWS]
    sweep = {label: some for label, some in extent.sweep(_LONGEST).items() if label in _SWEPT}
    start, ours = encoder_and_default(lab)
    with scope.progress("Table 1", len(table_1) + len(sweep) + 2) as advance:
        readings: list[Reading] = [start]
        for variant in table_1:
            readings += [read(lab, variant, n) for n in variant.budgets]
            scope.keep(row for one in readings[-len(variant.budgets) :] for row in one.rows(_NAME))
            advance()
        chosen = {}
        for label, some in sweep.items():
            chosen[label] = best(lab, [*(v for v in table_1 if v.label == label), *some])
            advance()
        readings += [*chosen.values(), ours]
        timed = timed_variants(lab)
        clocks = lab.clock(timed, extent.rounds, 1, warm_up=extent.full)
        advance()
        peaks = {reading: lab.peak(reading.variant) for reading in readings}
        advance()
    seconds = {reading: _seconds(reading, timed, clocks) for reading in readings}
    other = reference(model)
    rows: list[dict[str, Any]] = [row for reading in readings for row in reading.rows(_NAME)]
    lines = [_line(reading, start, other, seconds[reading], peaks[reading]) for reading in readings]
    table = Table(
        "Error of z_0, evidence, time and memory by method, step and iterations",
        (
            "method",
            "setting",
            "iterations",
            f"published, {other}: NMSE (dB)",
            "published: s",
            "published: GB",
            "NMSE (dB)",
            "above the encoder (dB)",
            "log10 p",
            "log10 p, naive",
            "s / image",
            "peak tensors (MiB)",
        ),
        tuple(lines),
        f"Published: {PAPER}, {other} ({CARDS[other]}); another model and another machine. Ours: mean and 95 % interval "
        f"over {len(start.error)} clean images; differences are paired. 'best step': the lowest mean error that the method "
        "reaches with any step of the sweep at any of its iterations, chosen on these images, which favours it. log10 p: "
        "median of one key, by the default noise inversion and by naive. No early stopping but in the default."
        + extent.sweep_note,
    )
    return Measured(
        Part(
            "Tables 1 and S1: error, seconds and memory of decoder inversions",
            _answer(readings, chosen, start, ours, other, seconds, peaks),
            (table, _published_elsewhere(other)),
            (_figure(readings, sweep, lab, other, seconds, start, ours),),
        ),
        rows,
        f"table 1: {len(start.error)}",
    )


def _seconds(reading: Reading, timed: list[Variant], clocks: dict[Variant, list[Clock]]) -> float | None:
    """Return the median over rounds of seconds per image; steps of a method cost the same whatever their length."""
    same = [
        v
        for v in timed
        if (v.method, v.precision) == (reading.variant.method, reading.variant.precision)
        and (v.settings == reading.variant.settings or v.family != "ours")
    ]
    return statistics.median(clock.at(reading.iterations) for clock in clocks[same[0]]) if same else None


def published_cell(reading: Reading, other: str) -> Published | None:
    """Return the published cell of a reading, if the paper has it for that model and the reading is of its setting."""
    if reading.setting != PUBLISHED:
        return None
    return TABLE_1[other].get(reading.variant.label, {}).get(reading.iterations)


def _line(reading: Reading, start: Reading, other: str, seconds: float | None, peak: Peak) -> tuple[Cell, ...]:
    cell = published_cell(reading, other)
    return (
        reading.variant.label,
        "" if reading is start else reading.setting,
        reading.iterations,
        format_published(cell),
        f"{cell.seconds:g}" if cell else None,
        PEAK_GB[other].get(reading.variant.label) if cell else None,
        mean(reading.error),
        None if reading is start else reading.above(start),
        f"{reading.log10:.1f}",
        f"{reading.naive:.1f}",
        f"{seconds:.3f}" if seconds is not None else None,
        f"{peak.tensors:.1f}",
    )


def format_published(cell: Published | None) -> str | None:
    """Return a published NMSE with its interval, where there is one."""
    if cell is None:
        return None
    return f"{cell.nmse:.2f}" + (f" +- {cell.half:.2f}" if cell.half is not None else "")


def _published_elsewhere(other: str) -> Table:
    """Return the published figures of the paper's other models, which nothing here can stand beside."""
    lines: list[tuple[Cell, ...]] = [
        (model, method, n, format_published(cell), f"{cell.seconds:g}", PEAK_GB[model].get(method))
        for model, methods in TABLE_1.items()
        if model != other
        for method, cells in methods.items()
        for n, cell in cells.items()
    ]
    return Table(
        "Published for the other models of the paper",
        ("model", "method", "iterations", "NMSE (dB)", "s", "GB"),
        tuple(lines),
        f"{PAPER}, tables 1 and S1: {'; '.join(f'{m}: {card}' for m, card in CARDS.items() if m != other)}.",
    )


def _figure(
    readings: list[Reading],
    sweep: dict[str, list[Variant]],
    lab: Laboratory,
    other: str,
    seconds: dict[Reading, float | None],
    start: Reading,
    ours: Reading,
) -> Figure:
    errors, evidence, times = [], [], []
    for label in _ROWS:
        some = [start, *(r for r in readings if r.variant.label == label and r.setting == PUBLISHED)]  # all begin there
        x = tuple(float(r.iterations) for r in some)
        means = [mean(r.error) for r in some]
        values = tuple(m.value for m in means)
        errors.append(Curve(label, x, values, tuple(m.half_width for m in means), group=label))
        evidence.append(Curve(label, x, tuple(r.log10 for r in some), group=label))
        times.append(Curve(label, tuple(seconds[r] or 0.0 for r in some), values, group=label))
        cells = {n: cell for n, cell in TABLE_1[other].get(label, {}).items() if n <= 2 * max(x)}
        if cells:
            errors.append(
                Curve(
                    f"{label}, published, {other}",
                    tuple(float(n) for n in cells),
                    tuple(cell.nmse for cell in cells.values()),
                    tuple(cell.half or 0.0 for cell in cells.values()),
                    group=label,
                    published=True,
                )
            )
    for label, variants in sweep.items():
        reached = {0: start}
        for reading in (read(lab, v, n) for v in variants for n in v.budgets):
            if reading.iterations not in reached or reading.nmse < reached[reading.iterations].nmse:
                reached[reading.iterations] = reading
        x = tuple(float(n) for n in sorted(reached))
        y = tuple(reached[int(n)].nmse for n in x)
        errors.append(Curve(f"{label.partition(' ')[0]}, best other step", x, y, dashed=True, group=label))
    for reading, name in ((start, "encoder"), (ours, ours.variant.label)):
        at = (float(reading.iterations),)
        errors.append(Curve(name, at, (reading.nmse,), (mean(reading.error).half_width,), group=name))
        evidence.append(Curve(name, at, (reading.log10,), group=name))
        times.append(Curve(name, (seconds[reading] or 0.0,), (reading.nmse,), group=name))
    return Figure(
        "Error and evidence by iterations, and error by time",
        (
            Curves("NMSE", "iterations", "NMSE (dB)", tuple(errors)),
            Curves("Evidence", "iterations", "median log10 p", tuple(evidence)),
            Curves("NMSE by time", "s / image, this machine", "NMSE (dB)", tuple(times), log_x=True),
        ),
        f"Lower is better in every panel. Hollow marks: published for {other}, another model, so compare how a line runs "
        "and "
        "not its height. Bands: 95 % intervals over images. Published seconds are of a graphics card and stand in the "
        "table.",
    )


def _answer(
    readings: list[Reading],
    chosen: dict[str, Reading],
    start: Reading,
    ours: Reading,
    other: str,
    seconds: dict[Reading, float | None],
    peaks: dict[Reading, Peak],
) -> str:
    """Say in one sentence what agrees with the paper, what does not, and why."""
    free = [r for r in readings if r.variant.label == "adam .01 scheduled" and r.setting == PUBLISHED]
    steep = [r for r in readings if r.variant.label == "gradient .1 scheduled" and r.setting == PUBLISHED]
    last, first = free[-1], steep[0]
    agrees: list[str] = []
    differs: list[str] = []
    memory = peaks[first].tensors / peaks[free[0]].tensors
    time = (seconds[first] or 0.0) / (seconds[free[0]] or 1.0)
    (agrees if memory > 1 and time > 1 else differs).append(
        f"gradient descent takes {memory:.1f} times the memory and {time:.1f} times the seconds of the gradient-free method"
        f"{_published_ratio(other, free[0].iterations)}"
    )
    if len(steep) > 1:
        (agrees if steep[-1].nmse < first.nmse else differs).append(
            f"it gains from {first.iterations} to {steep[-1].iterations} iterations ({first.nmse:.1f} to "
            f"{steep[-1].nmse:.1f} dB)"
        )
    gain = last.above(start)
    text = f"the gradient-free method with the published step ends {gain.value:+.1f} dB from the encoder"
    if gain.value > gain.half_width:
        why = f", since its residual fell to {last.residual:.2f} of the encoder's and the error rose: {_why(last)}"
        differs.append(text + why)
    elif gain.value < -gain.half_width:
        agrees.append(text)
    else:
        differs.append(f"{text}, which these images do not tell from 0")
    lowest = min(chosen.values(), key=lambda r: r.nmse)
    family = "gradient" if lowest.variant.family == GRADIENT else "gradient-free"
    return (
        f"Agrees: {listed(agrees) or 'nothing'}; {f'does not: {listed(differs)}; ' if differs else ''}"
        "with the best step of a sweep the "
        f"best published method ({family}, step {lowest.variant.settings.step:g}, {lowest.iterations} iterations) has "
        f"{lowest.nmse:.1f} dB and log10 p {lowest.log10:.0f}, and the default {ours.nmse:.1f} dB and {ours.log10:.0f}."
    )


def _why(last: Reading) -> str:
    if last.residual < 1:
        return "what solves E(D(z)) = E(x) is not the latent here"
    return "the step is too long for this model's latents"


def _published_ratio(other: str, n: int) -> str:
    theirs = TABLE_1[other]
    free = next((label for label in ("adam .01 scheduled", "adam .01 scheduled, 16-bit") if label in theirs), "")
    steep = theirs.get("gradient .1 scheduled", {}).get(n)
    flat = theirs.get(free, {}).get(n)
    if not steep or not flat:
        return ""
    kind = "" if "16" not in free else ", 16-bit"
    memory = PEAK_GB[other]["gradient .1 scheduled"] / PEAK_GB[other][free]
    return f" (published, {other}{kind}: {memory:.1f} and {steep.seconds / flat.seconds:.1f})"
