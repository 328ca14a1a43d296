"""Every pattern beside the others: evidence on clean and attacked images, each image under a key of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from detectors import Rate
from treering_verify.benchmark.own_keys import evidence_of, generate_each, noise_of
from treering_verify.benchmark.scope import CLEAN, SEEDS, Scope, distorted
from treering_verify.findings import Cell, Findings, Table
from treering_verify.generation import generate
from treering_verify.key import Key
from treering_verify.models import LatentModel
from treering_verify.models.weights import fingerprint
from treering_verify.patterns import PATTERNS
from treering_verify.report import format_pvalue
from treering_verify.verification import weigh

if TYPE_CHECKING:
    import torch

_ATTACKS = (CLEAN, "jpeg:quality=25", "rotate:degrees=5", "crop_scale:share=0.9", "centre_crop:share=0.75")
_ALPHA, _NULL_ALPHA = 1e-6, 1e-2
_FRESH_KEYS = 4  # of each pattern, for each unmarked image and attack


def patterns(model: LatentModel, scope: Scope) -> Findings:
    """Mark the same seeds by every pattern, attack, verify; weigh unmarked images under fresh keys beside them."""
    count, first = scope.images(2, 16), SEEDS["patterns"]
    attacks = _ATTACKS[:2] if scope.quick else _ATTACKS
    seeds = range(first, first + count)
    rows: list[dict[str, Any]] = []
    lines: list[tuple[Cell, ...]] = []
    with scope.progress("Images", (1 + len(PATTERNS)) * count * (1 + len(attacks))) as advance:
        controls = []
        for result in generate(model, None, seeds=range(first + (1 << 20), first + (1 << 20) + count)):
            controls.append(result.image)
            advance()
        unmarked: dict[str, list[torch.Tensor]] = {}
        for attack in attacks:
            unmarked[attack] = []
            for noise_hat in noise_of(model, distorted(controls, attack)):
                unmarked[attack].append(noise_hat)
                advance()
        for name, pattern in PATTERNS.items():
            keys = [Key.generate(model.latent_shape, pattern=name, seed=first + i) for i in range(count)]
            fresh = [
                Key.generate(model.latent_shape, pattern=name, seed=first + count + i)
                for i in range(_FRESH_KEYS * count)
            ]
            marked = generate_each(model, keys, seeds, advance)
            for attack in attacks:
                found = []
                for score in evidence_of(model, distorted(marked, attack), keys):
                    found.append(("marked", *score))
                    advance()
                for i, key in enumerate(fresh):
                    (evidence,) = weigh(unmarked[attack][i // _FRESH_KEYS], [key])[0]
                    found.append(("unmarked", evidence.log10_pvalue, evidence.statistic))
                rows += [
                    {
                        "pattern": name,
                        "attack": attack,
                        "truth": truth,
                        "image": i if truth == "marked" else (i - count) // _FRESH_KEYS,
                        "log10_pvalue": log10_p,
                        "statistic": statistic,
                        "alpha": _ALPHA,
                    }
                    for i, (truth, log10_p, statistic) in enumerate(found)
                ]
                hits = np.array([log10_p for truth, log10_p, _ in found if truth == "marked"])
                null = np.array([log10_p for truth, log10_p, _ in found if truth == "unmarked"])
                lines.append(
                    (
                        name,
                        f"{pattern.compared(keys[0].family)} {pattern.counts}",
                        attack,
                        format_pvalue(float(np.median(hits))),
                        format_pvalue(float(hits.max())),
                        f"{np.mean([statistic for truth, _, statistic in found if truth == 'marked']):.2f}",
                        Rate(int((hits <= np.log10(_ALPHA)).sum()), len(hits)),
                        Rate(int((null <= np.log10(_NULL_ALPHA)).sum()), len(null)),
                    )
                )
    table = Table(
        "Patterns, each with its own test",
        ("pattern", "compares", "attack", "median p", "largest p", "statistic", "p <= 1e-6", "unmarked p <= 0.01"),
        tuple(lines),
        "Statistic: mean cosine or agreement of marked images. Unmarked: the same attack, "
        f"{_FRESH_KEYS} fresh keys an image; 1 % expected where the test is exact. Intervals: Clopper-Pearson, 95 %. "
        f"Weights {fingerprint(model)}.",
    )
    return Findings(
        "patterns",
        "How much evidence does each pattern leave, clean and attacked, and does its test keep its level?",
        tuple(rows),
        (table,),
        seeds=f"{first} onwards, keys likewise; one key per image",
        count=f"{count} marked per line, {_FRESH_KEYS * count} unmarked image-key pairs",
    )
