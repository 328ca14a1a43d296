"""Modules and packages that each benchmark measures: a change of them makes a stored result old."""

from __future__ import annotations

_DECODER = ("inversion.decoder", "models.autoencoder")
_NOISE = (*_DECODER, "inversion.noise", "inversion.recovery", "models.ddim")
TEST = (*_NOISE, "generation.generator", "watermark.patterns", "watermark.embedding", "treering_detectors.exact")
"""The test of a key, and all before it."""

_IMAGES = ("media.images", "media.conversion")
_SEARCH = (*TEST, "detection.search", "detection.judge", "detection.two_pass", "detection.screening", *_IMAGES)
MEASURES: dict[str, tuple[str, ...]] = {
    "paper": (
        *TEST,
        "benchmark.paper",
        "benchmark.published_figures",
        *(f"benchmark.harness.{name}" for name in ("laboratory", "inversion_methods", "inversion_paths", "memory")),
        *(f"benchmark.harness.{name}" for name in ("keyed_images", "conditions", "trials")),
        *(f"benchmark.robustness.{name}" for name in ("measurements", "robustness", "tables")),
        "attacks",
        "detection.calibration.scores",
        "generation.editing",
        "models.precision",
        "treering_detectors.nearest",
    ),
    **dict.fromkeys(("inversion", "pareto"), (*TEST, "benchmark.harness.laboratory")),
    **dict.fromkeys(("ablation", "cocoercivity", "heldout"), _DECODER),
    "baseline": ("inversion.decoder.baselines", "models.autoencoder"),
    "classification": (*TEST, "treering_detectors.nearest"),
    "editing": (*_DECODER, "generation.editing"),
    "noise": _NOISE,
    "uniformity": (*TEST, "treering_detectors.baselines"),
    "chance": (*TEST, "audit.sketches", "audit.chance", "treering_detectors.dependence"),
    "identification": (*TEST, "detection.identification", "watermark.keys.index"),
    "peers": (
        *TEST,
        "benchmark.outside.mark_diffusion",
        "benchmark.harness.keyed_images",
        "benchmark.harness.unmarked_images",
        "treering_detectors.baselines",
        "detection.calibration.scores",
    ),
    **dict.fromkeys(("coverage", "search-uniformity"), _SEARCH),
    **dict.fromkeys(
        ("shared", "search-parts"),
        (
            *_SEARCH,
            "benchmark.shared_trials",
            "benchmark.harness.shared_chains",
            "benchmark.harness.shared_images",
        ),
    ),
    "classifier": (*TEST, "treering_detectors.classifier"),
    "robustness": (*TEST, "attacks", "benchmark.harness.trials", "detection.calibration.scores"),
    "survival": (
        *_SEARCH,
        "attacks",
        *(f"benchmark.harness.{name}" for name in ("conditions", "trials")),
        *(f"benchmark.robustness.{name}" for name in ("measurements", "robustness", "tables")),
        "detection.calibration.scores",
    ),
    "over-exposure": (*TEST, "inversion.over_exposure", "inversion.brightness", "models.restorer", "attacks"),
    "gain": (*TEST, "models.filter_bank", "models.inverter", "attacks", "benchmark.harness.conditions"),
    "forgery": (*TEST, "attacks.averaging", "attacks.imprinting"),
    "quality": ("generation.generator", "watermark.patterns", "watermark.embedding", "models.ddim"),
    "throughput": ("detection.verification", "inversion", *_IMAGES),
    "audit": ("audit",),
    "screening": (*_SEARCH, "attacks"),
    "precision": (*_NOISE, "models.precision", "models.compiling"),
    "sizes": (*_DECODER, "models.tiling"),
    "videos": (*_DECODER, "models.diffusers.video", "models.diffusers.video_networks"),
}
"""What each benchmark measures, by its name; where nothing is said here, `TEST`."""
