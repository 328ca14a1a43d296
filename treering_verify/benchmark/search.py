"""Detection of rotated, mirrored and cropped images by each search and pattern, and the time that a search takes."""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np
from treering_detectors import Rate

from treering_verify.benchmark.catalogue import BENCHMARKS
from treering_verify.benchmark.harness.keyed_images import generate_each
from treering_verify.benchmark.harness.scope import CLEAN, SEEDS, Scope, distorted
from treering_verify.detection.evidence import evidence_of, searched_evidence
from treering_verify.detection.judge import DEFAULT_ALPHA
from treering_verify.detection.search.search import Search
from treering_verify.generation.generator import generate
from treering_verify.inversion.recovery import recover_noise
from treering_verify.media.images import to_tensor
from treering_verify.models import LatentModel
from treering_verify.report import format_pvalue
from treering_verify.report.findings import Findings, Table
from treering_verify.watermark.keys.key import Key

_PATTERNS: tuple[tuple[str, dict[str, Any]], ...] = (("random", {}), ("rings", {"pattern": "rings"}))
_ATTACKS = (
    CLEAN,
    "flip",
    "rotate:degrees=5",
    "rotate:degrees=75",
    "rotate:degrees=75+jpeg:quality=50",
    "crop_scale:share=0.75",
    "random_crop_scale:share=0.75",
    "random_crop_scale:share=0.75+jpeg:quality=50",
)
_SEARCHES: dict[str, Search | None] = {"none": None, "spectrum": Search(budget=0), "again": Search()}


def measure(model: LatentModel, scope: Scope) -> Findings:
    """Verify attacked images, marked and unmarked, without search and with both searches; each has its own key."""
    import torch

    count, first = scope.images(2, 50), SEEDS["search"]
    attacks = _ATTACKS[:1] + _ATTACKS[3:6:2] if scope.quick else _ATTACKS
    rows: list[dict[str, Any]] = []
    with scope.progress("Images", (1 + len(_PATTERNS)) * count + 2 * len(_PATTERNS) * len(attacks) * count) as advance:
        unmarked = []
        for result in generate(model, None, seeds=range(first, first + count)):
            unmarked.append(result.image)
            advance()
        for label, options in _PATTERNS:
            keys = [Key.generate(model.latent_shape, seed=first + i, **options) for i in range(count)]
            seeds = range(first + (1 << 20), first + (1 << 20) + count)
            for truth, images in (("marked", generate_each(model, keys, seeds, advance)), ("unmarked", unmarked)):
                for attack in attacks:
                    pixels = torch.cat([to_tensor(image) for image in distorted(images, attack)])
                    for i, key in enumerate(keys):
                        for row in _search_evidence(model, pixels[i : i + 1], key):
                            rows.append({"pattern": label, "attack": attack, "truth": truth, "image": i, **row})
                        advance()
    return Findings(
        "search",
        BENCHMARKS["search"].question,
        tuple(rows),
        (_detected(rows, attacks), _cost(rows)),
        seeds=f"{first} onwards, keys likewise; one key per image",
        count=f"{count} marked and {count} unmarked per line",
    )


def _search_evidence(model: LatentModel, pixels: Any, key: Key) -> list[dict[str, Any]]:
    """Return the evidence in one image, (1, 3, H, W), by each search, and its seconds beyond the shared inversion."""
    noise_hat, _ = recover_noise(model, pixels)
    made = []
    for name, wanted in _SEARCHES.items():
        started = time.perf_counter()
        if wanted is None:
            ((found, *_),) = evidence_of(noise_hat, [key])
        else:
            again = lambda image: recover_noise(model, image)[0]  # noqa: E731
            ((found, *_),) = searched_evidence(noise_hat, pixels, [key], wanted, again, DEFAULT_ALPHA)
        made.append(
            {
                "search": name,
                "log10_pvalue": found.log10_adjusted,
                "statistic": found.statistic,
                "hypothesis": found.hypothesis,
                "seconds": time.perf_counter() - started,
            }
        )
    return made


def _detected(rows: list[dict[str, Any]], attacks: tuple[str, ...]) -> Table:
    lines = []
    for pattern, _ in _PATTERNS:
        for attack in attacks:
            for name in _SEARCHES:
                some = [r for r in rows if (r["pattern"], r["attack"], r["search"]) == (pattern, attack, name)]
                found = {
                    truth: np.array([r["log10_pvalue"] for r in some if r["truth"] == truth])
                    for truth in ("marked", "unmarked")
                }
                hits, false = (
                    Rate(int((log10 <= np.log10(DEFAULT_ALPHA)).sum()), len(log10)) for log10 in found.values()
                )
                lines.append((pattern, attack, name, hits, false, format_pvalue(float(np.median(found["marked"])))))
    return Table(
        f"Detection at {DEFAULT_ALPHA:g}, p corrected for the search",
        ("pattern", "attack", "search", "true positives", "false positives", "median p"),
        tuple(lines),
        "none: the image as it is. spectrum: all hypotheses on the noise estimate of the image as it is. again: also the "
        "best two hypotheses, with the image transformed back and inverted again. The search ends when a key is detected. "
        "Intervals: Clopper-Pearson, 95 %.",
    )


def _cost(rows: list[dict[str, Any]]) -> Table:
    lines = [
        (
            pattern,
            truth,
            name,
            f"{1000 * statistics.median(seconds):.0f} ms",
            f"{1000 * max(seconds):.0f} ms",
        )
        for pattern, _ in _PATTERNS
        for truth in ("marked", "unmarked")
        for name in _SEARCHES
        for seconds in [
            [r["seconds"] for r in rows if (r["pattern"], r["truth"], r["search"]) == (pattern, truth, name)]
        ]
    ]
    return Table(
        "Time of the search beyond the inversion, one image at a time",
        ("pattern", "truth", "search", "median", "longest"),
        tuple(lines),
        "Over all attacks.",
    )
