"""Table 1 of Tree-Ring (Wen et al. 2023), AUC by attack, and the means of SFWMark (Lee and Cho 2025)."""

from __future__ import annotations

from typing import Any

from treering_detectors import Rate

from treering_verify.benchmark.harness.scope import Scope
from treering_verify.benchmark.paper.parts.extent import Extent
from treering_verify.benchmark.paper.parts.measured import Measured, listed
from treering_verify.benchmark.paper.readings import row
from treering_verify.benchmark.published_figures import SFWMARK_MEANS, TREE_RING_AUC
from treering_verify.benchmark.robustness.measurements import measure_tasks
from treering_verify.benchmark.robustness.robustness import Plan, plan
from treering_verify.benchmark.robustness.tables import series_of, sfwmark_table, tree_ring_table
from treering_verify.models import LatentModel
from treering_verify.report.findings import Part, Table

_TREE_RING, _SFWMARK = "Tree-Ring's table 1", "SFWMark's means"
_OURS_OF = {"rings": "Tree-Ring rings", "random": "Tree-Ring rand"}
_NAMED = {"rings": "Tree-Ring", "mixed-rings": "RingID", "centre-signs": "HSQR", "random": "Tree-Ring"}


def measure(model: LatentModel, scope: Scope, extent: Extent) -> list[Measured]:
    """Take the measurements of the benchmark `robustness`, under the conditions of both papers."""
    from dataclasses import replace

    count = extent.fewer
    planned = plan(model, count, quick=scope.quick, everything=True)
    tasks = list(planned.without_curves())
    if scope.quick:  # the search takes most of the time
        tasks = [replace(task, searched=False, searched_unmarked=()) for task in tasks]
    found = measure_tasks(model, scope, tasks, 2 * count, 0)
    rows: list[dict[str, Any]] = []
    for (pattern, method, attack), arrays in found.marked.items():
        rows += [
            row("attacks", pattern, method, "log10_pvalue", float(v), image=i, condition=attack, label="marked")
            for i, v in enumerate(arrays["exact"])
        ]
    for (pattern, attack), arrays in found.unmarked.items():
        rows += [
            row("attacks", pattern, "default", "log10_pvalue", float(v), image=i, condition=attack, label="unmarked")
            for i, v in enumerate(arrays["exact"])
        ]
    first = tree_ring_table(found, planned.compared, planned.drawn)
    second = sfwmark_table(found, planned.conditions, planned.patterns)
    images = f"{count} marked by random, {planned.fewer} by each other pattern and {2 * count} unmarked"
    left_out = f" Left out: {listed(list(planned.left_out))}." if planned.left_out else ""
    return [
        Measured(
            Part(f"{_TREE_RING}: AUC by attack", _tree_ring_answer(planned, found), (_noted(first, images),)),
            rows,
            images,
        ),
        Measured(
            Part(f"{_SFWMARK}: twelve conditions", _sfwmark_answer(second), (_noted(second, images + left_out),)),
            [],
            "",
        ),
    ]


def _noted(table: Table, images: str) -> Table:
    rows = tuple(line for line in table.rows if any(cell is not None for cell in line[1:]))
    return Table(table.title, table.header, rows, f"{table.note} Images: {images}.")


def _tree_ring_answer(planned: Plan, found: Any) -> str:
    """Compare ours with the published AUC of the same scheme, attack by attack."""
    texts = []
    for pattern, theirs in _OURS_OF.items():
        if pattern not in planned.drawn:
            continue
        ours = [series_of(found, pattern, condition.attack) for condition in planned.compared]
        areas = [one.auc if one is not None else None for one in ours]
        known = [
            (c.name, a, p)
            for c, a, p in zip(planned.compared, areas, TREE_RING_AUC[theirs], strict=False)
            if a is not None
        ]
        if not known:
            continue
        average = sum(a for _, a, _ in known) / len(known)
        below = [f"{name} ({a:.2f} against {p:.2f})" for name, a, p in known if a < p - 0.1]
        above = [f"{name} ({a:.2f} against {p:.2f})" for name, a, p in known if a > p + 0.1]
        texts.append(
            f"`{pattern}` has a mean AUC of {average:.3f} (published for {theirs}: {TREE_RING_AUC[theirs][-1]:.3f})"
            + (f", lower under {listed(below)}" if below else "")
            + (f", higher under {listed(above)}" if above else "")
            + ("" if below or above else ", within .1 under each attack")
        )
    moved = (
        ": a mark that was turned or moved is read at its own place where no search was made, and the patterns differ in "
        "that "
        if any("lower under" in text for text in texts)
        else ": the patterns differ in that "
    )
    return f"{'; '.join(texts)}{moved}ours own no lowest frequencies and the keys change from image to image."


def _sfwmark_answer(table: Table) -> str:
    """Compare the refitted rates with the published means."""
    texts = []
    for line in table.rows:
        name = str(line[0])
        pattern, _, detector = name.partition(", ")
        if detector != "exact" or pattern not in _NAMED or pattern == "random":
            continue
        tpr, named = SFWMARK_MEANS[_NAMED[pattern]]
        mine = [
            f"{100 * cell.value:.0f} %" if isinstance(cell, Rate) else "not measured" for cell in (line[1], line[3])
        ]
        texts.append(
            f"`{pattern}` is found in {mine[0]} at 1 % (published for {_NAMED[pattern]}: {100 * tpr:.0f} %) and named "
            "among 2048 in "
            f"{mine[1]}" + (f" ({100 * named:.0f} %)" if named is not None else "")
        )
    return (
        f"{'; '.join(texts) or 'No pattern of the paper was measured under all conditions'}; the conditions are like "
        "theirs but for "
        "stand-ins of BM3D and two neural codecs, and the model is a small one, so the order of schemes can be compared "
        "and not "
        "single figures."
    )
