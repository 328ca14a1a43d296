"""What 'no evidence' covers: the share of marks that each level of the search finds in files as people have them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from treering_detectors import Rate

from treering_verify.benchmark.catalogue import BENCHMARKS
from treering_verify.benchmark.harness.keyed_images import generate_each
from treering_verify.benchmark.harness.resized_pages import FILE, PAGES, TEXT
from treering_verify.benchmark.harness.scope import SEEDS, Scope
from treering_verify.benchmark.harness.shared_chains import Chain
from treering_verify.detection.judge import DEFAULT_ALPHA, Judge
from treering_verify.detection.screening import default_screening
from treering_verify.detection.search.settings import LEVELS, OFF
from treering_verify.detection.search.whole_image import drawn
from treering_verify.detection.verification import key_test
from treering_verify.inversion.recovery import InversionOptions
from treering_verify.media.conversion import fit, to_tensor
from treering_verify.models import LatentModel
from treering_verify.models.weights import fingerprint
from treering_verify.report.findings import Findings, Table
from treering_verify.results import DETECTED
from treering_verify.watermark.keys.key import Key

if TYPE_CHECKING:
    from PIL import Image

ENOUGH = 0.95
"""Share of marks that must be found where 'no evidence' is said."""
_FEWEST = 8  # images, before a level is given up where fewer than `ENOUGH` are found


def measure(model: LatentModel, scope: Scope) -> Findings:
    """Judge marked images, each under a key of its own, as audits do, level by level until the mark is found."""
    count, first = scope.images(4, 96), SEEDS["coverage"]
    pages = PAGES[:4] if scope.quick else PAGES
    levels = list(LEVELS)[:2] if scope.quick else list(LEVELS)
    weights = fingerprint(model)
    rows = scope.rows
    with scope.progress("Images", count + count * len(pages)) as advance:
        keys = [Key.generate(model.latent_shape, seed=first + i) for i in range(count)]
        images = generate_each(model, keys, range(first, first + count), advance)
        judges = [_judges(model, key, levels) for key in keys]
        for chain in pages:
            of_chain: list[dict[str, Any]] = []
            for i in range(count):
                work = partial(_judged, model, chain, images, i, judges[i], tuple(of_chain))
                of_chain += scope.cached("coverage", (weights, levels, chain.name, i), work)
                advance()
            rows += of_chain
    return Findings(
        "coverage",
        BENCHMARKS["coverage"].question,
        tuple(rows),
        (_found(rows), _worst(rows), *_covered(rows)),
        seeds=f"{first} onwards, keys likewise; one key per image",
        count=f"{count} per change; fewer where a level is given up",
    )


def _judges(model: LatentModel, key: Key, levels: list[str]) -> dict[str, Judge]:
    test, inversion = key_test([key], model), InversionOptions()
    screening = default_screening(model, inversion, 1)
    return {
        level: Judge.of(model, test, alpha=DEFAULT_ALPHA, inversion=inversion, screening=screening, search=level)
        for level in levels
    }


def _judged(
    model: LatentModel,
    chain: Chain,
    images: Sequence[Image.Image],
    number: int,
    judges: dict[str, Judge],
    before: Sequence[dict[str, Any]],
) -> list[dict[str, Any]]:
    """Judge one page by each level that may still find enough, until one finds it; a row for each level, and off."""
    page, _ = chain.apply(images, number)
    occluded = _occluded(model, page) if chain.group == TEXT else None
    rows: list[dict[str, Any]] = []
    found = False
    for level, judge in judges.items():
        rate = _rate([row for row in before if row["search"] == level])
        if rate.trials >= _FEWEST and rate.interval()[1] < ENOUGH:
            continue
        if not found:
            started = time.process_time()
            (verdict,) = judge.verdicts([page.info.get(FILE, page)])
            assert verdict.best is not None
            found = verdict.verdict == DETECTED
            facts = {
                "verdict": verdict.verdict,
                "code": verdict.code,
                "log10_pvalue": verdict.best.log10_adjusted,
                "hypothesis": verdict.best.hypothesis,
                "seconds": time.process_time() - started,
                "occluded": occluded,
            }
            if not rows:  # without a search the same pages are found that a search need not begin for
                rows.append(_row(chain, number, OFF, found and verdict.search is None, facts))
        rows.append(_row(chain, number, level, found, facts))
    return rows


def _occluded(model: LatentModel, page: Image.Image) -> float:
    """Return the share of a page that the model's autoencoder cannot draw, as a search finds it."""
    return 1 - float(drawn(model, to_tensor(fit(page, model.image_size)[0])).mean())


def _row(chain: Chain, number: int, level: str, found: bool, facts: dict[str, Any]) -> dict[str, Any]:
    return {"group": chain.group, "change": chain.name, "search": level, "image": number, "found": found, **facts}


def _rate(rows: list[dict[str, Any]]) -> Rate:
    return Rate(sum(row["found"] for row in rows), len(rows))


def _found(rows: list[dict[str, Any]]) -> Table:
    levels = list(dict.fromkeys(row["search"] for row in rows))
    lines = []
    for change in dict.fromkeys(row["change"] for row in rows):
        rates = [_rate([row for row in rows if (row["change"], row["search"]) == (change, level)]) for level in levels]
        lines.append((change, *(rate if rate.trials else None for rate in rates)))
    return Table(
        f"Marks found at {DEFAULT_ALPHA:g}, by the level of the search",
        ("change", *levels),
        tuple(lines),
        "Intervals: Clopper-Pearson, 95 %. Each level judges what the levels before it missed; one whose interval ends "
        f"below {ENOUGH:g} after {_FEWEST} images or more is given up for that change. Two passes, as in audits.",
    )


def _worst(rows: list[dict[str, Any]]) -> Table:
    """Count what was said of the marks that were missed: 'no evidence' should be rare."""
    lines = []
    for change in dict.fromkeys(row["change"] for row in rows):
        for level in dict.fromkeys(row["search"] for row in rows):
            some = [row for row in rows if (row["change"], row["search"]) == (change, level) and level != OFF]
            missed = [row for row in some if not row["found"]]
            if missed:
                said = sum(row["code"] == "" for row in missed)
                lines.append((change, level, len(missed), said, len(missed) - said))
    return Table(
        "What was said of the marks that were missed",
        ("change", "search", "missed", "no evidence", "inconclusive"),
        tuple(lines),
    )


def _covered(rows: list[dict[str, Any]]) -> tuple[Table, ...]:
    """Count what is found by the share that is covered, whatever covers it, in steps of a tenth."""
    written = [row for row in rows if row["occluded"] is not None]
    if not written:
        return ()
    levels = list(dict.fromkeys(row["search"] for row in written))
    lines = []
    for tenth in sorted({_tenth(row) for row in written}):
        some = [row for row in written if _tenth(row) == tenth]
        rates = [_rate([row for row in some if row["search"] == level]) for level in levels]
        shares = [row["occluded"] for row in some]
        between = f"{min(shares):.3f} to {max(shares):.3f}"
        lines.append((f"{tenth / 10:.1f}", between, *(rate if rate.trials else None for rate in rates)))
    note = "Covered: the share of the page that the autoencoder cannot draw, as the search measures it, in steps of .1."
    return (Table("Marks found under text", ("covered", "from ... to", *levels), tuple(lines), note),)


def _tenth(row: dict[str, Any]) -> int:
    return round(10 * row["occluded"])
