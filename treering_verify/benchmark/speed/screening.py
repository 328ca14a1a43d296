"""What a cheap first pass decides, what it saves, and what it loses against the full inversion of every image."""

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

from treering_verify.benchmark.harness.cache import kept
from treering_verify.benchmark.harness.keyed_images import generate_each
from treering_verify.benchmark.harness.scope import CLEAN, SEEDS, Scope, distorted
from treering_verify.detection.evidence import evidence_of
from treering_verify.detection.judge import DEFAULT_ALPHA
from treering_verify.detection.screening import SCREENS, Screening
from treering_verify.generation.generator import generate
from treering_verify.inversion.decoder.solution import Solution
from treering_verify.inversion.recovery import recover_noise
from treering_verify.media.images import to_tensor
from treering_verify.models import LatentModel
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
_IN_DETAIL = 50  # images are read by every first pass, marked and unmarked
_FULL = "full"
_KEYS = (1, 10, 100, 1000, 1_000_000)  # that an audit may try
_COLUMNS = (
    "detected",
    "detected in full",
    "lost",
    "false positives",
    "decided: marked",
    "unmarked",
    "images/s: marked",
    "unmarked",
    "in full",
)


def screening(model: LatentModel, scope: Scope) -> Findings:
    """Read images by first passes and in full, each under a key of its own, and let each pair of passes decide.

    Whether the chosen first pass loses anything takes many marked images, and nothing else: the first of them, and as many
    unmarked ones, are read by all the others too.
    """
    count, chosen = scope.images(4, 640), Screening().of(model)
    few = min(count, _IN_DETAIL)
    attacks = (_ATTACKS[0], _ATTACKS[2]) if scope.quick else _ATTACKS
    looks = [name for name in SCREENS if name != "screen" or model.screen is not None]
    rows: list[dict[str, Any]] = []
    seconds: dict[str, list[float]] = {way: [] for way in (*looks, _FULL)}
    batches = list(_batches(count, few))
    with scope.progress("Batches", len(batches)) as advance:
        for members in batches:
            in_detail = members.start < few
            read = looks if in_detail else [chosen.method]
            ways = {name: SCREENS[name] for name in read} | {_FULL: recover_noise}
            cases = list(product(_TRUTHS if in_detail else _TRUTHS[:1], attacks))
            facts = (fingerprint(model, without=()), __version__, cases, tuple(ways), members)
            found = kept(scope.folder, "screening", facts, partial(_measure, model, members, cases, ways))
            for place, (truth, attack) in enumerate(cases):
                for way, of_way in zip(ways, found["seconds"], strict=True):
                    seconds[way].append(float(of_way[place]))
                log10 = dict(zip(ways, found["log10"][:, place], strict=True))
                for look in read:
                    rows += _decided(attack, truth, look, members, log10[look], log10[_FULL])
            advance()
    cost = {way: statistics.median(times) for way, times in seconds.items()}
    together = [_line(rows, look, None, cost) for look in looks]
    lines = [_line(rows, look, attack, cost) for attack in attacks for look in looks]
    columns = ("first pass", *_COLUMNS)
    note = (
        f"alpha {DEFAULT_ALPHA:g}; the first pass spends {chosen.share:g} of it, and p <= {chosen.gate:g} in it goes on. "
        "'lost': detected in full and not by two passes. Images per second: from the median time of each pass on an "
        f"image, batches of {_BATCH}. Key pattern random. Intervals: Clopper-Pearson, 95 %."
    )
    times = Table(
        "Time of a pass",
        ("pass", "seconds per image"),
        tuple((way, f"{s:.3f}") for way, s in cost.items()),
        "The evidence of one key included. On a machine with other work, compare within one run only.",
    )
    return Findings(
        "screening",
        "How much of an audit can a cheap first pass decide, and what is lost by it?",
        tuple(rows),
        (
            Table("All attacks together", columns, tuple(line[1:] for line in together), note),
            Table("By attack", ("attack", *columns), tuple(lines)),
            _by_keys(rows, chosen),
            times,
        ),
        seeds=f"{SEEDS['passes']} onwards, keys likewise; one key per image",
        count=f"{count} marked per attack by {chosen.method} and in full; {few} of them, and {few} unmarked, by all",
    )


def _batches(count: int, few: int) -> Iterator[range]:
    """Images in batches, none of which lies on both sides of `few`."""
    for first, last in ((0, few), (few, count)):
        for start in range(first, last, _BATCH):
            yield range(start, min(start + _BATCH, last))


def _measure(
    model: LatentModel, members: range, cases: Sequence[tuple[str, str]], ways: dict[str, Recover]
) -> dict[str, NDArray[np.float64]]:
    """Log10 p of some images under their keys, (ways, cases, n), and the seconds per image, (ways, cases)."""
    import torch

    first = SEEDS["passes"]
    keys = [Key.generate(model.latent_shape, seed=first + i) for i in members]
    pictures = {"marked": generate_each(model, keys, [first + i for i in members], lambda: None)}
    if any(truth == "unmarked" for truth, _ in cases):
        others = generate(model, None, seeds=[first + (1 << 20) + i for i in members])
        pictures["unmarked"] = [made.image for made in others]
    log10 = np.empty((len(ways), len(cases), len(members)))
    seconds = np.empty((len(ways), len(cases)))
    for place, (truth, attack) in enumerate(cases):
        pixels = torch.cat([to_tensor(picture) for picture in distorted(pictures[truth], attack)])
        for row, recover in enumerate(ways.values()):
            begun = time.perf_counter()
            noise_hat, _ = recover(model, pixels)
            pairs = zip(noise_hat.split(1), keys, strict=True)
            log10[row, place] = [evidence_of(noise, [key])[0][0].log10_pvalue for noise, key in pairs]
            seconds[row, place] = (time.perf_counter() - begun) / len(members)
    return {"log10": log10, "seconds": seconds}


def _decided(
    attack: str, truth: str, look: str, members: range, first: NDArray[np.float64], full: NDArray[np.float64]
) -> list[dict[str, Any]]:
    chosen, rows = Screening(look), []
    for i, one, two in zip(members, first.tolist(), full.tolist(), strict=True):
        settled, detected, detected_in_full = _outcome(chosen, one, two)
        rows.append(
            {
                "pass": look,
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
    """Whether the first pass decides, two passes detect, and the full inversion alone does, by log10 p over all keys."""
    settled = screening.settles(first, DEFAULT_ALPHA)
    log10, share = (first, screening.share) if settled else (full, 1 - screening.share)
    return settled, log10 <= math.log10(share * DEFAULT_ALPHA), full <= math.log10(DEFAULT_ALPHA)


def _by_keys(rows: Sequence[dict[str, Any]], screening: Screening) -> Table:
    """Say what two passes lose where more keys are tried: p-values of the image's own key, times their count."""
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
        ("keys tried", "detected", "detected in full", "lost", "lost with gate 1", "decided: marked"),
        tuple(lines),
        f"Passes as above, by {screening.method}, all attacks together. The p of the own key times the count of keys: "
        "what the gate looks at, too, so that a mark must stand out among all keys in the first pass already.",
    )


def _line(rows: Sequence[dict[str, Any]], look: str, attack: str | None, cost: dict[str, float]) -> tuple[Cell, ...]:
    chosen = [row for row in rows if row["pass"] == look and attack in (None, row["attack"])]
    marked = [row for row in chosen if row["truth"] == "marked"]
    unmarked = [row for row in chosen if row["truth"] == "unmarked"]
    whole = [row for row in marked if row["detected_in_full"]]
    settled = {
        truth: statistics.fmean(row["decided_by"] == "first" for row in some)
        for truth, some in (("marked", marked), ("unmarked", unmarked))
    }
    return (
        attack or "all",
        look,
        Rate(sum(row["detected"] for row in marked), len(marked)),
        Rate(len(whole), len(marked)),
        Rate(sum(not row["detected"] for row in whole), len(whole)) if whole else "none to lose",
        Rate(sum(row["detected"] for row in unmarked), len(unmarked)),
        *(f"{100 * share:.0f} %" for share in settled.values()),
        *(f"{1 / (cost[look] + (1 - share) * cost[_FULL]):.2f}" for share in settled.values()),
        f"{1 / cost[_FULL]:.2f}",
    )
