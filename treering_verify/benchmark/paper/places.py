"""Where the key is best read: in the latent, after few steps of noise inversion, after many, or from several at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from treering_detectors import Rate, cosine_tests

from treering_verify.benchmark.harness.keyed_images import generate_each
from treering_verify.benchmark.harness.scope import CLEAN, SEEDS, Scope, distorted
from treering_verify.detection.judge import DEFAULT_ALPHA
from treering_verify.generation.generator import generate
from treering_verify.inversion import noise as noise_inversion
from treering_verify.inversion.decoder import invert
from treering_verify.inversion.recovery import problem_of
from treering_verify.media.images import to_tensor
from treering_verify.models import LatentModel
from treering_verify.report import format_pvalue
from treering_verify.report.findings import Cell, Findings, Table
from treering_verify.watermark.embedding import extract, features, key_bins
from treering_verify.watermark.keys.key import Key

if TYPE_CHECKING:
    import torch
    from PIL import Image

_ATTACKS = (CLEAN, "jpeg:quality=75", "jpeg:quality=25", "jpeg:quality=10", "noise:sigma=0.05", "blur:radius=2")
_FEW, _MANY = 3, 50
_BATCH = 16
_NULL_ALPHA = 1e-2


def places(model: LatentModel, scope: Scope) -> Findings:
    """Weigh what each place of the way back says of keys, of marked images and of others, each under a key of its own."""
    count, first = scope.images(4, 100), SEEDS["places"]
    attacks = _ATTACKS[:3] if scope.quick else _ATTACKS
    keys = [Key.generate(model.latent_shape, seed=first + i) for i in range(count)]
    rows: list[dict[str, Any]] = []
    lines: list[tuple[Cell, ...]] = []
    with scope.progress("Images", 2 * count + 2 * len(attacks) * count) as advance:
        pictures = {"marked": generate_each(model, keys, range(first, first + count), advance), "unmarked": []}
        for made in generate(model, None, seeds=range(first + (1 << 20), first + (1 << 20) + count)):
            pictures["unmarked"].append(made.image)
            advance()
        for attack in attacks:
            found: dict[str, dict[str, list[float]]] = {}
            for truth, images in pictures.items():
                for i, seen in enumerate(_places(model, distorted(images, attack), keys[0])):
                    for place, values in seen.items():
                        evidence = cosine_tests(values, keys[i].numbers)[0]
                        found.setdefault(place, {}).setdefault(truth, []).append(evidence.log10_pvalue)
                        rows.append(
                            {
                                "attack": attack,
                                "truth": truth,
                                "image": i,
                                "place": place,
                                "log10_pvalue": evidence.log10_pvalue,
                                "statistic": evidence.statistic,
                            }
                        )
                    advance()
            for place, by_truth in found.items():
                marked, unmarked = (np.array(by_truth[truth]) for truth in ("marked", "unmarked"))
                lines.append(
                    (
                        attack,
                        place,
                        Rate(int((marked <= np.log10(DEFAULT_ALPHA)).sum()), count),
                        format_pvalue(float(np.median(marked))),
                        format_pvalue(float(np.quantile(marked, 0.95, method="higher"))),
                        Rate(int((unmarked <= np.log10(_NULL_ALPHA)).sum()), count),
                    )
                )
    return Findings(
        "places",
        "Where on the way from image to noise is a key read best, and what do several places say together?",
        tuple(rows),
        (
            Table(
                "Evidence by place",
                ("attack", "read from", f"p <= {DEFAULT_ALPHA:g}", "median p", "95 % reach p", "unmarked p <= 0.01"),
                tuple(lines),
                "Key pattern random, after the default decoder inversion; 'rings at unit power': each ring of each channel "
                "divided by its own power in the image. Intervals: Clopper-Pearson, 95 %.",
            ),
        ),
        seeds=f"{first} onwards, keys likewise; one key per image",
        count=f"{count} marked and {count} unmarked per attack",
    )


def _places(model: LatentModel, images: list[Image.Image], key: Key) -> list[dict[str, NDArray[np.float64]]]:
    """Features (1, d) of each image by the place that they are read from."""
    import torch

    found = []
    steps = noise_inversion.DEFAULT_STEPS
    for start in range(0, len(images), _BATCH):
        pixels = torch.cat([to_tensor(image) for image in images[start : start + _BATCH]])
        latent = invert(problem_of(model, pixels)).latent
        with torch.inference_mode():
            passed = noise_inversion.trajectory(model, latent, steps=steps)
            read: dict[str, torch.Tensor] = {
                "latent": latent,
                f"noise, step {_FEW} of {steps}": passed[_FEW],
                f"noise, {steps} steps": passed[steps],
                f"noise, {_MANY} steps": noise_inversion.naive(model, latent, steps=_MANY),
            }
            if noise_inversion.default_method(model, steps) == "estimated":
                read["estimator"] = noise_inversion.estimated(model, latent, steps=steps)
        values = {place: extract(z, key) for place, z in read.items()}
        for place in ("latent", f"noise, {steps} steps"):
            values[f"{place}, rings at unit power"] = _at_unit_power(values[place], key)
        estimates = {place: features(coefficients, key.family) for place, coefficients in values.items()}
        found += [{place: f[i : i + 1] for place, f in estimates.items()} for i in range(len(pixels))]
    return found


def _at_unit_power(coefficients: NDArray[np.complex128], key: Key) -> NDArray[np.complex128]:
    """Divide each ring of each channel by its own power in the image, (B, channels, n)."""
    ring = key_bins(key).ring - key.inner_radius
    member = (ring[:, None] == np.arange(ring.max() + 1)[None, :]).astype(np.float64)
    power = (np.abs(coefficients) ** 2) @ (member / member.sum(axis=0))
    return np.asarray(coefficients / np.sqrt(np.maximum(power, np.finfo(float).tiny))[..., ring])
