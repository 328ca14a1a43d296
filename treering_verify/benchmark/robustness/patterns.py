"""Every pattern beside the others: evidence on clean and attacked images, each image under a key of its own."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from treering_detectors import Rate

from treering_verify.benchmark.harness.cache import kept
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
_ALPHA, _NULL_ALPHA = 1e-6, 1e-2
_FRESH_KEYS = 4  # of each pattern, for each unmarked image and attack


def patterns(model: LatentModel, scope: Scope) -> Findings:
    """Mark the same seeds by every pattern, attack, verify; weigh unmarked images under fresh keys beside them."""
    count, first = scope.images(2, 16), SEEDS["patterns"]
    attacks = _ATTACKS[:2] if scope.quick else _ATTACKS
    weights = fingerprint(model)
    rows: list[dict[str, Any]] = []
    lines: list[tuple[Cell, ...]] = []
    with scope.progress("Patterns", 1 + len(PATTERNS)) as advance:

        def controls() -> dict[str, NDArray[Any]]:
            seeds = range(first + (1 << 20), first + (1 << 20) + count)
            pictures = [result.image for result in generate(model, None, seeds=seeds)]
            return {a: np.concatenate([z.numpy() for z in noise_of(model, distorted(pictures, a))]) for a in attacks}

        facts = (weights, __version__, count, attacks)
        unmarked = kept(scope.folder, "patterns-unmarked", facts, controls)
        advance()
        for name, pattern in PATTERNS.items():
            measure = partial(_evidence, model, name, range(first, first + count), attacks, unmarked)
            found = kept(scope.folder, f"patterns-{name}", (*facts, name), measure)
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
                hits, null = found[f"marked {attack}"], found[f"unmarked {attack}"][:, 0]
                lines.append(
                    (
                        name,
                        f"{pattern.compared(family)} {pattern.counts}",
                        attack,
                        format_pvalue(float(np.median(hits[:, 0]))),
                        format_pvalue(float(hits[:, 0].max())),
                        f"{hits[:, 1].mean():.2f}",
                        Rate(int((hits[:, 0] <= np.log10(_ALPHA)).sum()), len(hits)),
                        Rate(int((null <= np.log10(_NULL_ALPHA)).sum()), len(null)),
                    )
                )
    table = Table(
        "Patterns, each with its own test",
        ("pattern", "compares", "attack", "median p", "largest p", "statistic", "p <= 1e-6", "unmarked p <= 0.01"),
        tuple(lines),
        "Statistic: mean cosine or agreement of marked images. Unmarked: the same attack, "
        f"{_FRESH_KEYS} fresh keys an image; 1 % expected where the test is exact. Intervals: Clopper-Pearson, 95 %. "
        f"Weights {weights}.",
    )
    return Findings(
        "patterns",
        "How much evidence does each pattern leave, clean and attacked, and does its test keep its level?",
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
    """Return log10 p and statistic, (n, 2), of marked and unmarked images by attack; each image under a key of its own."""
    import torch

    count, first = len(seeds), seeds[0]
    keys = [Key.generate(model.latent_shape, pattern=pattern, seed=first + i) for i in range((1 + _FRESH_KEYS) * count)]
    marked = generate_each(model, keys[:count], seeds, lambda: None)
    found = {}
    for attack in attacks:
        found[f"marked {attack}"] = np.array(list(evidence_of_images(model, distorted(marked, attack), keys[:count])))
        noise_hat = torch.from_numpy(unmarked[attack])
        null = [key_evidence(noise_hat[i // _FRESH_KEYS][None], key)[0] for i, key in enumerate(keys[count:])]
        found[f"unmarked {attack}"] = np.array([(e.log10_pvalue, e.statistic) for e in null])
    return found
