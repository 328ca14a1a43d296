"""Evidence of a key by the point at which it is read: the latent, after few or many steps of noise inversion, or several."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from treering_detectors import Rate, cosine_tests

from treering_verify.benchmark.catalogue import BENCHMARKS
from treering_verify.benchmark.harness.keyed_images import generate_each
from treering_verify.benchmark.harness.scope import CLEAN, SEEDS, Scope, distorted
from treering_verify.detection.judge import DEFAULT_ALPHA
from treering_verify.generation.generator import generate
from treering_verify.inversion import noise as noise_inversion
from treering_verify.inversion.decoder import invert
from treering_verify.inversion.recovery import problem_of
from treering_verify.media.conversion import to_tensor
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
_UNMARKED_ALPHA = 1e-2


def measure(model: LatentModel, scope: Scope) -> Findings:
    """Test keys at each point of the inversion, on marked and unmarked images, each under its own key."""
    count, first = scope.images(4, 100), SEEDS["readout"]
    attacks = _ATTACKS[:3] if scope.quick else _ATTACKS
    keys = [Key.generate(model.latent_shape, seed=first + i) for i in range(count)]
    rows = scope.rows
    lines: list[tuple[Cell, ...]] = []
    with scope.progress("Images", 2 * count + 2 * len(attacks) * count) as advance:
        images: dict[str, list[Image.Image]] = {
            "marked": generate_each(model, keys, range(first, first + count), advance),
            "unmarked": [],
        }
        for made in generate(model, None, seeds=range(first + (1 << 20), first + (1 << 20) + count)):
            images["unmarked"].append(made.image)
            advance()
        for attack in attacks:
            found: dict[str, dict[str, list[float]]] = {}
            for truth, originals in images.items():
                for i, read in enumerate(_features_by_point(model, distorted(originals, attack), keys[0])):
                    for point, values in read.items():
                        evidence = cosine_tests(values, keys[i].numbers)[0]
                        found.setdefault(point, {}).setdefault(truth, []).append(evidence.log10_pvalue)
                        rows.append(
                            {
                                "attack": attack,
                                "truth": truth,
                                "image": i,
                                "point": point,
                                "log10_pvalue": evidence.log10_pvalue,
                                "statistic": evidence.statistic,
                            }
                        )
                    advance()
            for point, by_truth in found.items():
                marked, unmarked = (np.array(by_truth[truth]) for truth in ("marked", "unmarked"))
                lines.append(
                    (
                        attack,
                        point,
                        Rate(int((marked <= np.log10(DEFAULT_ALPHA)).sum()), count),
                        format_pvalue(float(np.median(marked))),
                        format_pvalue(float(np.quantile(marked, 0.95, method="higher"))),
                        Rate(int((unmarked <= np.log10(_UNMARKED_ALPHA)).sum()), count),
                    )
                )
    return Findings(
        "readout",
        BENCHMARKS["readout"].question,
        tuple(rows),
        (
            Table(
                "Evidence by the point at which the key is read",
                (
                    "attack",
                    "read from",
                    f"p <= {DEFAULT_ALPHA:g}",
                    "median p",
                    "95th percentile of p",
                    "unmarked p <= 0.01",
                ),
                tuple(lines),
                "Key pattern random, after the default decoder inversion. 'rings at unit power': each ring of each channel "
                "is divided by its own power in the image. Intervals: Clopper-Pearson, 95 %.",
            ),
        ),
        seeds=f"{first} onwards, keys likewise; one key per image",
        count=f"{count} marked and {count} unmarked per attack",
    )


def _features_by_point(model: LatentModel, images: list[Image.Image], key: Key) -> list[dict[str, NDArray[np.float64]]]:
    """Return the features (1, d) of each image by the point at which they are read."""
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
        values = {point: extract(z, key) for point, z in read.items()}
        for point in ("latent", f"noise, {steps} steps"):
            values[f"{point}, rings at unit power"] = _at_unit_power(values[point], key)
        estimates = {point: features(coefficients, key.family) for point, coefficients in values.items()}
        found += [{point: f[i : i + 1] for point, f in estimates.items()} for i in range(len(pixels))]
    return found


def _at_unit_power(coefficients: NDArray[np.complex128], key: Key) -> NDArray[np.complex128]:
    """Divide each ring of each channel by its own power in the image, (B, channels, n)."""
    ring = key_bins(key).ring - key.inner_radius
    on_ring = (ring[:, None] == np.arange(ring.max() + 1)[None, :]).astype(np.float64)
    power = (np.abs(coefficients) ** 2) @ (on_ring / on_ring.sum(axis=0))
    return np.asarray(coefficients / np.sqrt(np.maximum(power, np.finfo(float).tiny))[..., ring])
