"""Distribution of p-values on unmarked images under fresh keys: of the exact test, and as published by Tree-Ring."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from treering_verify.benchmark.catalogue import BENCHMARKS
from treering_verify.benchmark.harness.cache import cached
from treering_verify.benchmark.harness.scope import SEEDS, Scope
from treering_verify.benchmark.harness.unmarked_images import UnmarkedImage, draw_unmarked
from treering_verify.detection.calibration.build import batch_of
from treering_verify.inversion.recovery import InversionOptions, recover_with_naive
from treering_verify.models import LatentModel
from treering_verify.models.weights import fingerprint
from treering_verify.report import format_pvalue
from treering_verify.report.findings import Cell, Curve, Curves, Figure, Findings, Table
from treering_verify.version import __version__
from treering_verify.watermark.embedding import extract, features, key_coefficients
from treering_verify.watermark.keys.key import Family, Key

if TYPE_CHECKING:
    import torch

_KEYS = 10  # fresh ones for each image
_BATCH = 16
_ALPHAS = (1e-2, 1e-3, 1e-4)
EXACT, PUBLISHED, WHITE = "exact", "published chi-square", "published, variance 1"


def measure(model: LatentModel, scope: Scope) -> Findings:
    """Test unmarked images under fresh keys by the exact test and by Tree-Ring's published p-value."""
    count, seed = scope.images(40, 1000), SEEDS["uniformity"]
    with scope.progress("Images", count) as advance:
        raw, noise, kinds, attacks = _noise(model, scope, count, seed, advance)
    families = {name: Family.choose(model.latent_shape, pattern=name) for name in ("random", "rings")}
    rows = scope.rows
    for place, (name, family) in enumerate(families.items()):
        for i in range(count):
            for j, (exact, published, white) in enumerate(
                _pvalues(raw[i : i + 1], noise[i : i + 1], family, [seed, place, i])
            ):
                rows.append(
                    {
                        "pattern": name,
                        "image": i,
                        "kind": kinds[i],
                        "attack": attacks[i],
                        "key": j,
                        EXACT: exact,
                        PUBLISHED: published,
                        WHITE: white,
                    }
                )
    tests = [(name, test) for name in families for test in (EXACT, PUBLISHED, WHITE)]
    return Findings(
        "uniformity",
        BENCHMARKS["uniformity"].question,
        tuple(rows),
        (_uniformity(rows, tests), _by_kind(rows)),
        (_figure(rows, tests),),
        seeds=f"{seed} onwards; a fresh key for each pair",
        count=f"{count} distinct images, {_KEYS} keys each per pattern",
    )


def _noise(
    model: LatentModel, scope: Scope, count: int, seed: int, advance: Callable[[], None]
) -> tuple[torch.Tensor, torch.Tensor, list[str], list[str]]:
    """Return the noise estimates (count, C, h, w) of the images, naive and default, their kinds and their attacks.

    Each batch is cached, so that an interrupted run resumes.
    """
    import torch

    images = draw_unmarked(model, count, seed)
    question = (fingerprint(model), __version__, seed)
    parts: list[dict[str, NDArray[Any]]] = []
    for number in range(-(-count // _BATCH)):
        batch = _Batch(images, number, count)

        def measure(batch: _Batch = batch) -> dict[str, NDArray[Any]]:
            chosen = batch.read()
            noise_hat, raw = recover_with_naive(model, batch_of([s.image for s in chosen]), InversionOptions())
            return {
                "raw": raw.numpy(),
                "noise": noise_hat.numpy(),
                "kind": np.array([s.kind for s in chosen]),
                "attack": np.array([s.attack for s in chosen]),
            }

        parts.append(cached(scope.folder, "uniformity", (*question, number, batch.size), measure))
        batch.skip()
        for _ in range(len(parts[-1]["kind"])):
            advance()
    kinds, attacks = ([str(value) for part in parts for value in part[name]] for name in ("kind", "attack"))
    raw, noise = (torch.cat([torch.from_numpy(part[name]) for part in parts]) for name in ("raw", "noise"))
    return raw, noise, kinds, attacks


class _Batch:
    """One batch of a stream of images, which is skipped where its result is cached."""

    def __init__(self, images: Iterable[UnmarkedImage], number: int, count: int) -> None:
        self._images, self.size, self._read = images, min(_BATCH, count - number * _BATCH), False

    def read(self) -> list[UnmarkedImage]:
        self._read = True
        return list(islice(self._images, self.size))

    def skip(self) -> None:
        if not self._read:
            self.read()


def _pvalues(
    raw: torch.Tensor, noise_hat: torch.Tensor, family: Family, seed: list[int]
) -> list[tuple[float, float, float]]:
    """Return log10 p-values of one image (1, C, h, w) under new keys: exact, published, published with variance 1."""
    from treering_detectors import cosine_tests, noncentral_chi_square_test

    numbers = np.random.default_rng(seed).standard_normal((_KEYS, family.degrees_of_freedom))
    exact = cosine_tests(features(extract(noise_hat, family), family)[0], numbers)
    y = extract(raw, family).ravel()
    found = []
    for row, evidence in zip(numbers, exact, strict=True):
        k = key_coefficients(Key.of(family, "fresh", row)).ravel()
        published, white = (noncentral_chi_square_test(y, k, variance).log10_pvalue for variance in (None, 1.0))
        found.append((evidence.log10_pvalue, published, white))
    return found


def _uniformity(rows: list[dict[str, Any]], tests: list[tuple[str, str]]) -> Table:
    from scipy import stats

    lines: list[tuple[Cell, ...]] = []
    for pattern, test in tests:
        log10 = _column(rows, pattern, test)
        distance = stats.kstest(10**log10, "uniform")
        counts, held = [], distance.pvalue > 0.01
        for alpha in _ALPHAS:
            reached = int((log10 <= np.log10(alpha)).sum())
            low, high = (int(stats.binom.ppf(q, len(log10), alpha)) for q in (0.005, 0.995))
            held = held and low <= reached <= high
            counts.append(f"{reached} ({low} to {high})")
        ks = format_pvalue(float(np.log10(distance.pvalue))) if distance.pvalue > 1e-300 else "< 1e-300"
        lines.append((pattern, test, len(log10), ks, *counts, "yes" if held else "NO"))
    return Table(
        "P-values of images without the key",
        ("pattern", "test", "pairs", "KS p", *(f"p <= {alpha:g}" for alpha in _ALPHAS), "uniform"),
        tuple(lines),
        "In brackets: the central 99 % range of the count for a uniform p. Uniform: Kolmogorov-Smirnov p > .01 and all "
        f"counts in their ranges. '{PUBLISHED}' estimates the variance from the image, as published; '{WHITE}' assumes "
        "white noise.",
    )


def _by_kind(rows: list[dict[str, Any]]) -> Table:
    from treering_detectors import Rate

    lines: list[tuple[Cell, ...]] = []
    for kind in sorted({row["kind"] for row in rows}):
        some = [row for row in rows if row["kind"] == kind and row["pattern"] == "random"]
        cells = [Rate(sum(row[test] <= -2 for row in some), len(some)) for test in (EXACT, PUBLISHED, WHITE)]
        lines.append((kind, len({row["image"] for row in some}), *cells))
    return Table(
        "Share with p <= 0.01 by kind of image, pattern random",
        ("kind", "images", EXACT, PUBLISHED, WHITE),
        tuple(lines),
        "Half of the images of each kind were attacked. The intervals of the published tests are too narrow, since their "
        "p-values under several keys of one image are not independent.",
    )


def _figure(rows: list[dict[str, Any]], tests: list[tuple[str, str]]) -> Figure:
    grid = np.linspace(-4, 0, 41)
    panels = []
    for pattern in dict.fromkeys(pattern for pattern, _ in tests):
        curves = [Curve("uniform", tuple(grid.tolist()), tuple(grid.tolist()), dashed=True)]
        for test in (EXACT, PUBLISHED, WHITE):
            log10 = _column(rows, pattern, test)
            share = np.array([(log10 <= alpha).mean() for alpha in grid])
            shown = share > 0
            curves.append(Curve(test, tuple(grid[shown].tolist()), tuple(np.log10(share[shown]).tolist())))
        panels.append(Curves(f"Pattern {pattern}", "log10 alpha", "log10 share with p <= alpha", tuple(curves)))
    return Figure("False positives", tuple(panels), "The p-values of a valid test lie on the dashed line or below it.")


def _column(rows: list[dict[str, Any]], pattern: str, test: str) -> NDArray[np.float64]:
    return np.array([row[test] for row in rows if row["pattern"] == pattern])
