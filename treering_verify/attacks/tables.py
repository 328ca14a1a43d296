"""Tables of all attacks by name, with the ranges of their parameters."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from treering_verify.attacks.appearance import blur, brightness, colour_jitter, contrast, noise, quantise
from treering_verify.attacks.compression import avif, jpeg, webp
from treering_verify.attacks.covering import mask, overlay
from treering_verify.attacks.geometry import (
    centre_crop,
    crop_scale,
    flip,
    random_crop,
    random_crop_scale,
    resize,
    rotate,
)
from treering_verify.attacks.regeneration import adversarial, regenerate_diffusion, regenerate_vae
from treering_verify.attacks.screenshots import screenshot

if TYPE_CHECKING:
    import torch
    from PIL import Image

ATTACKS: dict[str, Callable[..., Image.Image]] = {
    "jpeg": jpeg,
    "webp": webp,
    "avif": avif,
    "noise": noise,
    "blur": blur,
    "crop_scale": crop_scale,
    "random_crop_scale": random_crop_scale,
    "centre_crop": centre_crop,
    "random_crop": random_crop,
    "rotate": rotate,
    "resize": resize,
    "brightness": brightness,
    "contrast": contrast,
    "colour_jitter": colour_jitter,
    "flip": flip,
    "quantise": quantise,
    "mask": mask,
    "overlay": overlay,
    "screenshot": screenshot,
}
"""Attacks on the image alone: ``(image, *, parameters, seed) -> image``."""

MODEL_ATTACKS: dict[str, Callable[..., torch.Tensor]] = {
    "regenerate_vae": regenerate_vae,
    "regenerate_diffusion": regenerate_diffusion,
    "adversarial": adversarial,
}
"""Attacks that need a model: ``(images, model, *, parameters, seeds) -> images``, on tensors (B, 3, H, W)."""

RANGES: dict[str, dict[str, tuple[float, float]]] = {
    "jpeg": {"quality": (1, 100)},
    "webp": {"quality": (1, 100)},
    "avif": {"quality": (1, 100)},
    "noise": {"sigma": (0.0, 1.0)},
    "blur": {"radius": (0.0, 100.0)},
    "crop_scale": {"share": (0.05, 1.0)},
    "random_crop_scale": {"share": (0.05, 1.0)},
    "centre_crop": {"share": (0.05, 1.0)},
    "random_crop": {"share": (0.05, 1.0)},
    "rotate": {"degrees": (-180.0, 180.0)},
    "resize": {"share": (0.05, 1.0)},
    "brightness": {"factor": (0.0, 10.0)},
    "contrast": {"factor": (0.0, 10.0)},
    "colour_jitter": {"strength": (0.0, 1.0)},
    "flip": {},
    "quantise": {"levels": (2, 256)},
    "mask": {"share": (0.0, 1.0), "count": (1, 100)},
    "overlay": {"opacity": (0.0, 1.0), "share": (0.05, 2.0)},
    "screenshot": {
        "scale": (0.1, 4.0),
        "gamma": (0.2, 5.0),
        "crop": (0.0, 0.25),
        "quality": (1, 100),
        "rounds": (0, 20),
    },
    "regenerate_vae": {"repeats": (0, 100)},
    "regenerate_diffusion": {"strength": (0.0, 1.0), "steps": (1, 500)},
    "adversarial": {"budget": (0, 64), "steps": (0, 500)},
}
"""Least and greatest value of each attack's parameters, both included."""


def usage(name: str) -> str:
    """Describe an attack's parameters: ``quality (a whole number from 1 to 100, default 75)``."""
    described = []
    for parameter, default in defaults(name).items():
        low, high = RANGES[name][parameter]
        kind = "whole number" if isinstance(default, int) else "number"
        described.append(f"{parameter} (a {kind} from {low:g} to {high:g}, default {default:g})")
    return ", ".join(described) or "no parameters"


def summary(name: str) -> str:
    """Return what an attack does, in one sentence."""
    return (inspect.getdoc(_function(name)) or "").partition("\n")[0]


def defaults(name: str) -> dict[str, Any]:
    """Return the function's parameters and defaults, in order, without the seeds."""
    parameters = inspect.signature(_function(name)).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in ("seed", "seeds")}


def _function(name: str) -> Callable[..., Any]:
    return ATTACKS[name] if name in ATTACKS else MODEL_ATTACKS[name]
