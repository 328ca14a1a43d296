"""Comparison of all patterns: evidence on clean and attacked images, each under its own key."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from treering_detectors import Rate

from treering_verify.benchmark.catalogue import BENCHMARKS
from treering_verify.benchmark.harness.cache import cached
from treering_verify.benchmark.harness.keyed_images import evidence_of_images, generate_each, noise_of
from treering_verify.benchmark.harness.scope import CLEAN, SEEDS, Scope, distorted
from treering_verify.generation.generator import generate
from treering_verify.models import LatentModel
from treering_verify.models.weights import fingerprint
from treering_verify.report import format_pvalue
from treering_verify.report.findings import Cell, Findings, Table
from treering_verify.version import __version__
from treering_verify.watermark.embedding import key_evidence
from treering_verify.watermark.keys.key import Family, Key
from treering_verify.watermark.patterns import PATTERNS

_ATTACKS = (CLEAN, "jpeg:quality=25", "rotate:degrees=5", "crop_scale:share=0.9", "centre_crop:share=0.75")
_ALPHA, _UNMARKED_ALPHA = 1e-6, 1e-2
_FRESH_KEYS = 4  # of each pattern, for each unmarked image and attack


def measure(model: LatentModel, scope: Scope) -> Findings:
    """Mark the same seeds with every pattern, attack and verify them; also test unmarked images under new keys."""
    count, first = scope.images(4, 16), SEEDS["patterns"]
    attacks = _ATTACKS[:2] if scope.quick else _ATTACKS
    weights = fingerprint(model)
    rows = scope.rows
    lines: list[tuple[Cell, ...]] = []
    with scope.progress("Patterns", 1 + len(PATTERNS)) as advance:

        def unmarked_noise() -> dict[str, NDArray[Any]]:
            seeds = range(first + (1 << 20), first + (1 << 20) + count)
            images = [result.image for result in generate(model, None, seeds=seeds)]
            return {a: np.concatenate([z.numpy() for z in noise_of(model, distorted(images, a))]) for a in attacks}

        facts = (weights, __version__, count, attacks)
        unmarked = cached(scope.folder, "patterns-unmarked", facts, unmarked_noise)
        advance()
        for name, pattern in PATTERNS.items():
            measure = partial(_evidence, model, name, range(first, first + count), attacks, unmarked)
            found = cached(scope.folder, f"patterns-{name}", (*facts, name), measure)
            advance()
            family = Family.choose(model.latent_shape, pattern=name)
            for attack in attacks:
                for truth in ("marked", "unmarked"):
                    rows += [
                        {
                            "pattern": name,
                            "attack": attack,
                            "truth": truth,
                            "image": i if truth == "marked" else i // _FRESH_KEYS,
                            "log10_pvalue": log10_p,
                            "statistic": statistic,
                            "alpha": _ALPHA,
                        }
                        for i, (log10_p, statistic) in enumerate(found[f"{truth} {attack}"].tolist())
                    ]
                hits, unmarked_log10 = found[f"marked {attack}"], found[f"unmarked {attack}"][:, 0]
                lines.append(
                    (
                        name,
                        f"{pattern.compared(family)} {pattern.counts}",
                        attack,
                        format_pvalue(float(np.median(hits[:, 0]))),
                        format_pvalue(float(hits[:, 0].max())),
                        f"{hits[:, 1].mean():.2f}",
                        Rate(int((hits[:, 0] <= np.log10(_ALPHA)).sum()), len(hits)),
                        Rate(int((unmarked_log10 <= np.log10(_UNMARKED_ALPHA)).sum()), len(unmarked_log10)),
                    )
                )
    table = Table(
        "Patterns, each by its own test",
        ("pattern", "compares", "attack", "median p", "largest p", "statistic", "p <= 1e-6", "unmarked p <= 0.01"),
        tuple(lines),
        "Statistic: mean cosine or agreement of marked images. Unmarked: after the same attack, "
        f"{_FRESH_KEYS} new keys per image; an exact test gives 1 %. Intervals: Clopper-Pearson, 95 %. "
        f"Weights {weights}.",
    )
    return Findings(
        "patterns",
        BENCHMARKS["patterns"].question,
        tuple(rows),
        (table,),
        seeds=f"{first} onwards, keys likewise; one key per image",
        count=f"{count} marked per line, {_FRESH_KEYS * count} unmarked image-key pairs",
    )


def _evidence(
    model: LatentModel,
    pattern: str,
    seeds: range,
    attacks: tuple[str, ...],
    unmarked: dict[str, NDArray[Any]],
) -> dict[str, NDArray[Any]]:
    """Return log10 p and statistic, (n, 2), of marked and unmarked images by attack, each under its own key."""
    import torch

    count, first = len(seeds), seeds[0]
    keys = [Key.generate(model.latent_shape, pattern=pattern, seed=first + i) for i in range((1 + _FRESH_KEYS) * count)]
    marked = generate_each(model, keys[:count], seeds, lambda: None)
    found = {}
    for attack in attacks:
        found[f"marked {attack}"] = np.array(list(evidence_of_images(model, distorted(marked, attack), keys[:count])))
        noise_hat = torch.from_numpy(unmarked[attack])
        unmarked_evidence = [
            key_evidence(noise_hat[i // _FRESH_KEYS][None], key)[0] for i, key in enumerate(keys[count:])
        ]
        found[f"unmarked {attack}"] = np.array([(e.log10_pvalue, e.statistic) for e in unmarked_evidence])
    return found
