"""Images as people share them: how many are found by each search, where, and at what cost in time."""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np
from treering_detectors import Rate

from treering_verify.benchmark.catalogue import BENCHMARKS
from treering_verify.benchmark.harness.keyed_images import generate_each
from treering_verify.benchmark.harness.scope import SEEDS, Scope
from treering_verify.benchmark.harness.shared_images import CHAINS, overlap
from treering_verify.detection.judge import DEFAULT_ALPHA
from treering_verify.detection.verification import verify
from treering_verify.models import LatentModel
from treering_verify.report import format_pvalue
from treering_verify.report.findings import Findings, Table
from treering_verify.results import DETECTED
from treering_verify.watermark.keys.key import Key

_SEARCHES = ("off", "quick", "fast", "thorough")


def measure(model: LatentModel, scope: Scope) -> Findings:
    """Verify images, each under a key of its own, and under another key, after every chain, by every search."""
    count, first = scope.images(2, 24), SEEDS["shared"]
    chains = CHAINS[:1] + CHAINS[8:10] if scope.quick else CHAINS
    searches = _SEARCHES[1:3] if scope.quick else _SEARCHES
    rows: list[dict[str, Any]] = []
    with scope.progress("Images", count + count * len(chains) * len(searches)) as advance:
        keys = [Key.generate(model.latent_shape, seed=first + i) for i in range(count)]
        images = generate_each(model, keys, range(first, first + count), advance)
        others = [Key.generate(model.latent_shape, seed=first + count + i) for i in range(count)]
        for chain in chains:
            for i in range(count):
                page, box = chain.apply(images, i)
                for search in searches:
                    for truth, key in (("marked", keys[i]), ("another key", others[i])):
                        started = time.process_time()
                        verdict = verify(page, key, model=model, search=search)
                        best = verdict.best
                        assert best is not None
                        found = best.placement["box"] if best.placement else None
                        rows.append(
                            {
                                "group": chain.group,
                                "chain": chain.name,
                                "search": search,
                                "truth": truth,
                                "image": i,
                                "verdict": verdict.verdict,
                                "log10_pvalue": best.log10_adjusted,
                                "hypothesis": best.hypothesis,
                                "overlap": overlap(tuple(found), box) if found and box else None,
                                "seconds": time.process_time() - started,
                            }
                        )
                    advance()
    return Findings(
        "shared",
        BENCHMARKS["shared"].question,
        tuple(rows),
        (_found(rows), _cost(rows)),
        seeds=f"{first} onwards, keys likewise; one key per image",
        count=f"{count} per chain, under their own key and under another",
    )


def _found(rows: list[dict[str, Any]]) -> Table:
    lines = []
    for chain in dict.fromkeys(row["chain"] for row in rows):
        for search in dict.fromkeys(row["search"] for row in rows):
            some = [row for row in rows if (row["chain"], row["search"]) == (chain, search)]
            rates = [
                Rate(sum(row["verdict"] == DETECTED for row in part), len(part))
                for part in ([row for row in some if row["truth"] == truth] for truth in ("marked", "another key"))
            ]
            marked = [row for row in some if row["truth"] == "marked"]
            overlaps = [row["overlap"] for row in marked if row["overlap"] is not None and row["verdict"] == DETECTED]
            lines.append(
                (
                    chain,
                    search,
                    *rates,
                    format_pvalue(float(np.median([row["log10_pvalue"] for row in marked]))),
                    round(statistics.median(overlaps), 2) if overlaps else None,
                )
            )
    return Table(
        f"Detection at {DEFAULT_ALPHA:g}, p corrected for the search",
        ("chain", "search", "true positives", "false positives", "median p", "overlap of boxes"),
        tuple(lines),
        "Intervals: Clopper-Pearson, 95 %. Overlap: intersection over union of the box found and the true one, "
        "the median of the images that the search found.",
    )


def _cost(rows: list[dict[str, Any]]) -> Table:
    lines = []
    for chain in dict.fromkeys(row["chain"] for row in rows):
        for search in dict.fromkeys(row["search"] for row in rows):
            some = [row for row in rows if (row["chain"], row["search"]) == (chain, search)]
            seconds = [[row["seconds"] for row in some if row["truth"] == t] for t in ("marked", "another key")]
            lines.append((chain, search, *(f"{statistics.median(part):.2f} s" for part in seconds)))
    return Table(
        "Seconds of a processor for an image, inversion and search",
        ("chain", "search", "marked", "another key"),
        tuple(lines),
        "Medians.",
    )
