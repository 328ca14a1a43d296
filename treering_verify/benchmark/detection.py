"""Detection and false-positive rates at fixed alpha, by pattern and attack."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from treering_detectors import Rate, mean

from treering_verify.benchmark.catalogue import BENCHMARKS
from treering_verify.benchmark.harness.keyed_images import evidence_of_images, generate_cached
from treering_verify.benchmark.harness.scope import CLEAN, SEEDS, Scope, distorted
from treering_verify.generation.generator import generate
from treering_verify.inversion.recovery import InversionOptions
from treering_verify.models import LatentModel
from treering_verify.models.weights import fingerprint
from treering_verify.report import format_pvalue
from treering_verify.report.findings import Findings, Table
from treering_verify.watermark.keys.key import Key

if TYPE_CHECKING:
    from PIL import Image

DEFAULT = "default"
_RANDOM = (CLEAN, "jpeg:quality=75", "jpeg:quality=25")
_PLAN: tuple[tuple[str, dict[str, Any], tuple[str, ...], float], ...] = (
    ("random", {}, _RANDOM, 1e-6),
    ("random 4-12", {"inner_radius": 4, "outer_radius": 12}, _RANDOM, 1e-6),
    ("rings", {"pattern": "rings"}, (CLEAN,), 1e-3),
)


def measure(model: LatentModel, scope: Scope) -> Findings:
    """Judge marked and unmarked images, each under its own key, so that no result depends on one key."""
    count, first = scope.images(8, 200), SEEDS["detection"]
    methods = {DEFAULT: InversionOptions(), **{name: InversionOptions(method=name) for name in scope.methods}}
    rows = scope.rows
    lines, weights = [], fingerprint(model)
    with scope.progress("Images", (1 + len(_PLAN)) * count) as advance:
        unmarked = []
        for result in generate(model, None, seeds=range(first, first + count)):
            unmarked.append(result.image)
            advance()
        for label, options, names, alpha in _PLAN:
            keys = [Key.generate(model.latent_shape, seed=first + i, **options) for i in range(count)]
            seeds = range(first + (1 << 20), first + (1 << 20) + count)
            marked = generate_cached(model, keys, seeds, scope, advance)
            for name in names:
                shown = {"marked": distorted(marked, name), "unmarked": distorted(unmarked, name)}
                default: list[float] = []
                for method, inversion in methods.items():
                    scores = {}
                    for truth, images in shown.items():
                        take = partial(_judged, model, images, keys, inversion)
                        # The code of a method that users added is not part of the cache's digest: it is measured each time.
                        facts = (weights, label, name, truth, first, count)
                        found = scope.cached("detection", facts, take) if method == DEFAULT else list(take())
                        scores[truth] = np.array([row["log10_pvalue"] for row in found])
                        base = {"pattern": label, "attack": name, "method": method, "truth": truth, "alpha": alpha}
                        rows += [base | row for row in found]
                        if truth == "marked":
                            mean_cosine = statistics.fmean(row["statistic"] for row in found)
                    hits, false = (Rate(int((scores[t] <= np.log10(alpha)).sum()), count) for t in shown)
                    reach = float(np.quantile(scores["marked"], 0.95, method="higher"))
                    default = default or scores["marked"].tolist()
                    lines.append(
                        (
                            label,
                            name,
                            method,
                            f"{alpha:g}",
                            hits,
                            false,
                            format_pvalue(float(np.median(scores["marked"]))),
                            format_pvalue(reach),
                            f"{mean_cosine:.2f}",
                            mean([p - d for p, d in zip(scores["marked"].tolist(), default, strict=True)]),
                        )
                    )
    table = Table(
        "Detection at fixed alpha",
        (
            "pattern",
            "attack",
            "inversion",
            "alpha",
            "true positives",
            "false positives",
            "median p",
            "95th percentile of p",
            "cosine",
            "log10 p less the default's",
        ),
        tuple(lines),
        "Intervals: Clopper-Pearson, 95 %. '95th percentile of p': 95 % of the marked images have at most this p. Last "
        "column: mean of the differences image by image, with its 95 % interval; negative is stronger evidence.",
    )
    return Findings(
        "detection",
        BENCHMARKS["detection"].question,
        tuple(rows),
        (table,),
        seeds=f"{first} onwards, keys likewise; one key per image",
        count=f"{count} marked and {count} unmarked per line",
    )


def _judged(
    model: LatentModel, images: list[Image.Image], keys: Sequence[Key], inversion: InversionOptions
) -> Iterator[dict[str, Any]]:
    """Judge image i under key i."""
    for i, (log10, cosine) in enumerate(evidence_of_images(model, images, keys, inversion)):
        yield {"image": i, "log10_pvalue": log10, "statistic": cosine}
