"""What a fit brings, on marked images that no filter was fitted to: error of the latent, and evidence after each attack."""

from __future__ import annotations

import datetime
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import permutations
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from treering_detectors import Rate

from treering_verify.generation.generator import generate
from treering_verify.generation.seeds import SEEDS
from treering_verify.inversion.recovery import InversionOptions, recover_latent, recover_noise
from treering_verify.models import LatentModel, is_alone
from treering_verify.models.filter_bank import CorrectedBank
from treering_verify.models.inverter import Inverter, carrying, without_network
from treering_verify.training.attack_table import REPORTED
from treering_verify.training.examples import PROMPTS, Examples, FitOptions, Progress, attacked, photographed
from treering_verify.training.memory import Memory, remembering
from treering_verify.watermark.embedding import key_evidence
from treering_verify.watermark.keys.key import Key

if TYPE_CHECKING:
    import torch

    from treering_verify.media.images import ImageSource

CLASSICAL, DEFAULT, FILTERED, NETWORK = "encoder + DDIM", "default without filters", "filtered", "with network"
_NAMES = {FILTERED: "filters", NETWORK: "filters and network"}
_SEEDS = SEEDS["fit-report"]  # of the report's images and keys; the fit took others
_RESAMPLES = 2000
_FOUND = -6.0
TOLERANCE = 0.1  # dB that a latent's error may lie above the encoder's


class _Recovered(NamedTuple):
    latent: torch.Tensor
    noise: torch.Tensor | None  # None where an autoencoder was fitted alone


def held_out_report(
    model: LatentModel,
    inverter: Inverter,
    *,
    images: int = 8,
    attacks: Sequence[str] = REPORTED,
    prompts: Sequence[str | None] | None = None,
    photographs: Sequence[ImageSource] | None = None,
    options: FitOptions | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Judge images that nothing was fitted to, after each attack: classically, by the model's default, and fitted.

    Where a network lies on top of the filters, they are judged with it and without.

    Images are marked, each under a key of its own; those of an autoencoder alone carry no mark and have a latent only.

    Parameters
    ----------
    model : LatentModel
    inverter : Inverter
        Fitted to it.
    images : int
    attacks, prompts, options, progress
        As `fit` takes them.
    photographs : sequence of images, optional
        As `fit` takes them, others than those.

    Returns
    -------
    dict
        JSON-ready. "attacks": by attack and way, for each image the latent's error in dB and, where it is marked, log10 p
        and the noise's error; "seconds" of the first image alone; and where, when and on how many images it was measured.
    """
    import torch

    options, spent = options or FitOptions(), time.process_time()
    keys: list[Key] = []
    if is_alone(model):
        made = photographed(model, photographs or [], images, _SEEDS)
    else:
        keys = [Key.generate(model.latent_shape, seed=_SEEDS + i) for i in range(images)]
        made = _marked(model, keys, options, list(prompts or model.classes or PROMPTS))
    memory = Memory()
    kept = remembering(model, memory)
    fitted = carrying(kept, without_network(inverter))
    ways = {
        CLASSICAL: (carrying(kept, None), InversionOptions(method="encoder", noise_method="naive")),
        DEFAULT: (carrying(kept, None), InversionOptions()),
        FILTERED: (fitted, InversionOptions()),
    }
    if isinstance(inverter.noise, CorrectedBank):
        ways[NETWORK] = carrying(kept, inverter), InversionOptions()
    found: dict[str, dict[str, dict[str, list[float]]]] = {}
    seconds = dict.fromkeys(ways, 0.0)
    for number, text in enumerate(attacks):
        pixels = attacked(made.images, [text], _SEEDS)
        if not number:
            for way, (carrier, inversion) in ways.items():
                memory.clear()
                seconds[way] = _seconds_of(carrier, inversion, pixels[:1], alone=made.noise is None)
        read: dict[str, list[_Recovered]] = {way: [] for way in ways}
        for part in pixels.split(options.batch_size):
            memory.clear()  # what the ways have in common is computed once
            for way, (carrier, inversion) in ways.items():
                read[way].append(_recovered(carrier, inversion, part, alone=made.noise is None))
        found[text] = {way: _judged(some, made, keys) for way, some in read.items()}
        if progress:
            progress("attacks reported", number + 1, len(attacks))
    return {
        "images": images,
        "attacks": found,
        "seconds": {way: round(spent, 3) for way, spent in seconds.items()},
        "processor_seconds": round(time.process_time() - spent, 1),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} thread(s), {platform.system()}",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def _marked(model: LatentModel, keys: Sequence[Key], options: FitOptions, prompts: Sequence[str | None]) -> Examples:
    made = generate(
        model,
        keys,
        seeds=[_SEEDS + i for i in range(len(keys))],
        prompts=[prompts[i % len(prompts)] for i in range(len(keys))],
        steps=options.generation_steps,
        batch_size=options.batch_size,
    )
    return Examples.of(made)


def _recovered(carrier: LatentModel, inversion: InversionOptions, pixels: torch.Tensor, *, alone: bool) -> _Recovered:
    if alone:
        return _Recovered(recover_latent(carrier, pixels, inversion).latent, None)
    noise_hat, solution = recover_noise(carrier, pixels, inversion)
    return _Recovered(solution.latent, noise_hat)


def _seconds_of(carrier: LatentModel, inversion: InversionOptions, pixels: torch.Tensor, *, alone: bool) -> float:
    started = time.perf_counter()
    _recovered(carrier, inversion, pixels, alone=alone)
    return time.perf_counter() - started


def _judged(read: Sequence[_Recovered], made: Examples, keys: Sequence[Key]) -> dict[str, list[float]]:
    """Return what is known of each image."""
    import torch

    latent_db = _decibels(torch.cat([one.latent for one in read]), made.latents)
    if made.noise is None:
        return {"latent_db": latent_db}
    noise_hat = torch.cat([one.noise for one in read if one.noise is not None])
    log10 = [key_evidence(noise_hat[i : i + 1], key)[0].log10_pvalue for i, key in enumerate(keys)]
    return {
        "log10_pvalue": [round(value, 3) for value in log10],
        "latent_db": latent_db,
        "noise_db": _decibels(noise_hat, made.noise),
    }


def ways_of(report: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the ways of inversion that a report compares, what was fitted last."""
    return tuple(next(iter(report["attacks"].values())))


def summary_rows(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a row for each attack: medians of log10 p, paired gains with 95 % intervals, and errors of the latent."""
    rows = []
    *others, last = ways_of(report)
    for text, ways in report["attacks"].items():
        latent = {way: np.array(found["latent_db"]) for way, found in ways.items()}
        change = latent[last] - latent[CLASSICAL]
        row: dict[str, Any] = {
            "attack": text,
            "latent": float(latent[CLASSICAL].mean()),
            "latent default": float((latent[DEFAULT] - latent[CLASSICAL]).mean()),
            "latent change": float(change.mean()),
            "interval of latent change": _interval(change, np.mean),
            "worst latent change": float(change.max()),
            "latents worse": int((change > TOLERANCE).sum()),
        }
        if "log10_pvalue" in ways[last]:
            log10 = {way: np.array(found["log10_pvalue"]) for way, found in ways.items()}
            row |= {f"median {way}": float(np.median(some)) for way, some in log10.items()}
            row |= {f"found {way}": int((some <= _FOUND).sum()) for way, some in log10.items()}
            for other in others:
                difference = log10[last] - log10[other]
                row[f"gain over {other}"] = float(np.median(difference))
                row[f"interval over {other}"] = _interval(difference)
        rows.append(row)
    return rows


def conclusion(report: Mapping[str, Any]) -> str:
    """Say in a sentence under how many attacks the filters pay against each other way, and where they do not."""
    rows, said = summary_rows(report), []
    if f"gain over {DEFAULT}" not in rows[0]:
        better = sum(row["interval of latent change"][1] < 0 for row in rows)
        worse = sum(row["latents worse"] for row in rows)
        return (
            f"filters bring the latent nearer than the encoder under {better} of {len(rows)} attacks; {worse} of "
            f"{len(rows) * report['images']} latents end more than {TOLERANCE} dB further off"
        )
    *others, last = ways_of(report)
    fitted = _NAMES[last]
    for other in sorted(others, key=(FILTERED, DEFAULT, CLASSICAL).index):
        better = [row["attack"] for row in rows if row[f"interval over {other}"][1] < 0]
        worse = [row["attack"] for row in rows if row[f"interval over {other}"][0] > 0]
        against = f"against {other}, {fitted} find more under {len(better)} of {len(rows)} attacks"
        said.append(f"{against}, less under {', '.join(worse)}" if worse else f"{against} and less under none")
    worse = sum(row["latents worse"] for row in rows)
    said.append(f"{worse} of {len(rows) * report['images']} latents end more than {TOLERANCE} dB further off than E(x)")
    return "; ".join([*said, *_found_at_all(report)])


def _found_at_all(report: Mapping[str, Any]) -> list[str]:
    """Say how many images are found at 1e-6 over all attacks, by each way and by what was fitted alone; images recur."""
    ways = ways_of(report)
    found = {
        way: np.concatenate([np.array(ways[way]["log10_pvalue"]) <= _FOUND for ways in report["attacks"].values()])
        for way in ways
    }
    said = [f"found at 1e-6 by {way}: {Rate(int(some.sum()), len(some))}" for way, some in found.items()]
    gained, lost = (int((a & ~b).sum()) for a, b in permutations((found[ways[-1]], found[DEFAULT])))
    return [*said, f"{_NAMES[ways[-1]]} find {gained} that the default misses, and miss {lost} that it finds"]


def _decibels(found: torch.Tensor, truth: torch.Tensor) -> list[float]:
    """Return 10 log10 |found - truth|^2 / |truth|^2 of each item."""
    import torch

    error = (found - truth).flatten(1).square().sum(dim=1) / truth.flatten(1).square().sum(dim=1)
    return [round(float(value), 3) for value in 10 * torch.log10(error.clamp_min(1e-20))]


def _interval(differences: Any, middle: Callable[..., Any] = np.median) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the median, or of another `middle`, of paired differences."""
    generator = np.random.default_rng(0)
    picks = generator.integers(0, len(differences), (_RESAMPLES, len(differences)))
    low, high = np.percentile(middle(np.asarray(differences)[picks], axis=1), (2.5, 97.5))
    return float(low), float(high)
