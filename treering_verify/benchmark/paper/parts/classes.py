"""Watermark classification of Hong et al. (2024): three keys, closed set, with the published disc and a centred one."""

from __future__ import annotations

from dataclasses import replace

from treering_detectors import Rate

from treering_verify.benchmark.harness.laboratory import Laboratory
from treering_verify.benchmark.harness.scope import SEEDS, Scope
from treering_verify.benchmark.paper.classification import (
    PERFECT,
    classify,
    paper_groups,
    pipeline,
    published_matrices,
)
from treering_verify.benchmark.paper.parts.extent import Extent
from treering_verify.benchmark.paper.parts.measured import Measured, reference
from treering_verify.benchmark.paper.readings import Reading, best, encoder_and_default, published_variants, row
from treering_verify.benchmark.published_figures import CLASSIFICATION, CLASSIFICATION_COSTS, INSTAFLOW, PAPER, SD
from treering_verify.inversion.decoder import DEFAULTS, unstopped
from treering_verify.inversion.recovery import InversionOptions
from treering_verify.models import LatentModel
from treering_verify.report.findings import Cell, Part, Table

_NAME = "classification"
_ITERATIONS = 100  # of the paper
_SET = "3 keys of the paper, {} disc"


def measure(model: LatentModel, scope: Scope, lab: Laboratory, extent: Extent) -> Measured:
    """Classify as published after every method at its published step, after the best of a sweep, and after the default."""
    iterations = extent.class_iterations
    methods: dict[str, InversionOptions] = {"encoder": pipeline("encoder")}
    for name, method in (("gradient", "gradient"), ("gradient-free", "adam")):
        methods[name] = pipeline(method, replace(unstopped(DEFAULTS[method]), iterations=iterations))
    best_step = ""
    if not extent.quick:  # which tries few steps
        lowest = _best(lab, extent)
        chosen = lowest.variant
        best_step = (
            f"'best step': {chosen.method}, step {chosen.settings.step:g}, {lowest.iterations} iterations, the lowest error "
            "of a sweep. "
        )
        if (chosen.method, chosen.settings) not in {(m.method, m.settings) for m in methods.values()}:
            methods["best step"] = pipeline(chosen.method, replace(chosen.settings, iterations=lowest.iterations))
    _, ours = encoder_and_default(lab)
    methods["ours"] = pipeline(ours.variant.method, ours.variant.settings)
    each, first = extent.class_images, SEEDS["classification"]
    found = classify(model, scope, paper_groups(model, each, first), methods)
    rows = [
        row(
            _NAME,
            one["method"],
            "published" if one["method"] in ("encoder", "gradient", "gradient-free") else one["method"],
            "correct",
            float(one["actual"] == one["predicted"]),
            image=one["image"],
            condition=one["set"],
            label=f"{one['actual']} named {one['predicted']}",
        )
        for one in found.rows
    ]
    correct = {(str(line[0]), str(line[2])): (line[3], line[4]) for line in found.lines}
    other = reference(model) if reference(model) in (SD, INSTAFLOW) else SD
    lines: list[tuple[Cell, ...]] = []
    for name in (*methods, PERFECT):
        matrix = CLASSIFICATION.get((other, name))
        cost = CLASSIFICATION_COSTS.get((other, name))
        published = Rate(sum(matrix[i][i] for i in range(3)), 300) if matrix else None
        off, centred = (correct[_SET.format(kind), name] for kind in ("off-centre", "centred"))
        angles = [correct[f"{_SET.format(kind)}, by angle", name][0] for kind in ("off-centre", "centred")]
        lines.append((name, published, f"{cost[0]:g}" if cost else None, off[0], centred[0], *angles, off[1]))
    table = Table(
        "Right of three keys, closed set, by the published rule and by angle",
        (
            "method",
            f"published, {other}, off-centre disc",
            "published: s",
            "off-centre disc",
            "centred disc",
            "off-centre, by angle",
            "centred, by angle",
            "s / image",
        ),
        tuple(lines),
        f"Published: {PAPER}, {other}, 100 images of each key, {_ITERATIONS} iterations. Ours: {each} of each key, "
        f"{iterations} "
        f"iterations. {best_step}'{PERFECT}': the true initial noise. By angle: the cosine with the keys, "
        "which does not depend on how much inversion shrinks the disc. Noise inversion is naive. Intervals: "
        "Clopper-Pearson, "
        "95 %.",
    )
    shown = [figure for figure in found.figures if "by angle" not in figure.title]
    return Measured(
        Part(
            "Watermark classification: three keys, closed set",
            _answer(lines, other),
            (table,),
            (shown[0], published_matrices(), shown[1]),
        ),
        rows,
        f"classification: {3 * each} of each disc",
    )


def _best(lab: Laboratory, extent: Extent) -> Reading:
    variants = published_variants(lab, extent.upto(_ITERATIONS))
    others = [v for some in extent.sweep(_ITERATIONS).values() for v in some]
    return best(lab, [v for v in (*variants, *others) if v.precision == "float32" and v.method != "encoder"])


def _answer(lines: list[tuple[Cell, ...]], other: str) -> str:
    """Say in one sentence what agrees with the published accuracies, what does not, and why."""
    by = {str(line[0]): line for line in lines}

    def share(name: str, column: int) -> float:
        cell = by[name][column]
        return 100 * cell.value if isinstance(cell, Rate) else float("nan")

    ceiling, whole = share(PERFECT, 3), share(PERFECT, 4)
    theirs = [share(name, 1) for name in ("encoder", "gradient", "gradient-free")]
    mine = [share(name, 3) for name in ("encoder", "gradient", "gradient-free", "ours")]
    centred = [share(name, 4) for name in ("encoder", "gradient", "gradient-free", "ours")]
    same = (theirs[0] < theirs[1]) == (mine[0] < mine[1]) and (theirs[0] < theirs[2]) == (mine[0] < mine[2])
    verdict = ("agrees" if same else "does not agree") if _apart(by) else "not settled by so few images"
    angle = share("ours", 6)
    why = (
        "key 1 reads as key 2, since taking the real part averages each bin of that disc with one of another ring"
        if ceiling < whole
        else "the disc itself loses nothing here"
    )
    agrees = max(mine) < 80 or _lowest(by, "encoder", "gradient", "gradient-free", "ours") <= max(theirs)
    return (
        f"{'Agrees' if agrees else 'Does not agree'}: with the published off-centre disc the best method has "
        f"{max(mine):.0f} % (published: {max(theirs):.0f}) and a perfect inversion {ceiling:.0f} %, {whole:.0f} with a "
        "centred "
        f"disc, because {why}; {verdict}: encoder, gradient and gradient-free have "
        f"{mine[0]:.0f}, "
        f"{mine[1]:.0f} and {mine[2]:.0f} % here and {theirs[0]:.0f}, {theirs[1]:.0f} and {theirs[2]:.0f} % on {other}, "
        "ours "
        f"{mine[3]:.0f} % (centred: {centred[0]:.0f}, {centred[1]:.0f}, {centred[2]:.0f} and {centred[3]:.0f} %), as the "
        "rule goes by "
        f"distance and depends on how much an inversion shrinks the disc, while by angle ours has {angle:.0f} % of the "
        "centred one."
    )


def _lowest(by: dict[str, tuple[Cell, ...]], *names: str) -> float:
    """Return the lower end of the interval of the best of some methods, in per cent."""
    return 100 * max(cell.interval()[0] for name in names if isinstance(cell := by[name][3], Rate))


def _apart(by: dict[str, tuple[Cell, ...]]) -> bool:
    """Return whether the encoder's interval lies apart from gradient descent's or the gradient-free method's."""
    found = [
        cell.interval() for name in ("encoder", "gradient", "gradient-free") if isinstance(cell := by[name][3], Rate)
    ]
    (low, high), *others = found
    return any(other[0] > high or other[1] < low for other in others)
