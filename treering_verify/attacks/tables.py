"""Tables of all attacks by name, with the ranges of their parameters."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from treering_verify.errors import UsageError, unknown
from treering_verify.plugins import Registry

if TYPE_CHECKING:
    import torch
    from PIL import Image

_HERE = "treering_verify.attacks"


def _takes(seed: str) -> Callable[[Any], bool]:
    """Return whether a value is a function with a parameter of this name, as attacks are."""
    return lambda value: callable(value) and seed in inspect.signature(value).parameters


ATTACKS: Registry[Callable[..., Image.Image]] = Registry(
    "attack",
    "treering_verify.attacks",
    {
        "jpeg": f"{_HERE}.compression:jpeg",
        "webp": f"{_HERE}.compression:webp",
        "avif": f"{_HERE}.compression:avif",
        "noise": f"{_HERE}.appearance:noise",
        "blur": f"{_HERE}.appearance:blur",
        "crop_scale": f"{_HERE}.geometry:crop_scale",
        "random_crop_scale": f"{_HERE}.geometry:random_crop_scale",
        "centre_crop": f"{_HERE}.geometry:centre_crop",
        "random_crop": f"{_HERE}.geometry:random_crop",
        "rotate": f"{_HERE}.geometry:rotate",
        "resize": f"{_HERE}.geometry:resize",
        "brightness": f"{_HERE}.appearance:brightness",
        "contrast": f"{_HERE}.appearance:contrast",
        "colour_jitter": f"{_HERE}.appearance:colour_jitter",
        "flip": f"{_HERE}.geometry:flip",
        "quantise": f"{_HERE}.appearance:quantise",
        "mask": f"{_HERE}.covering:mask",
        "overlay": f"{_HERE}.covering:overlay",
        "screenshot": f"{_HERE}.screenshots:screenshot",
    },
    fits=_takes("seed"),
)
"""Attacks on the image alone: ``(image, *, parameters, seed) -> image``; users add their own (docs/extending.md)."""

MODEL_ATTACKS: Registry[Callable[..., torch.Tensor]] = Registry(
    "attack",
    "treering_verify.model_attacks",
    {
        "regenerate_vae": f"{_HERE}.regeneration:regenerate_vae",
        "regenerate_diffusion": f"{_HERE}.regeneration:regenerate_diffusion",
        "adversarial": f"{_HERE}.regeneration:adversarial",
    },
    fits=_takes("seeds"),
)
"""Attacks that need a model: ``(images, model, *, parameters, seeds) -> images``, on tensors (B, 3, H, W); as `ATTACKS`."""

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
"""Least and greatest value of each attack's parameters, both included; what is not in it may be any number."""


def check_name(name: str) -> None:
    """Raise UnknownNameError, with the names that exist, unless there is such an attack."""
    if name not in ATTACKS and name not in MODEL_ATTACKS:
        raise UsageError(unknown("attack", name, (*ATTACKS, *MODEL_ATTACKS)))


def ranges(name: str) -> dict[str, tuple[float, float]]:
    """Return least and greatest value of each of an attack's parameters, both included, infinite where nothing is said."""
    return {p: RANGES.get(name, {}).get(p, (-math.inf, math.inf)) for p in defaults(name)}


def usage(name: str) -> str:
    """Return a description of an attack's parameters: ``quality (a whole number from 1 to 100, default 75)``."""
    described = []
    for parameter, default in defaults(name).items():
        low, high = ranges(name)[parameter]
        kind = "whole number" if isinstance(default, int) else "number"
        between = f" from {low:g} to {high:g}" if math.isfinite(high - low) else ""
        described.append(f"{parameter} (a {kind}{between}, default {default:g})")
    return ", ".join(described) or "no parameters"


def summary(name: str) -> str:
    """Return what an attack does, in one sentence."""
    return (inspect.getdoc(_function(name)) or "").partition("\n")[0]


def defaults(name: str) -> dict[str, float]:
    """Return the function's keyword-only numbers and their defaults, in order; what is no number is no parameter."""
    keywords = (p for p in inspect.signature(_function(name)).parameters.values() if p.kind is p.KEYWORD_ONLY)
    numbers = {p.name: p.default for p in keywords if type(p.default) in (int, float)}
    return {name: default for name, default in numbers.items() if name not in ("seed", "seeds")}


def _function(name: str) -> Callable[..., Any]:
    return ATTACKS[name] if name in ATTACKS else MODEL_ATTACKS[name]
