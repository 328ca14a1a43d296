"""Images as people share them: how many are found by each search, where, and at what cost in time."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from treering_detectors import Rate

from treering_verify.benchmark.catalogue import BENCHMARKS
from treering_verify.benchmark.harness.scope import Scope
from treering_verify.benchmark.harness.shared_chains import CHAINS
from treering_verify.benchmark.harness.shared_images import contact_sheet
from treering_verify.benchmark.shared_trials import FIRST, INDEX, KEYS, MARKED, TWIN, Trials
from treering_verify.detection.judge import DEFAULT_ALPHA
from treering_verify.detection.search.settings import LEVELS
from treering_verify.errors import UsageError
from treering_verify.models import LatentModel
from treering_verify.report import format_pvalue, leading_zeros
from treering_verify.report.findings import Figure, Findings, Table, Thumbnails
from treering_verify.results import DETECTED

if TYPE_CHECKING:
    from PIL import Image

    from treering_verify.benchmark.harness.shared_chains import Chain

_LEVELS = tuple(LEVELS)
_ALPHAS = (0.1, 0.01, 0.001)
_QUICK = ("as it is", "caption above", "mirrored")
"""Chains of a `--quick` run."""
COMMON = "common"
_COMMON = frozenset(one.name for one in CHAINS[:26])
"""Chains that people share most, as one part of the benchmark."""


def measure(model: LatentModel, scope: Scope) -> Findings:
    """Judge each chain's pages by one level after another until the image's own key is found, and their unmarked twins.

    Where chains were chosen, rows of the others are taken from the results in the folder, if there are any.
    """
    chains = chosen_chains(scope, _QUICK, (*_LEVELS, INDEX))
    levels = scope.chosen((*_LEVELS, INDEX), _LEVELS[:2] if scope.quick else _LEVELS)
    trials = Trials(model, scope, scope.images(2, 24), levels)
    rows = scope.rows
    pages: dict[str, Image.Image] = {}
    with scope.progress("Pages", trials.count * len(chains)) as advance:
        for i in range(
            trials.count
        ):  # every chain of an image before the next, so that a run that is stopped is of use
            for chain in chains:
                rows += [row for truth in (MARKED, TWIN) for row in trials.rows(chain, i, truth)]
                if i == 0:
                    pages[chain.name] = trials.page(chain, 0, MARKED)[0]
                advance()
    rows += trials.rows_of_others(chains)
    order = {one.name: n for n, one in enumerate(CHAINS)}
    rows.sort(key=lambda row: order[row["chain"]])
    return Findings(
        "shared",
        BENCHMARKS["shared"].question,
        tuple(rows),
        (_by_chain(rows, levels), _by_group(rows, levels), _twins(rows), _cost(rows, levels)),
        (
            Figure(
                "Pages",
                (Thumbnails("One page of each chain", contact_sheet(pages)),),
                "What the search is given: the first image of each chain, as it would be shared.",
            ),
        ),
        seeds=f"{FIRST} onwards, keys likewise; one key per image, and {KEYS} keys for {INDEX}",
        count=f"{_counts(rows)} per chain, and their unmarked twins, judged by {trials.twins}",
        answer=_answer(rows, levels),
    )


def chosen_chains(scope: Scope, quick: Sequence[str], others: Sequence[str] = ()) -> list[Chain]:
    """Return the chains that a run asks for: all, or those of a quick run, if it names no chain or group of chains.

    `others` are parts of the benchmark that are no chains.
    """
    # Results write numbers with their zero, so that a line of a report can be run again.
    only = [leading_zeros(part) for part in scope.only]
    names = {leading_zeros(one.name): one.name for one in CHAINS}
    known = {*others, COMMON, *names, *(one.group for one in CHAINS)}
    if unknown := [part for part in only if part not in known]:
        kinds = f"a chain, a group, {COMMON}" + "".join(f", {one}" for one in others)
        raise UsageError(f"no part {unknown[0]!r} of the benchmark: name {kinds}")
    asked = {names.get(part, part) for part in only if part not in others}
    asked |= _COMMON if COMMON in asked else set()
    if scope.quick and not asked:
        return [one for one in CHAINS if one.name in quick]
    return [one for one in CHAINS if one.name in asked or one.group in asked or not asked]


def _answer(rows: list[dict[str, Any]], levels: Sequence[str]) -> str:
    rates = dict(zip(("as they are", *levels), _rates(rows, levels), strict=True))
    found = ", ".join(f"{name} {rate.successes}" for name, rate in rates.items())
    twins = [row for row in rows if row["truth"] == TWIN]
    named = sum(row["verdict"] == DETECTED for row in twins)
    total = rates["as they are"].trials
    return f"Of {total} pages of marked images, found: {found}. Of {len(twins)} unmarked twins, detected: {named}."


def _counts(rows: list[dict[str, Any]]) -> str:
    """Return how many images the chains have: 16, or 16 and 100."""
    images: dict[str, set[int]] = {}
    for row in rows:
        images.setdefault(row["chain"], set()).add(row["image"])
    return " or ".join(str(n) for n in sorted({len(some) for some in images.values()}))


def _rates(rows: list[dict[str, Any]], levels: Sequence[str]) -> tuple[Rate, ...]:
    """Return how many images were detected as they are, and by each level or a cheaper one."""
    marked = [row for row in rows if row["truth"] == MARKED]
    total = len({(row["chain"], row["image"]) for row in marked})
    found = [row for row in marked if row["verdict"] == DETECTED]
    counts = [sum(row["as_it_is"] for row in found)]
    counts += [sum(row["search"] in levels[: n + 1] for row in found) for n in range(len(levels))]
    return tuple(Rate(n, total) for n in counts)


def _by_chain(rows: list[dict[str, Any]], levels: Sequence[str]) -> Table:
    lines = []
    for chain in dict.fromkeys(row["chain"] for row in rows):
        some = [row for row in rows if row["chain"] == chain]
        last = {row["image"]: row for row in some if row["truth"] == MARKED}.values()  # of the level that ended it
        overlaps = [row["overlap"] for row in last if row["overlap"] is not None and row["verdict"] == DETECTED]
        *counts, rate = _rates(some, levels)
        lines.append(
            (
                some[0]["group"],
                chain,
                *(one.successes for one in counts),
                rate,
                format_pvalue(float(np.median([row["log10_pvalue"] for row in last]))),
                round(statistics.median(overlaps), 2) if overlaps else None,
            )
        )
    return Table(
        f"Found at {DEFAULT_ALPHA:g}, p corrected for the search",
        ("group", "chain", "as it is", *levels, "median p", "overlap"),
        tuple(lines),
        f"Each column counts what that level or a cheaper one found; {INDEX} is `fast` for {KEYS} keys. "
        "Interval: Clopper-Pearson, 95 %. Median p: of the level "
        "that found the image, or the last. Overlap: intersection over union of the box found and the true one, median of "
        "the images that a search found in a box.",
    )


def _by_group(rows: list[dict[str, Any]], levels: Sequence[str]) -> Table:
    groups = dict.fromkeys(row["group"] for row in rows)
    lines = [(group, *_rates([row for row in rows if row["group"] == group], levels)) for group in groups]
    chains = dict.fromkeys(row["chain"] for row in rows)
    by_chain = [_rates([row for row in rows if row["chain"] == chain], levels) for chain in chains]
    means = [f"{100 * statistics.mean(rate.value for rate in column):.1f} %" for column in zip(*by_chain, strict=True)]
    return Table(
        f"Found at {DEFAULT_ALPHA:g}, by group",
        ("group", "as it is", *levels),
        (*lines, ("all", *_rates(rows, levels)), (f"mean of the {len(chains)} chains", *means)),
        "All pages count alike, and in the last line all chains. Intervals: Clopper-Pearson, 95 %; images of several "
        "chains are the same ones.",
    )


def _twins(rows: list[dict[str, Any]]) -> Table:
    twins = [row for row in rows if row["truth"] == TWIN]
    lines = []
    for group in (*dict.fromkeys(row["group"] for row in twins), "all"):
        some = [row["log10_pvalue"] for row in twins if group in ("all", row["group"])]
        lines.append((group, *(Rate(sum(p <= np.log10(alpha) for p in some), len(some)) for alpha in _ALPHAS)))
    return Table(
        "Unmarked twins: p of the verdict, corrected for the search",
        ("group", *(f"p <= {alpha:g}" for alpha in _ALPHAS)),
        tuple(lines),
        "A twin has the same seed and no mark; it is judged under its image's key. Intervals: Clopper-Pearson, 95 %.",
    )


def _cost(rows: list[dict[str, Any]], levels: Sequence[str]) -> Table:
    lines = []
    for group in dict.fromkeys(row["group"] for row in rows):
        cells = []
        for level in levels:
            some = [
                row["seconds"]
                for row in rows
                if (row["group"], row["search"], row["truth"]) == (group, level, MARKED) and not row["as_it_is"]
            ]
            cells.append(f"{statistics.median(some):.1f} s" if some else None)
        lines.append((group, *cells))
    return Table(
        "Seconds of a processor for an image that is not detected as it is: inversion, search, inversion of what was found",
        ("group", *levels),
        tuple(lines),
        "Medians over the images that the cheaper levels did not find.",
    )
