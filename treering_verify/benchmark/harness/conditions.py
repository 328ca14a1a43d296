"""Conditions under which images are judged: twelve like SFWMark's, Tree-Ring's seven, and every grid of attacks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from treering_verify.attacks import ATTACKS, GRIDS, Attack, grids, parse
from treering_verify.benchmark.harness.scope import CLEAN
from treering_verify.errors import UsageError
from treering_verify.models import LatentModel

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class Condition:
    """One way to process images before they are judged.

    Attributes
    ----------
    name : str
        Name in tables.
    attack : str
        The attack as text, "clean", or one of `OTHERS`. The result depends on this and the seed only.
    """

    name: str
    attack: str

    def apply(self, images: Sequence[Image.Image], seeds: Sequence[int], model: LatentModel) -> list[Image.Image]:
        """Return the processed images, each with its own seed."""
        if self.attack == CLEAN:
            return list(images)
        if self.attack in OTHERS:
            return [OTHERS[self.attack](image, seed) for image, seed in zip(images, seeds, strict=True)]
        return parse(self.attack).apply_many(images, seeds, model)

    def missing(self, model: LatentModel) -> str:
        """Return why the condition cannot run here, or "" if it can."""
        if self.attack == _DENOISING:
            from importlib.util import find_spec

            return "" if find_spec("skimage") else "scikit-image is not installed"
        try:
            if self.attack != CLEAN and self.attack not in OTHERS:
                parse(self.attack).check(model)
        except UsageError as error:
            return str(error)
        return ""


def _drawn_brightness(image: Image.Image, seed: int) -> Image.Image:
    """Multiply by a factor that is uniform from 0 to 7, as torchvision's ColorJitter(brightness=6) draws it."""
    import numpy as np

    return ATTACKS["brightness"](image, factor=float(np.random.default_rng(seed).uniform(0.0, 7.0)))


def _non_local_means(image: Image.Image, seed: int) -> Image.Image:
    """Denoise by non-local means as if the noise had a standard deviation of 0.1: BM3D's nearest relative at hand."""
    import numpy as np
    from PIL import Image
    from skimage.restoration import denoise_nl_means

    clean = denoise_nl_means(
        np.asarray(image) / 255.0, patch_size=5, patch_distance=6, h=0.08, sigma=0.1, fast_mode=True, channel_axis=-1
    )
    return Image.fromarray(np.rint(np.clip(clean, 0.0, 1.0) * 255.0).astype(np.uint8))


_BRIGHTNESS, _DENOISING = "brightness drawn from 0 to 7", "non-local means, sigma 0.1"
OTHERS: dict[str, Callable[[Image.Image, int], Image.Image]] = {
    _BRIGHTNESS: _drawn_brightness,
    _DENOISING: _non_local_means,
}
"""Conditions that are not attacks of the toolkit: (image, seed) -> image."""

# SFWMark's list with the parameters of its code: brightness is a jitter, "blur 5" a kernel of 5 x 5 with a standard
# deviation of 1, crops stay in their place and are given by area, and the regeneration adds noise of step 60 of 1000.
TWELVE: tuple[Condition, ...] = (
    Condition("clean", CLEAN),
    Condition("brightness 6", _BRIGHTNESS),
    Condition("contrast .5", "contrast:factor=0.5"),
    Condition("JPEG 25", "jpeg:quality=25"),
    Condition("blur 5x5", "blur:radius=1.0"),
    Condition("noise .05", "noise:sigma=0.05"),
    Condition("denoising .1", _DENOISING),
    Condition("AVIF 25", "avif:quality=25"),
    Condition("WebP 10", "webp:quality=10"),
    Condition("diffusion 60/1000", "regenerate_diffusion:strength=0.06,steps=50"),
    Condition("centre crop, half the area", "centre_crop:share=0.7071"),
    Condition("random crop, .7 of the area", "random_crop:share=0.8367"),
)
STAND_INS = (
    "Like SFWMark's twelve, on images of this model's size: non-local means stand in for BM3D, and AVIF 25 and WebP 10 "
    "for the two neural codecs at quality 3."
)
# The attacks of Tree-Ring's table, in its order. A crop there keeps .75 of the area, here .75 of each side; noise here does
# not wrap.
SEVEN: tuple[Condition, ...] = (
    Condition("clean", CLEAN),
    Condition("rotation 75", "rotate:degrees=75.0"),
    Condition("JPEG 25", "jpeg:quality=25"),
    Condition("crop & scale .75", "random_crop_scale:share=0.75"),
    Condition("blur 4", "blur:radius=4.0"),
    Condition("noise .1", "noise:sigma=0.1"),
    Condition("brightness 6", _BRIGHTNESS),
)
QUICK: tuple[Condition, ...] = (TWELVE[0], TWELVE[3], TWELVE[10])


@dataclass(frozen=True)
class Scale:
    """An attack at increasing strength: the parameter, its values, and a condition for each value."""

    name: str
    parameter: str
    values: tuple[float, ...]
    conditions: tuple[Condition, ...]


def scales() -> tuple[Scale, ...]:
    """Return every grid of `attacks.GRIDS`, and one of each attack that users added without a grid."""
    return tuple(_scale(name, grid) for name, grid in grids().items())


def quick_scales() -> tuple[Scale, ...]:
    """Return two strengths of JPEG."""
    return (_scale("jpeg", GRIDS["jpeg"][3:6:2]),)


def available(conditions: Sequence[Condition], model: LatentModel) -> tuple[tuple[Condition, ...], tuple[str, ...]]:
    """Return the conditions that can run here, and the reasons why the others cannot."""
    missing = {condition: condition.missing(model) for condition in conditions}
    left_out = tuple(f"{condition.name}: {why}" for condition, why in missing.items() if why)
    return tuple(condition for condition, why in missing.items() if not why), left_out


def _scale(name: str, grid: Sequence[Attack]) -> Scale:
    varied = [p for p in grid[0].parameters if len({attack.parameters[p] for attack in grid}) > 1]
    parameter = varied[0] if varied else ""
    values = tuple(float(attack.parameters[parameter]) if parameter else 1.0 for attack in grid)
    return Scale(name, parameter, values, tuple(Condition(str(attack), str(attack)) for attack in grid))
