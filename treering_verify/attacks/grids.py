"""Grids of each attack's strengths, from one that is hardly visible to one that no mark is expected to survive."""

from __future__ import annotations

from treering_verify.attacks.notation import Attack
from treering_verify.attacks.tables import ATTACKS, MODEL_ATTACKS


def _grid(name: str, parameter: str, *values: float) -> tuple[Attack, ...]:
    return tuple(Attack(name, {parameter: value}) for value in values)


GRIDS: dict[str, tuple[Attack, ...]] = {
    "jpeg": _grid("jpeg", "quality", 90, 75, 50, 25, 15, 10, 5, 2, 1),
    "webp": _grid("webp", "quality", 90, 75, 50, 25, 10, 5, 1),
    "avif": _grid("avif", "quality", 90, 75, 50, 25, 10, 5, 1),
    "noise": _grid("noise", "sigma", 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8),
    "blur": _grid("blur", "radius", 0.5, 1.0, 2.0, 4.0, 8.0, 16.0),
    "crop_scale": _grid("crop_scale", "share", 0.98, 0.95, 0.9, 0.75, 0.5, 0.25, 0.1),
    "random_crop_scale": _grid("random_crop_scale", "share", 0.98, 0.95, 0.9, 0.75, 0.5, 0.25, 0.1),
    "centre_crop": _grid("centre_crop", "share", 0.9, 0.75, 0.5, 0.35, 0.25, 0.1),
    "random_crop": _grid("random_crop", "share", 0.9, 0.75, 0.5, 0.35, 0.25, 0.1),
    "rotate": _grid("rotate", "degrees", 1.0, 2.0, 5.0, 9.0, 15.0, 30.0, 45.0, 75.0, 90.0, 180.0),
    "resize": _grid("resize", "share", 0.75, 0.5, 0.35, 0.25, 0.15, 0.1, 0.05),
    "brightness": _grid("brightness", "factor", 1.1, 1.25, 1.5, 2.0, 3.0, 6.0, 10.0),
    "darkness": _grid("brightness", "factor", 0.9, 0.75, 0.5, 0.25, 0.1, 0.05, 0.02),
    "contrast": _grid("contrast", "factor", 1.1, 1.25, 1.5, 2.0, 4.0, 10.0),
    "flatness": _grid("contrast", "factor", 0.9, 0.75, 0.5, 0.25, 0.1, 0.05, 0.02),
    "colour_jitter": _grid("colour_jitter", "strength", 0.1, 0.2, 0.4, 0.7, 1.0),
    "flip": (Attack("flip"),),
    "quantise": _grid("quantise", "levels", 64, 32, 16, 8, 4, 3, 2),
    "mask": _grid("mask", "share", 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95),
    "overlay": _grid("overlay", "opacity", 0.1, 0.25, 0.5, 0.75, 1.0),
    "screenshot": _grid("screenshot", "rounds", 1, 2, 4, 8),
    "regenerate_vae": _grid("regenerate_vae", "repeats", 1, 2, 4, 8, 16),
    "regenerate_diffusion": _grid("regenerate_diffusion", "strength", 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0),
    "adversarial": _grid("adversarial", "budget", 1, 2, 4, 8, 16, 32),
}
"""Attacks in the order of growing strength, by the name of the curve that they make.

The name is the attack's own, but for `darkness` and `flatness`: the factors below 1 of `brightness` and `contrast`. Other
parameters keep their defaults. Users may add a grid; `grids` gives their attacks one at the default parameters else.
"""


def grids() -> dict[str, tuple[Attack, ...]]:
    """Return all grids, and for each attack that users added and that is in none, the attack with its defaults."""
    graded = {attack.name for grid in GRIDS.values() for attack in grid}
    others = [name for name in (*ATTACKS.added, *MODEL_ATTACKS.added) if name not in graded]
    return {**GRIDS, **{name: (Attack(name),) for name in others}}
