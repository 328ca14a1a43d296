"""Images as people share them: how many are found by each search, where, and at what cost in time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from treering_detectors import Rate

from treering_verify.benchmark.catalogue import BENCHMARKS
from treering_verify.benchmark.harness.keyed_images import generate_cached
from treering_verify.benchmark.harness.scope import SEEDS, Scope
from treering_verify.benchmark.harness.shared_chains import CHAINS
from treering_verify.benchmark.harness.shared_images import contact_sheet, overlap
from treering_verify.detection.judge import DEFAULT_ALPHA
from treering_verify.detection.search.page import Page
from treering_verify.detection.search.search import search_page
from treering_verify.detection.search.settings import LEVELS, MOST_KEYS, Search
from treering_verify.detection.verification import key_test, verify
from treering_verify.inversion.recovery import InversionOptions, recover_in_batches
from treering_verify.media.images import fit, to_tensor
from treering_verify.models import LatentModel
from treering_verify.models.weights import fingerprint
from treering_verify.report import format_pvalue
from treering_verify.report.findings import Figure, Findings, Table, Thumbnails
from treering_verify.results import DETECTED
from treering_verify.watermark.keys.key import Key

if TYPE_CHECKING:
    from PIL import Image

_LEVELS = tuple(LEVELS)
_ALPHAS = (0.1, 0.01, 0.001)


def measure(model: LatentModel, scope: Scope) -> Findings:
    """Search each chain's pages for the image's own key, by one level after another, and for keys that marked nothing."""
    count, first = scope.images(2, 24), SEEDS["shared"]
    chains = [one for one in CHAINS if one.name in _QUICK] if scope.quick else CHAINS
    levels, several = (_LEVELS[:2], 4) if scope.quick else (_LEVELS, MOST_KEYS)
    rows = scope.rows
    pages: dict[str, Image.Image] = {}
    with scope.progress("Images", count + count * len(chains)) as advance:
        keys = [Key.generate(model.latent_shape, seed=first + i) for i in range(count)]
        images = generate_cached(model, keys, range(first, first + count), scope, advance)
        weights, fresh = fingerprint(model, without=()), 0
        for chain in chains:
            for i in range(count):
                page, box = chain.apply(images, i)
                pages.setdefault(chain.name, page)
                others = range(first + count + fresh, first + count + fresh + several)
                fresh += several
                facts = (weights, chain.name, first, i, levels, others)
                take = partial(_judged, model, page, keys[i], box, levels, others)
                base = {"group": chain.group, "chain": chain.name, "image": i}
                rows += [base | row for row in scope.cached("shared", facts, take)]
                advance()
    return Findings(
        "shared",
        BENCHMARKS["shared"].question,
        tuple(rows),
        (_by_chain(rows), _by_group(rows), _false_positives(rows), _cost(rows)),
        (
            Figure(
                "Pages",
                (Thumbnails("One page of each chain", contact_sheet(pages)),),
                "What the search is given: the first image of each chain, as it would be shared.",
            ),
        ),
        seeds=f"{first} onwards, keys likewise; one key per image",
        count=f"{count} per chain, under their own key, and under {several} fresh ones",
    )


_QUICK = ("as it is", "caption above", "mirrored")
"""Chains of a `--quick` run."""


def _judged(
    model: LatentModel,
    page: Image.Image,
    key: Key,
    box: tuple[int, int, int, int] | None,
    levels: Sequence[str],
    others: range,
) -> Iterator[dict[str, Any]]:
    """Judge a page under its image's own key, and under keys of the seeds `others`."""
    yield from _own(model, page, key, box, levels)
    yield from _others(model, page, [Key.generate(model.latent_shape, seed=seed) for seed in others])


def _own(
    model: LatentModel,
    page: Image.Image,
    key: Key,
    box: tuple[int, int, int, int] | None,
    levels: Sequence[str],
) -> Iterator[dict[str, Any]]:
    """Verify a page under its image's key by each level, until one finds it."""
    for level in levels:
        started = time.process_time()
        verdict = verify(page, key, model=model, search=level)
        best = verdict.best
        assert best is not None
        found = best.placement["box"] if best.placement else None
        yield {
            "truth": "marked",
            "search": level,
            "verdict": verdict.verdict,
            "as_it_is": verdict.verdict == DETECTED and verdict.search is None,
            "log10_pvalue": best.log10_adjusted,
            "hypothesis": best.hypothesis,
            "overlap": overlap(tuple(found), box) if found and box else None,
            "seconds": time.process_time() - started,
        }
        if verdict.verdict == DETECTED:
            return


def _others(model: LatentModel, page: Image.Image, keys: Sequence[Key]) -> Iterator[dict[str, Any]]:
    """Search a page for keys that marked nothing, all at once, by the cheapest level."""
    import torch

    image, _ = fit(page, model.image_size)
    pixels, invert = to_tensor(image), partial(recover_in_batches, model, InversionOptions())
    noise = torch.zeros(model.latent_shape) if model.screen is not None else invert(pixels)[0]
    targets = key_test(keys, model).targets()
    started = time.process_time()
    done = search_page(model, Page((page,)), pixels, noise, targets, Search(_LEVELS[0]), invert, alpha=1e-300)
    seconds = (time.process_time() - started) / len(keys)
    for found in done.found:
        yield {
            "truth": "another key",
            "search": _LEVELS[0],
            "verdict": "",
            "as_it_is": False,
            "log10_pvalue": found.log10_pvalue if found else 0.0,
            "hypothesis": found.hypothesis if found else "",
            "overlap": None,
            "seconds": seconds,
        }


def _rates(rows: list[dict[str, Any]]) -> tuple[Rate, ...]:
    """Return how many images were detected as they are, and by each level or a cheaper one."""
    marked = [row for row in rows if row["truth"] == "marked"]
    total = len({(row["chain"], row["image"]) for row in marked})
    found = [row for row in marked if row["verdict"] == DETECTED]
    counts = [sum(row["as_it_is"] for row in found)]
    counts += [sum(row["search"] in _LEVELS[: n + 1] for row in found) for n in range(len(_LEVELS))]
    return tuple(Rate(n, total) for n in counts)


def _by_chain(rows: list[dict[str, Any]]) -> Table:
    lines = []
    for chain in dict.fromkeys(row["chain"] for row in rows):
        some = [row for row in rows if row["chain"] == chain]
        last = {row["image"]: row for row in some if row["truth"] == "marked"}.values()  # of the level that ended it
        overlaps = [row["overlap"] for row in last if row["overlap"] is not None and row["verdict"] == DETECTED]
        *counts, rate = _rates(some)
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
        ("group", "chain", "as it is", *_LEVELS, "median p", "overlap"),
        tuple(lines),
        "Each column counts what that level or a cheaper one found. Interval: Clopper-Pearson, 95 %. Median p: of the level "
        "that found the image, or the last. Overlap: intersection over union of the box found and the true one, median of "
        "the images that a search found in a box.",
    )


def _by_group(rows: list[dict[str, Any]]) -> Table:
    groups = dict.fromkeys(row["group"] for row in rows)
    lines = [(group, *_rates([row for row in rows if row["group"] == group])) for group in groups]
    return Table(
        f"Found at {DEFAULT_ALPHA:g}, by group",
        ("group", "as it is", *_LEVELS),
        (*lines, ("all", *_rates(rows))),
        "All chains count alike. Intervals: Clopper-Pearson, 95 %; images of several chains are the same ones.",
    )


def _false_positives(rows: list[dict[str, Any]]) -> Table:
    others = [row for row in rows if row["truth"] == "another key"]
    lines = []
    for group in (*dict.fromkeys(row["group"] for row in others), "all"):
        some = [row["log10_pvalue"] for row in others if group in ("all", row["group"])]
        lines.append((group, *(Rate(sum(p <= np.log10(alpha) for p in some), len(some)) for alpha in _ALPHAS)))
    return Table(
        f"Keys that marked nothing: p of the search alone, by {_LEVELS[0]}",
        ("group", *(f"p <= {alpha:g}" for alpha in _ALPHAS)),
        tuple(lines),
        "One trial is a page and a fresh key. The search has half of alpha, so at most half as many are expected.",
    )


def _cost(rows: list[dict[str, Any]]) -> Table:
    lines = []
    for group in dict.fromkeys(row["group"] for row in rows):
        cells = []
        for level in _LEVELS:
            some = [
                row["seconds"]
                for row in rows
                if (row["group"], row["search"], row["truth"]) == (group, level, "marked") and not row["as_it_is"]
            ]
            cells.append(f"{statistics.median(some):.1f} s" if some else None)
        lines.append((group, *cells))
    return Table(
        "Seconds of a processor for an image that is not detected as it is: inversion, search, inversion of what was found",
        ("group", *_LEVELS),
        tuple(lines),
        "Medians over the images that the cheaper levels did not find.",
    )
