"""How small the p-values of a search are for keys that marked nothing, on pages of many kinds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from treering_detectors import Rate

from treering_verify.benchmark.catalogue import BENCHMARKS
from treering_verify.benchmark.harness.cache import cached
from treering_verify.benchmark.harness.scope import SEEDS, Scope
from treering_verify.benchmark.harness.shared_chains import CHAINS
from treering_verify.benchmark.harness.shared_images import text_page
from treering_verify.benchmark.harness.unmarked_images import UnmarkedImages
from treering_verify.detection.search.grid import IDENTITY
from treering_verify.detection.search.page import Page
from treering_verify.detection.search.search import Known, search_page
from treering_verify.detection.search.settings import LEVELS, Search
from treering_verify.detection.verification import key_test
from treering_verify.errors import UsageError
from treering_verify.inversion.recovery import InversionOptions, recover_in_batches
from treering_verify.media.conversion import fit, to_tensor
from treering_verify.models import LatentModel
from treering_verify.models.weights import fingerprint
from treering_verify.report import format_pvalue
from treering_verify.report.findings import Cell, Findings, Table
from treering_verify.version import __version__
from treering_verify.watermark.keys.key import Key

if TYPE_CHECKING:
    from PIL import Image

SEARCH, VERDICT = "search", "verdict"
_ALPHAS = (0.1, 0.01, 0.001)
_TEXT_ALONE = 8  # of so many pages, one holds text and no image
_STRIDE = 23  # between the chains of neighbouring pages; it has no factor in common with their number
_FRESH = SEEDS["search-uniformity"] + (1 << 24)  # seed of the first fresh key; images and their keys have smaller ones
_BESIDE = 9  # images that a chain may put on one page


def measure(model: LatentModel, scope: Scope) -> Findings:
    """Search pages without marks for fresh keys, each alone; what does not depend on keys is estimated once a page."""
    count, several, seed = scope.images(2, 160), 4 if scope.quick else 64, SEEDS["search-uniformity"]
    if unknown := sorted({*scope.only} - {*LEVELS}):
        raise UsageError(
            f"no part {unknown[0]!r} of the benchmark search-uniformity: name a level ({', '.join(LEVELS)})"
        )
    levels = scope.chosen(tuple(LEVELS), ("quick",) if scope.quick else ("quick", "fast"))
    images = UnmarkedImages(model, count + _BESIDE, seed)
    facts = (fingerprint(model, without=()), __version__, seed, several)
    rows = scope.rows
    with scope.progress("Pages", count * len(levels)) as advance:
        for level in levels:
            for i in range(count):
                name = _chain(i)
                found = cached(
                    scope.folder,
                    f"page-{level}",
                    (*facts, level, i),
                    partial(_tested, model, images, i, several, level),
                )
                kind = str(found["kind"])
                for k in range(several):
                    row = {name: float(found[name][k]) for name in (SEARCH, VERDICT)}
                    rows.append({"page": i, "chain": name, "kind": kind, "level": level, "key": k, **row})
                advance()
    return Findings(
        "search-uniformity",
        BENCHMARKS["search-uniformity"].question,
        tuple(rows),
        (_counts(rows, levels), _by_kind(rows, levels)),
        seeds=f"{seed} onwards; a fresh key for each pair",
        count=f"{count} pages, {several} keys each",
        answer=_answer(rows),
    )


def _answer(rows: list[dict[str, Any]]) -> str:
    reached = sum(row[VERDICT] <= -2 for row in rows)
    return f"Of {len(rows)} pairs of a page and a fresh key, {reached} have p <= .01; at most {len(rows) / 100:.0f} are due."


def _chain(i: int) -> str:
    """Return the chain that makes page i, "" of a page of text."""
    return "" if i % _TEXT_ALONE == _TEXT_ALONE - 1 else CHAINS[i * _STRIDE % len(CHAINS)].name


def _page(images: UnmarkedImages, i: int, model: LatentModel) -> tuple[Image.Image, str]:
    """Return page i, and what kind of image it shows."""
    height, width = model.image_size
    name = _chain(i)
    if not name:
        return text_page(width * (2 + i % 3), height * (1 + i % 2)), "text alone"
    some = images.some(range(i, i + _BESIDE))
    (chain,) = (one for one in CHAINS if one.name == name)
    return chain.apply([one.image for one in some], 0)[0], some[0].kind


def _tested(model: LatentModel, images: UnmarkedImages, i: int, several: int, level: str) -> dict[str, NDArray[Any]]:
    """Return log10 p under fresh keys: of the search alone, and of the verdict."""
    page, kind = _page(images, i, model)
    invert: Callable[..., Any] = partial(recover_in_batches, model, InversionOptions())
    pixels = to_tensor(fit(page, model.image_size)[0])
    noise, known = invert(pixels)[0], Known()
    alone, joined = [], []
    for k in range(several):
        test = key_test([Key.generate(model.latent_shape, seed=_FRESH + 1000 * i + k)], model)
        done = search_page(
            model, Page((page,)), pixels, noise, test.targets(), Search(level), invert, alpha=1e-300, known=known
        )
        found = done.found[0]
        alone.append(min(0.0, found.log10_pvalue) if found else 0.0)
        as_it_is = test.evidence(noise[None])[0][0].log10_pvalue - np.log10(IDENTITY)
        joined.append(min(0.0, alone[-1], as_it_is))
    return {SEARCH: np.array(alone), VERDICT: np.array(joined), "kind": np.array(kind)}


def _counts(rows: list[dict[str, Any]], levels: Sequence[str]) -> Table:
    from scipy import stats

    lines: list[tuple[Cell, ...]] = []
    for level in levels:
        for which in (SEARCH, VERDICT):
            log10 = np.array([row[which] for row in rows if row["level"] == level])
            above = stats.kstest(10**log10, "uniform", alternative="greater").pvalue
            rates = (Rate(int((log10 <= np.log10(alpha)).sum()), len(log10)) for alpha in _ALPHAS)
            lines.append((level, which, len(log10), format_pvalue(float(np.log10(above))), *rates))
    return Table(
        "P-values of pages without the key",
        ("level", "p of", "pairs", "KS p", *(f"p <= {alpha:g}" for alpha in _ALPHAS)),
        tuple(lines),
        "A pair is a page and a fresh key. The search has half of alpha, the image as it is the other half: at most half of "
        "alpha is due to the search alone, and alpha to the verdict. KS: one-sided Kolmogorov-Smirnov test of whether small "
        "p-values are more frequent than uniform ones. Intervals: Clopper-Pearson, 95 %.",
    )


def _by_kind(rows: list[dict[str, Any]], levels: Sequence[str]) -> Table:
    lines: list[tuple[Cell, ...]] = []
    for level in levels:
        for kind in sorted({row["kind"] for row in rows}):
            some = [row for row in rows if (row["level"], row["kind"]) == (level, kind)]
            log10 = np.array([row[VERDICT] for row in some])
            rates = (Rate(int((log10 <= np.log10(alpha)).sum()), len(log10)) for alpha in _ALPHAS)
            lines.append((level, kind, len({row["page"] for row in some}), *rates))
    return Table(
        "By kind of image on the page",
        ("level", "kind", "pages", *(f"p <= {alpha:g}" for alpha in _ALPHAS)),
        tuple(lines),
        "P of the verdict.",
    )
