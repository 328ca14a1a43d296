"""Identification of one image among a thousand to a million keys: time, memory, correct names, cost of the correction."""

from __future__ import annotations

import statistics
import tempfile
import time
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from treering_detectors import Rate, cosine_needed

from treering_verify.benchmark.catalogue import BENCHMARKS
from treering_verify.benchmark.harness.scope import CLEAN, SEEDS, Scope, distorted
from treering_verify.detection.evidence import evidence_of
from treering_verify.detection.identification import match_keys
from treering_verify.generation.generator import generate
from treering_verify.inversion.recovery import recover_noise
from treering_verify.media.conversion import to_tensor
from treering_verify.models import LatentModel
from treering_verify.report import format_pvalue
from treering_verify.report.findings import Cell, Curve, Curves, Figure, Findings, Table
from treering_verify.watermark.keys.index import KeyIndex
from treering_verify.watermark.keys.index_file import DTYPES, Block, write_index
from treering_verify.watermark.keys.key import Family, Key

if TYPE_CHECKING:
    import torch
    from PIL import Image

_ALPHA = 1e-6
_ATTACKS = (CLEAN, "jpeg:quality=25")
_SIZES = (1_000, 10_000, 100_000, 1_000_000)
_CALCULATED_SIZES = (1_000, 1_000_000, 1_000_000_000)
_BATCH, _BLOCK, _DERIVED = 16, 512, 20


@dataclass(frozen=True, eq=False)
class _Suspects:
    """Images after one attack: their noise estimates, (n, C, h, w), and log10 p of each marked image under its own key."""

    attack: str
    marked: torch.Tensor
    unmarked: torch.Tensor
    alone: list[float]


def measure(model: LatentModel, scope: Scope) -> Findings:
    """Identify the same images in indexes of growing size; each image is marked with its own key."""
    count, first = scope.images(4, 50), SEEDS["identification"]
    sizes = _SIZES[:2] if scope.quick else _SIZES
    family = Family.choose(model.latent_shape)
    keys = [Key.generate(model.latent_shape, name=f"marked-{i}", seed=first + i) for i in range(count)]
    with scope.progress("Images", 2 * count) as advance:
        marked: list[Image.Image] = []
        unmarked: list[Image.Image] = []
        for i, key in enumerate(keys):
            for chosen, images in ((key, marked), (None, unmarked)):
                images += [r.image for r in generate(model, chosen, seeds=[first + i])]
                advance()
    suspects = [_suspects(model, marked, unmarked, keys, attack) for attack in _ATTACKS]
    rows = scope.rows
    speed: list[tuple[Cell, ...]] = []
    answers: list[tuple[Cell, ...]] = []
    seconds: dict[tuple[str, int], float] = {}
    with scope.progress("Indexes", len(sizes) * len(DTYPES)) as advance, _workspace(scope) as folder:
        for dtype in DTYPES:
            for size in sizes:
                index, loading, mebibytes = _index(Path(folder), family, keys, size, dtype)
                batch, peak = _batch_of(index, suspects[0].marked)
                timed: list[float] = []
                for group in suspects:
                    found = _identify(index, group, keys, timed)
                    facts = {"keys": size, "dtype": dtype, "attack": group.attack, "load_seconds": loading}
                    rows += [{**facts, **row, "batch_seconds": batch, "peak_mib": peak} for row in found]
                    answers.append((size, dtype, group.attack, *_rates(found)))
                seconds[dtype, size] = statistics.median(timed)
                speed.append((size, dtype, mebibytes, loading, seconds[dtype, size], batch, peak))
                advance()
    return Findings(
        "identification",
        BENCHMARKS["identification"].question,
        tuple(rows),
        (
            Table(
                "Time and memory of a search",
                (
                    "keys",
                    "type",
                    "file (MiB)",
                    "load (s)",
                    "one image (s)",
                    f"in batches of {_BATCH} (s)",
                    "peak (MiB)",
                ),
                tuple(speed),
                "One image: median seconds from the noise estimate to the names, with the index in the system's cache; the "
                "time of inversion is not included. Peak: memory that a search allocates beside the mapped file. Keys other "
                f"than the images' own are random numbers; deriving a key from a secret takes {1e3 * _deriving(family):.1f} "
                "ms each.",
            ),
            Table(
                f"Identification at alpha = {_ALPHA:g} over all keys",
                ("keys", "type", "attack", "named correctly", "named wrongly", "unmarked, named", "median p"),
                tuple(answers),
                "Intervals: Clopper-Pearson, 95 %. Median p: of the marked images, corrected for all keys.",
            ),
            _calculated(family, suspects, seconds, max(sizes)),
        ),
        (_figure(seconds, sizes, suspects),),
        seeds=f"{first} onwards, keys likewise; one key per image",
        count=f"{count} marked and {count} unmarked per attack",
    )


def _suspects(
    model: LatentModel, marked: list[Image.Image], unmarked: list[Image.Image], keys: list[Key], attack: str
) -> _Suspects:
    import torch

    def noise_of(images: list[Image.Image]) -> torch.Tensor:
        pixels = torch.cat([to_tensor(image) for image in distorted(images, attack)])
        return torch.cat([recover_noise(model, part)[0] for part in pixels.split(_BATCH)])

    found = noise_of(marked)
    alone = [evidence_of(row[None], [key])[0][0].log10_pvalue for row, key in zip(found, keys, strict=True)]
    return _Suspects(attack, found, noise_of(unmarked), alone)


def _workspace(scope: Scope) -> tempfile.TemporaryDirectory[str]:
    """Return a temporary folder for indexes of gigabytes, on the disk of the output folder."""
    if scope.folder:
        scope.folder.mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryDirectory(dir=scope.folder)


def _index(folder: Path, family: Family, keys: list[Key], size: int, dtype: str) -> tuple[KeyIndex, float, float]:
    """Write an index of these and random keys, and load it; return it, the seconds of loading, and its size in MiB."""
    path = folder / f"{size}-{dtype}.index"

    def blocks() -> Iterator[Block]:
        yield Block([k.name for k in keys], [k.fingerprint for k in keys], np.stack([k.numbers for k in keys]))
        for start in range(len(keys), size, _BLOCK):
            more = range(start, min(size, start + _BLOCK))
            numbers = np.random.default_rng(start).standard_normal((len(more), family.degrees_of_freedom))
            yield Block([f"drawn-{i}" for i in more], [f"{i:016x}" for i in more], numbers)

    write_index(path, family, size, blocks(), dtype)
    started = time.perf_counter()
    index = KeyIndex.load(path)
    loading = time.perf_counter() - started
    mebibytes = path.stat().st_size / 2**20
    path.unlink()  # the memory map keeps the data until the index is freed
    return index, loading, mebibytes


def _batch_of(index: KeyIndex, noise: torch.Tensor) -> tuple[float, float]:
    """Return seconds per image in a batch, after a warm-up, and the peak memory of a search in MiB."""
    repeated = noise.repeat(-(-_BATCH // len(noise)), 1, 1, 1)[:_BATCH]
    tracemalloc.start()
    match_keys(repeated, [index])
    peak = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    started = time.perf_counter()
    match_keys(repeated, [index])
    return (time.perf_counter() - started) / _BATCH, peak


def _identify(index: KeyIndex, group: _Suspects, keys: list[Key], timed: list[float]) -> list[dict[str, Any]]:
    rows = []
    for truth, noise in (("marked", group.marked), ("unmarked", group.unmarked)):
        for i, image in enumerate(noise):
            started = time.perf_counter()
            (matches,) = match_keys(image[None], [index])
            timed.append(time.perf_counter() - started)
            detected = matches[0].log10_adjusted <= np.log10(_ALPHA)
            rows.append(
                {
                    "truth": truth,
                    "image": i,
                    "detected": detected,
                    "right": truth == "marked" and matches[0].key == keys[i].name,
                    "log10_pvalue": matches[0].log10_adjusted,
                    "statistic": matches[0].statistic,
                    "seconds": timed[-1],
                }
            )
    return rows


def _rates(rows: list[dict[str, Any]]) -> tuple[Cell, ...]:
    marked = [r for r in rows if r["truth"] == "marked"]
    unmarked = [r for r in rows if r["truth"] == "unmarked"]
    return (
        Rate(sum(r["detected"] and r["right"] for r in marked), len(marked)),
        Rate(sum(r["detected"] and not r["right"] for r in marked), len(marked)),
        Rate(sum(r["detected"] for r in unmarked), len(unmarked)),
        format_pvalue(statistics.median(r["log10_pvalue"] for r in marked)),
    )


def _calculated(
    family: Family, suspects: list[_Suspects], seconds: dict[tuple[str, int], float], largest: int
) -> Table:
    """Compute the effect of more keys from each image's p under its own key, without testing the other keys."""
    d = family.degrees_of_freedom
    lines: list[tuple[Cell, ...]] = []
    for size in _CALCULATED_SIZES:
        reached = [
            Rate(sum(p + np.log10(size) <= np.log10(_ALPHA) for p in group.alone), len(group.alone))
            for group in suspects
        ]
        gibibytes = size * 2 * d / 2**30
        time_needed = seconds["float16", largest] * size / largest
        lines.append(
            (f"{size:.0e}", np.log10(size), cosine_needed(d, _ALPHA / size), *reached, f"{gibibytes:.3g}", time_needed)
        )
    medians = ", ".join(f"{g.attack} {format_pvalue(statistics.median(g.alone))}" for g in suspects)
    return Table(
        "Calculated: what the correction for many keys costs",
        (
            "keys",
            "factor on p (log10)",
            "cosine needed",
            *(f"detected, {group.attack}" for group in suspects),
            "float16 (GiB)",
            "one image (s)",
        ),
        tuple(lines),
        f"Calculated from each image's p under its own key, times the number of keys. Median of those p: {medians}. Time "
        f"and size are extrapolated from {largest} keys, for a machine whose memory holds the index.",
    )


def _figure(seconds: dict[tuple[str, int], float], sizes: tuple[int, ...], suspects: list[_Suspects]) -> Figure:
    times = tuple(
        Curve(
            dtype,
            tuple(map(float, sizes)),
            tuple(float(np.log10(seconds[dtype, s])) for s in sizes),
            dashed=dtype != "float16",
        )
        for dtype in DTYPES
    )
    counts = tuple(10.0**n for n in range(10))
    shares = tuple(
        Curve(
            group.attack,
            counts,
            tuple(float(np.mean(np.array(group.alone) + np.log10(n) <= np.log10(_ALPHA))) for n in counts),
        )
        for group in suspects
    )
    return Figure(
        "Identification among many keys",
        (
            Curves("Search of one image", "keys", "log10 seconds", times, log_x=True),
            Curves(f"Images detected at {_ALPHA:g}, calculated", "keys", "share", shares, log_x=True),
        ),
        "Time grows in proportion to the number of keys; the evidence that they cost grows with its logarithm.",
    )


def _deriving(family: Family) -> float:
    """Return the seconds of deriving one key of an index, fingerprint included."""
    started = time.perf_counter()
    for i in range(_DERIVED):
        _ = Key.of_index(bytes(32), family, f"user-{i}").fingerprint
    return (time.perf_counter() - started) / _DERIVED
