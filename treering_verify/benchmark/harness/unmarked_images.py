"""Unmarked images: photographs, scenes, textures, other generators and the model's own, plain or attacked."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from treering_verify.attacks import ATTACKS, GRIDS, Attack
from treering_verify.detection.calibration.calibration_file import digest
from treering_verify.generation.generator import generate
from treering_verify.media.conversion import fit
from treering_verify.media.images import open_image
from treering_verify.models import LatentModel
from treering_verify.watermark.keys.key import Key

if TYPE_CHECKING:
    from PIL import Image

PHOTOGRAPH, TEXTURE, SCENE, FRACTAL, OWN, ANOTHER = (
    "photograph",
    "texture",
    "scene",
    "other generator",
    "model, unmarked",
    "model, another key",
)
# Kinds of twenty images. Images of the model take long to generate, and resemble each other.
_TURN = (PHOTOGRAPH,) * 10 + (SCENE,) * 4 + (FRACTAL,) * 2 + (TEXTURE,) * 2 + (OWN, ANOTHER)
_PHOTOGRAPHS = (
    "astronaut.png",
    "camera.png",
    "chelsea.png",
    "coffee.png",
    "coins.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "moon.png",
    "motorcycle_left.png",
    "page.png",
    "retina.jpg",
    "rocket.jpg",
)
_TEXTURES = ("brick.png", "grass.png", "gravel.png")


@dataclass(frozen=True, eq=False)
class UnmarkedImage:
    """An image at the model's size, its kind, and the attack that was applied, "" for none."""

    kind: str
    attack: str
    image: Image.Image


def draw_unmarked(model: LatentModel, count: int, seed: int, *, attacked: bool = True) -> Iterator[UnmarkedImage]:
    """Yield distinct unmarked images of all kinds in turn; unless `attacked` is False every second one is attacked.

    Photographs and textures are crops, of random place and size, of those that scikit-learn and, where it is installed,
    scikit-image ship; without the latter there are no textures, and photographs take their place.
    """
    draw = _Drawer(model, seed, attacked=attacked)
    seen: set[str] = set()
    i = 0
    while len(seen) < count:
        one = draw(i)
        i += 1
        if (name := digest(one.image)) not in seen:
            seen.add(name)
            yield one


def photographs(model: LatentModel, count: int, seed: int) -> list[Image.Image]:
    """Return crops of the photographs that scikit-learn and scikit-image ship, at the model's size, none attacked."""
    shipped, _ = _shipped()
    return [fit(_crop(shipped, np.random.default_rng([seed, i])), model.image_size)[0] for i in range(count)]


class UnmarkedImages:
    """Unmarked images, none attacked, by number; the last range asked for is remembered.

    Duplicates are left out. Images of the model are not checked for that, since no two of them are equal.
    """

    def __init__(self, model: LatentModel, count: int, seed: int) -> None:
        self._count, self._draw = count, _Drawer(model, seed, attacked=False)
        self._last: tuple[range, list[UnmarkedImage]] = range(0), []

    def some(self, which: range) -> list[UnmarkedImage]:
        """Return images number start to stop - 1."""
        if self._last[0] != which:
            self._last = which, [self._draw(i) for i in self._numbers[which.start : which.stop]]
        return self._last[1]

    @cached_property
    def _numbers(self) -> list[int]:
        """Number of each image to `_draw`."""
        seen: set[str] = set()
        found: list[int] = []
        for i in itertools.count():
            if len(found) == self._count:
                break
            name = str(i) if self._draw.kind(i) in (OWN, ANOTHER) else digest(self._draw(i).image)
            if name not in seen:
                seen.add(name)
                found.append(i)
        return found


class _Drawer:
    """Draws the image of a number, independently of the order of calls; a few numbers give equal images."""

    def __init__(self, model: LatentModel, seed: int, *, attacked: bool) -> None:
        self._model, self._seed, self._attacked = model, seed, attacked
        self._order = np.random.default_rng(seed).permutation(len(_TURN))
        self._photographs, self._textures = _shipped()
        self._attacks = [a for grid in GRIDS.values() for a in grid if a.name in ATTACKS]

    def kind(self, i: int) -> str:
        """Return the kind of image i."""
        return _TURN[self._order[i % len(self._order)]]

    def __call__(self, i: int) -> UnmarkedImage:
        """Draw image i."""
        rng = np.random.default_rng([self._seed, i])
        image = fit(self._make(self.kind(i), rng, i), self._model.image_size)[0]
        attack = self._attacks[int(rng.integers(len(self._attacks)))] if self._attacked and i % 2 else None
        if attack:
            image = attack.apply(image, seed=i)
        return UnmarkedImage(self.kind(i), _text(attack), image)

    def _make(self, kind: str, rng: np.random.Generator, i: int) -> Image.Image:
        if kind == PHOTOGRAPH:
            return _crop(self._photographs, rng)
        if kind == TEXTURE:
            return _crop(self._textures or self._photographs, rng)
        if kind == SCENE:
            return _scene(self._model, i)
        if kind == FRACTAL:
            return _fractal(self._model, rng)
        key = Key.generate(self._model.latent_shape, seed=self._seed + i) if kind == ANOTHER else None
        return _made(self._model, key, self._seed + i)


def _text(attack: Attack | None) -> str:
    return "" if attack is None else str(attack)


def _shipped() -> tuple[list[Image.Image], list[Image.Image]]:
    from importlib.util import find_spec

    from PIL import Image
    from sklearn.datasets import load_sample_images

    photographs = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    textures: list[Image.Image] = []
    spec = find_spec("skimage")
    if spec is not None and spec.origin:
        folder = Path(spec.origin).parent / "data"
        photographs += [open_image(folder / name) for name in _PHOTOGRAPHS if (folder / name).exists()]
        textures += [open_image(folder / name) for name in _TEXTURES if (folder / name).exists()]
    return photographs, textures


def _crop(images: list[Image.Image], rng: np.random.Generator) -> Image.Image:
    image = images[int(rng.integers(len(images)))]
    side = int(min(image.size) * rng.uniform(0.2, 1))
    left, top = (int(rng.integers(length - side + 1)) for length in image.size)
    return image.crop((left, top, left + side, top + side))


def _scene(model: LatentModel, index: int) -> Image.Image:
    """Render a procedural landscape of the test stream, which the embedded model was never trained on."""
    from treering_verify.media.conversion import to_pil
    from treering_verify.training.landscape.scenes import render

    images, _ = render(1, stream="test", index=(1 << 30) + index, size=min(model.image_size))
    return to_pil(images * 2 - 1)


def _fractal(model: LatentModel, rng: np.random.Generator) -> Image.Image:
    """Draw coloured noise, |F| ~ f^-b with b from 0.5 to 2.5, in three mixed channels, or two levels of it."""
    from PIL import Image

    height, width = model.image_size
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None, :])
    radius[0, 0] = 1
    noise: Any = np.fft.fft2(rng.standard_normal((3, height, width))) * radius ** -rng.uniform(0.5, 2.5)
    noise[:, 0, 0] = 0
    field = np.einsum("ij,jyx->yxi", rng.standard_normal((3, 3)), np.fft.ifft2(noise).real)
    field /= field.std()
    if rng.random() < 0.3:
        field = np.sign(field)
    return Image.fromarray((rng.uniform(60, 200, 3) + rng.uniform(15, 60) * field).clip(0, 255).astype(np.uint8))


def _made(model: LatentModel, key: Key | None, seed: int) -> Image.Image:
    (made,) = generate(model, key, seeds=[seed], steps=25)
    return made.image
