"""What the restoration of over-exposed images finds: marked images, brightened as `robustness` does it."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from treering_detectors import mean

from treering_verify.attacks import ATTACKS
from treering_verify.benchmark.catalogue import BENCHMARKS
from treering_verify.benchmark.harness.keyed_images import evidence_of_images, generate_each
from treering_verify.benchmark.harness.rates import STRICT, paired_cells
from treering_verify.benchmark.harness.scope import SEEDS, Scope
from treering_verify.benchmark.harness.trials import BLANK
from treering_verify.inversion.brightness import brightness_factors
from treering_verify.media.conversion import to_tensor
from treering_verify.models import LatentModel
from treering_verify.models.restorer import restorer_of
from treering_verify.models.weights import fingerprint
from treering_verify.report.findings import Cell, Findings, Table
from treering_verify.watermark.keys.key import Key

if TYPE_CHECKING:
    from PIL import Image

_BATCH = 16
_NEARLY_ALL = 0.95
_MOST = 7.0  # as `conditions` draws the factor
_SPANS = ((0.0, 1.15), (1.15, 2.0), (2.0, 3.0), (3.0, 4.0), (4.0, _MOST))


def measure(model: LatentModel, scope: Scope) -> Findings:
    """Judge marked images, each under its own key, with the restoration and without; what is blank is left out."""
    count, first = scope.images(16, 320), SEEDS["over-exposure"]
    restorer = restorer_of(model)
    with scope.progress("Images", count) as advance:
        for start in range(0, count, _BATCH):
            seeds = range(first + start, first + min(start + _BATCH, count))
            take = partial(_judged, model, seeds)
            facts = (fingerprint(model), restorer.digest if restorer else "", seeds)
            scope.keep(scope.cached("over-exposure", facts, take))
            for _ in seeds:
                advance()
    rows = scope.rows
    seen = [row for row in rows if not row[BLANK]]
    return Findings(
        "over-exposure",
        BENCHMARKS["over-exposure"].question,
        tuple(rows),
        (_table(seen, len(rows) - len(seen)),),
        seeds=f"{first} onwards, keys likewise; each image under its own key",
        count=f"{count} marked, of which {len(rows) - len(seen)} are blank",
    )


def _judged(model: LatentModel, seeds: Sequence[int]) -> Iterator[dict[str, Any]]:
    keys = [Key.generate(model.latent_shape, seed=seed) for seed in seeds]
    factors = [float(np.random.default_rng(seed).uniform(0.0, _MOST)) for seed in seeds]
    images = generate_each(model, keys, seeds, lambda: None)
    attacked = [ATTACKS["brightness"](image, factor=f) for image, f in zip(images, factors, strict=True)]
    unrestored = copy.copy(model)
    unrestored.restorer = None  # type: ignore[attr-defined]
    for seed, key, factor, image in zip(seeds, keys, factors, attacked, strict=True):
        row = {"seed": seed, "factor": factor, "estimated": brightness_factors(to_tensor(image))[0]}
        if blank(image):
            yield {**row, BLANK: True, "log10_pvalue": 0.0, "unrestored": 0.0}
            continue
        plain = _log10_pvalue(unrestored, image, key)
        # An image that is not restored has the same noise estimate, bit for bit (a test holds it).
        log10 = plain if row["estimated"] == 1 else _log10_pvalue(model, image, key)
        yield {**row, BLANK: False, "log10_pvalue": log10, "unrestored": plain}


def blank(image: Image.Image) -> bool:
    """Return whether nearly all of an image is of one colour, so that no key can be found."""
    pixels = np.asarray(image).reshape(-1, 3)
    return bool(np.unique(pixels, axis=0, return_counts=True)[1].max() >= _NEARLY_ALL * len(pixels))


def _log10_pvalue(model: LatentModel, image: Image.Image, key: Key) -> float:
    return next(evidence_of_images(model, [image], [key]))[0]


def _table(rows: Sequence[dict[str, Any]], blank: int) -> Table:
    spans = [(f"{low:g} to {high:g}", [r for r in rows if low <= r["factor"] < high]) for low, high in _SPANS]
    restored = [row for row in rows if row["estimated"] > 1]
    lines = [_line(name, some) for name, some in (("all", rows), ("restored", restored), *spans) if some]
    return Table(
        "Over-exposed images",
        (
            "factor",
            f"found at p <= {STRICT:g}",
            "the same without restoration",
            "found by one of both only",
            "McNemar's p",
            "median p",
            "without restoration",
            "log10 p less that without",
        ),
        tuple(lines),
        f"Marked images, each under its own key, brightened by a factor drawn from 0 to {_MOST:g}, as in robustness. "
        f"{blank} images are blank after it, of one colour on 95 % or more of their area, and left out. Intervals: "
        "Clopper-Pearson, 95 %. 'Only': found with restoration alone, and without it alone. 'Restored': a factor was read "
        "from the image. Last column: mean of the differences image by image, with its 95 % interval; negative is "
        "stronger evidence. No search.",
    )


def _line(name: str, rows: Sequence[dict[str, Any]]) -> tuple[Cell, ...]:
    new, old = ([row[column] for row in rows] for column in ("log10_pvalue", "unrestored"))
    return (name, *paired_cells(new, old), mean([a - b for a, b in zip(new, old, strict=True)]))
