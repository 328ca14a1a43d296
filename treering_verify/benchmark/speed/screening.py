"""Two-pass detection: what a screening pass decides, the time that it saves, and the detections that it loses."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from treering_detectors import Rate

from treering_verify.benchmark.catalogue import BENCHMARKS
from treering_verify.benchmark.harness.cache import cached
from treering_verify.benchmark.harness.keyed_images import generate_each
from treering_verify.benchmark.harness.scope import CLEAN, SEEDS, Scope, distorted
from treering_verify.detection.evidence import evidence_of
from treering_verify.detection.judge import DEFAULT_ALPHA
from treering_verify.detection.screening import SCREENS, Screening
from treering_verify.generation.generator import generate
from treering_verify.inversion.decoder.solution import Solution
from treering_verify.inversion.recovery import recover_noise
from treering_verify.media.conversion import to_tensor
from treering_verify.models import LatentModel
from treering_verify.models.inverter import fitted
from treering_verify.models.weights import fingerprint
from treering_verify.report.findings import Cell, Findings, Table
from treering_verify.version import __version__
from treering_verify.watermark.keys.key import Key

if TYPE_CHECKING:
    import torch

    Recover = Callable[[LatentModel, torch.Tensor], tuple[torch.Tensor, Solution]]

_ATTACKS = (CLEAN, "jpeg:quality=75", "jpeg:quality=25", "jpeg:quality=10", "noise:sigma=0.05", "blur:radius=2")
_TRUTHS = ("marked", "unmarked")
_BATCH = 16
_IN_DETAIL = 50  # number of images, marked and unmarked, that every screening pass judges
_FULL = "full"
_KEYS = (1, 10, 100, 1000, 1_000_000)  # numbers of keys in an audit
_COLUMNS = (
    "detected",
    "detected by full inversion",
    "lost",
    "false positives",
    "decided: marked",
    "unmarked",
    "images/s: marked",
    "unmarked",
    "full inversion only",
)


def _can(model: LatentModel, name: str) -> bool:
    """Whether a model brings the networks or filters of a screening pass."""
    if name == "screen":
        return model.screen is not None
    return name != "filter" or fitted(model) is not None


def measure(model: LatentModel, scope: Scope) -> Findings:
    """Judge images by each screening pass and by the full inversion, each image under its own key, and compare decisions.

    Many marked images are needed to see whether the default screening pass loses detections. The other passes judge the
    first of them, and as many unmarked images.
    """
    count, chosen = scope.images(4, 640), Screening().of(model)
    few = min(count, _IN_DETAIL)
    attacks = (_ATTACKS[0], _ATTACKS[2]) if scope.quick else _ATTACKS
    passes = [name for name in SCREENS if _can(model, name)]
    rows = scope.rows
    seconds: dict[str, list[float]] = {way: [] for way in (*passes, _FULL)}
    batches = list(_batches(count, few))
    with scope.progress("Batches", len(batches)) as advance:
        for batch in batches:
            in_detail = batch.start < few
            read = passes if in_detail else [chosen.method]
            ways = {name: SCREENS[name] for name in read} | {_FULL: recover_noise}
            cases = list(product(_TRUTHS if in_detail else _TRUTHS[:1], attacks))
            facts = (fingerprint(model, without=()), __version__, cases, tuple(ways), batch)
            found = cached(scope.folder, "screening", facts, partial(_measure, model, batch, cases, ways))
            for place, (truth, attack) in enumerate(cases):
                for way, of_way in zip(ways, found["seconds"], strict=True):
                    seconds[way].append(float(of_way[place]))
                log10 = dict(zip(ways, found["log10"][:, place], strict=True))
                for name in read:
                    rows += _decided(attack, truth, name, batch, log10[name], log10[_FULL])
            advance()
    cost = {way: statistics.median(times) for way, times in seconds.items()}
    together = [_line(rows, name, None, cost) for name in passes]
    lines = [_line(rows, name, attack, cost) for attack in attacks for name in passes]
    columns = ("screening pass", *_COLUMNS)
    note = (
        f"alpha {DEFAULT_ALPHA:g}; the screening pass spends {chosen.share:g} of it, and images with p <= {chosen.gate:g} "
        "in it are inverted in full. 'lost': detected by full inversion and not by two passes. Images per second: from the "
        f"median time of each pass, batches of {_BATCH}. Key pattern random. Intervals: Clopper-Pearson, 95 %."
    )
    times = Table(
        "Time of a pass",
        ("pass", "seconds per image"),
        tuple((way, f"{s:.3f}") for way, s in cost.items()),
        "Includes the test of one key. Compare times within one run only, unless the machine has no other work.",
    )
    return Findings(
        "screening",
        BENCHMARKS["screening"].question,
        tuple(rows),
        (
            Table("All attacks together", columns, tuple(line[1:] for line in together), note),
            Table("By attack", ("attack", *columns), tuple(lines)),
            _by_keys(rows, chosen),
            times,
        ),
        seeds=f"{SEEDS['screening']} onwards, keys likewise; one key per image",
        count=f"{count} marked per attack by {chosen.method} and by full inversion; {few} of them, and {few} unmarked, by "
        "all passes",
    )


def _batches(count: int, few: int) -> Iterator[range]:
    """Yield batches of images, none of which contains images on both sides of `few`."""
    for first, last in ((0, few), (few, count)):
        for start in range(first, last, _BATCH):
            yield range(start, min(start + _BATCH, last))


def _measure(
    model: LatentModel, batch: range, cases: Sequence[tuple[str, str]], ways: dict[str, Recover]
) -> dict[str, NDArray[np.float64]]:
    """Return log10 p of images under their keys, (passes, cases, n), and the seconds per image, (passes, cases)."""
    import torch

    first = SEEDS["screening"]
    keys = [Key.generate(model.latent_shape, seed=first + i) for i in batch]
    images = {"marked": generate_each(model, keys, [first + i for i in batch], lambda: None)}
    if any(truth == "unmarked" for truth, _ in cases):
        others = generate(model, None, seeds=[first + (1 << 20) + i for i in batch])
        images["unmarked"] = [made.image for made in others]
    log10 = np.empty((len(ways), len(cases), len(batch)))
    seconds = np.empty((len(ways), len(cases)))
    for place, (truth, attack) in enumerate(cases):
        pixels = torch.cat([to_tensor(image) for image in distorted(images[truth], attack)])
        for row, recover in enumerate(ways.values()):
            begun = time.perf_counter()
            noise_hat, _ = recover(model, pixels)
            pairs = zip(noise_hat.split(1), keys, strict=True)
            log10[row, place] = [evidence_of(noise, [key])[0][0].log10_pvalue for noise, key in pairs]
            seconds[row, place] = (time.perf_counter() - begun) / len(batch)
    return {"log10": log10, "seconds": seconds}


def _decided(
    attack: str, truth: str, name: str, batch: range, first: NDArray[np.float64], full: NDArray[np.float64]
) -> list[dict[str, Any]]:
    chosen, rows = Screening(name), []
    for i, one, two in zip(batch, first.tolist(), full.tolist(), strict=True):
        settled, detected, detected_in_full = _outcome(chosen, one, two)
        rows.append(
            {
                "pass": name,
                "attack": attack,
                "truth": truth,
                "image": i,
                "log10_first": one,
                "log10_full": two,
                "decided_by": "first" if settled else _FULL,
                "detected": detected,
                "detected_in_full": detected_in_full,
            }
        )
    return rows


def _outcome(screening: Screening, first: float, full: float) -> tuple[bool, bool, bool]:
    """Return whether the screening pass decides, two passes detect, and full inversion alone detects, by log10 p."""
    settled = screening.settles(first, DEFAULT_ALPHA)
    log10, share = (first, screening.share) if settled else (full, 1 - screening.share)
    return settled, log10 <= math.log10(share * DEFAULT_ALPHA), full <= math.log10(DEFAULT_ALPHA)


def _by_keys(rows: Sequence[dict[str, Any]], screening: Screening) -> Table:
    """Return what two passes lose with more keys, from the p-value of the image's own key times their number."""
    marked = [row for row in rows if row["pass"] == screening.method and row["truth"] == "marked"]
    lines = []

    def lost(outcomes: list[tuple[bool, bool, bool]]) -> Cell:
        whole = [detected for _, detected, detected_in_full in outcomes if detected_in_full]
        return Rate(len(whole) - sum(whole), len(whole)) if whole else "none to lose"

    for count in _KEYS:
        pairs = [[min(0.0, row[name] + math.log10(count)) for name in ("log10_first", "log10_full")] for row in marked]
        found = [_outcome(screening, first, full) for first, full in pairs]
        open_gate = [_outcome(replace(screening, gate=1.0), first, full) for first, full in pairs]
        lines.append(
            (
                f"{count:,}",
                Rate(sum(detected for _, detected, _ in found), len(found)),
                Rate(sum(detected_in_full for _, _, detected_in_full in found), len(found)),
                lost(found),
                lost(open_gate),
                f"{100 * statistics.fmean(settled for settled, _, _ in found):.0f} %",
            )
        )
    return Table(
        "With more keys",
        ("keys", "detected", "detected by full inversion", "lost", "lost with gate 1", "decided: marked"),
        tuple(lines),
        f"Screening by {screening.method}, all attacks together. P is that of the own key times the number of keys, also at "
        "the gate: with many keys a mark must already be strong in the screening pass.",
    )


def _line(rows: Sequence[dict[str, Any]], name: str, attack: str | None, cost: dict[str, float]) -> tuple[Cell, ...]:
    chosen = [row for row in rows if row["pass"] == name and attack in (None, row["attack"])]
    marked = [row for row in chosen if row["truth"] == "marked"]
    unmarked = [row for row in chosen if row["truth"] == "unmarked"]
    whole = [row for row in marked if row["detected_in_full"]]
    settled = {
        truth: statistics.fmean(row["decided_by"] == "first" for row in some)
        for truth, some in (("marked", marked), ("unmarked", unmarked))
    }
    return (
        attack or "all",
        name,
        Rate(sum(row["detected"] for row in marked), len(marked)),
        Rate(len(whole), len(marked)),
        Rate(sum(not row["detected"] for row in whole), len(whole)) if whole else "none to lose",
        Rate(sum(row["detected"] for row in unmarked), len(unmarked)),
        *(f"{100 * share:.0f} %" for share in settled.values()),
        *(f"{1 / (cost[name] + (1 - share) * cost[_FULL]):.2f}" for share in settled.values()),
        f"{1 / cost[_FULL]:.2f}",
    )
