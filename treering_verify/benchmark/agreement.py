"""How well clean marked images agree with their keys: the bounds from which on a key is taken for one fitted to an image."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from treering_detectors import Rate

from treering_verify.benchmark.catalogue import BENCHMARKS
from treering_verify.benchmark.harness.cache import cached
from treering_verify.benchmark.harness.keyed_images import evidence_of_images, generate_each
from treering_verify.benchmark.harness.scope import SEEDS, Scope
from treering_verify.models import LatentModel
from treering_verify.models.weights import fingerprint
from treering_verify.report.findings import Cell, Findings, Table
from treering_verify.version import __version__
from treering_verify.watermark.keys.key import Family, Key
from treering_verify.watermark.patterns import PATTERNS

_BATCH = 16
_SHARE, _CONFIDENCE = 0.999, 0.95


def measure(model: LatentModel, scope: Scope) -> Findings:
    """Mark images under keys of their own, verify them unchanged, and bound the statistic of 99.9 % of such images."""
    count, first = scope.images(4, 128), SEEDS["agreement"]
    rows = scope.rows
    lines: list[tuple[Cell, ...]] = []
    weights = fingerprint(model)
    with scope.progress("Images", count * len(PATTERNS)) as advance:
        for name, pattern in PATTERNS.items():
            parts = []
            for start in range(0, count, _BATCH):
                seeds = range(first + start, first + min(start + _BATCH, count))
                take = partial(_statistics, model, name, seeds)
                parts.append(cached(scope.folder, f"agreement-{name}", (weights, __version__, name, seeds), take))
                for _ in seeds:
                    advance()
            found = np.concatenate([part["statistic"] for part in parts])
            compared = pattern.compared(Family.choose(model.latent_shape, pattern=name))
            bound = pattern.agreement.bound(compared) if pattern.agreement else None
            reached = Rate(int((found >= bound).sum()), len(found)) if bound is not None else None
            rows += [{"pattern": name, "compared": compared, "statistic": c} for c in found.tolist()]
            lines.append(
                (name, f"{compared} {pattern.counts}", len(found), *summary(found), bound and f"{bound:.5f}", reached)
            )
    table = Table(
        "Agreement of clean marked images with their keys",
        (
            *("pattern", "compares", "images", "median", "largest", "at 1", "mean z", "deviation of z"),
            *("bound of these", "bound in use", "reach the bound in use"),
        ),
        tuple(lines),
        f"Statistic: cosine or agreement of signs; z is its artanh. Bound of these: {_SHARE:.1%} of such images lie below "
        f"it, with confidence {_CONFIDENCE:.0%}, if z is normal. No bound where an image reaches 1. Bound in use: from "
        f"which on a key of free numbers counts as fitted. Interval: Clopper-Pearson, 95 %. Weights {weights}.",
    )
    return Findings(
        "agreement",
        BENCHMARKS["agreement"].question,
        tuple(rows),
        (table,),
        seeds=f"{first} onwards, keys likewise; one key per image",
        count=f"{count} images a pattern",
    )


def summary(found: NDArray[np.float64]) -> tuple[Cell, ...]:
    """Return median, largest, how many are 1, mean and deviation of z, and the bound; None where an image reaches 1."""
    at_one = int((found >= 1).sum())
    whole = (f"{np.median(found):.4f}", f"{found.max():.5f}", at_one)
    if at_one:
        return *whole, None, None, None
    z = np.arctanh(found)
    return *whole, f"{z.mean():.3f}", f"{z.std(ddof=1):.3f}", f"{np.tanh(tolerance_bound(z)):.5f}"


def tolerance_bound(z: NDArray[np.float64]) -> float:
    """Return the upper bound of a share of a normal population, with a confidence, from a sample of it."""
    from scipy import stats

    n = len(z)
    factor = stats.nct.ppf(_CONFIDENCE, n - 1, stats.norm.ppf(_SHARE) * np.sqrt(n)) / np.sqrt(n)
    return float(z.mean() + factor * z.std(ddof=1))


def _statistics(model: LatentModel, pattern: str, seeds: range) -> dict[str, NDArray[Any]]:
    keys = [Key.generate(model.latent_shape, pattern=pattern, seed=seed) for seed in seeds]
    images = generate_each(model, keys, seeds, lambda: None)
    return {"statistic": np.array([statistic for _, statistic in evidence_of_images(model, images, keys)])}
