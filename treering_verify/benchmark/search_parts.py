"""What each part of the search brings: pages that `thorough` finds, and those that it finds without the part."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from treering_detectors import Rate

from treering_verify.benchmark.catalogue import BENCHMARKS
from treering_verify.benchmark.harness.scope import Scope
from treering_verify.benchmark.shared import chosen_chains
from treering_verify.benchmark.shared_trials import FIRST, MARKED, Trials
from treering_verify.detection.judge import DEFAULT_ALPHA
from treering_verify.detection.search.settings import LEVELS
from treering_verify.models import LatentModel
from treering_verify.report.findings import Findings, Table
from treering_verify.results import DETECTED

if TYPE_CHECKING:
    from treering_verify.detection.search.settings import Level

ALL, QUICK = "thorough", "quick"
_ALL = LEVELS[ALL]
PARTS: dict[str, Level] = {
    "without other colours": replace(_ALL, looks=False),
    "without other angles": replace(_ALL, turns=0),
    "without other aspects": replace(_ALL, stretched=False),
    "without small images": replace(_ALL, smallest=LEVELS["fast"].smallest),
    "with one guess refined": replace(_ALL, refined=1, promising=LEVELS[QUICK].promising),
}
"""`thorough` without a part. Without other colours, what covers an image is looked for as `quick` does it."""
_TOGETHER = 8  # images that chains put beside each other, as in the benchmark `shared`
_QUICK_CHAINS = ("as it is", "colours inverted", "turned by 10 degrees on white")


def measure(model: LatentModel, scope: Scope) -> Findings:
    """Judge each chain's pages by `quick`, and those that it does not find by `thorough`, whole and without each part."""
    count = scope.images(1, 3)
    chains = chosen_chains(scope, _QUICK_CHAINS)
    trials = Trials(model, scope, max(count, _TOGETHER), (ALL,))
    rows = scope.rows
    with _added(PARTS), scope.progress("Pages", count * len(chains)) as advance:
        for i in range(count):  # every chain of an image before the next, so that a run that is stopped is of use
            for chain in chains:
                found = trials.judged(chain, i, MARKED, (QUICK,))
                rows += found
                if found[0]["verdict"] != DETECTED:
                    for name in (ALL, *PARTS):
                        rows += trials.judged(chain, i, MARKED, (name,))
                advance()
    return Findings(
        "search-parts",
        BENCHMARKS["search-parts"].question,
        tuple(rows),
        (_by_group(rows), _by_chain(rows)),
        seeds=f"{FIRST} onwards, keys likewise; one key per image",
        count=f"{count} per chain",
        answer=_answer(rows),
    )


@contextmanager
def _added(levels: Mapping[str, Level]) -> Iterator[None]:
    """Add levels of the search to those that have a name, as long as something is measured by them."""
    LEVELS.update(levels)
    try:
        yield
    finally:
        for name in levels:
            del LEVELS[name]


def _found(rows: list[dict[str, Any]]) -> dict[str, Rate]:
    """Return how many pages each search found; what `quick` found counts as found by all."""
    pages = {(row["chain"], row["image"]) for row in rows}
    by_quick = sum(row["search"] == QUICK and row["verdict"] == DETECTED for row in rows)
    found = {
        name: by_quick + sum(row["search"] == name and row["verdict"] == DETECTED for row in rows)
        for name in (ALL, *PARTS)
    }
    return {name: Rate(number, len(pages)) for name, number in {QUICK: by_quick, **found}.items()}


def _answer(rows: list[dict[str, Any]]) -> str:
    found = _found(rows)
    parts = ", ".join(f"{name} {found[name].successes}" for name in PARTS)
    return f"Of {found[ALL].trials} pages of marked images {ALL} finds {found[ALL].successes}; {parts}."


def _by_group(rows: list[dict[str, Any]]) -> Table:
    groups = dict.fromkeys(row["group"] for row in rows)
    lines = [(group, *_found([row for row in rows if row["group"] == group]).values()) for group in groups]
    return Table(
        f"Found at {DEFAULT_ALPHA:g}, by group",
        ("group", QUICK, ALL, *PARTS),
        (*lines, ("all", *_found(rows).values())),
        f"What {QUICK} finds is not judged again, and counts as found in each column. Intervals: Clopper-Pearson, 95 %; "
        "images of several chains are the same ones.",
    )


def _by_chain(rows: list[dict[str, Any]]) -> Table:
    """Return the chains of which a part finds more."""
    lines = []
    for chain in dict.fromkeys(row["chain"] for row in rows):
        _, whole, *parts = _found([row for row in rows if row["chain"] == chain]).values()
        if any(one.successes != whole.successes for one in parts):
            lines.append((chain, f"{whole.successes}/{whole.trials}", *(one.successes for one in parts)))
    return Table(
        "Chains that need a part",
        ("chain", ALL, *PARTS),
        tuple(lines),
        "Pages found; chains that are found as often without each part are left out.",
    )
