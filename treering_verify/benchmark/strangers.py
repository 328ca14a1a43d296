"""Images without the keys in question: photographs, scenes, textures, other generators, the model's; plain or attacked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from treering_verify.attacks import ATTACKS, GRIDS, Attack
from treering_verify.calibration import digest
from treering_verify.generation import generate
from treering_verify.images import fit, open_image
from treering_verify.key import Key
from treering_verify.models import LatentModel

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
# In twenty images: how many are of each kind. Images of the model are dear, and like each other.
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
class Stranger:
    """A picture at the model's size, what it is, and the attack that it went through, "" for none."""

    kind: str
    attack: str
    picture: Image.Image


def strangers(model: LatentModel, count: int, seed: int, *, attacked: bool = True) -> Iterator[Stranger]:
    """Yield distinct images, kinds taking turns; every second one went through an attack, all strengths taking turns.

    None did if not `attacked`.

    Photographs and textures are crops, of random place and size, of those that scikit-learn and, where it is installed,
    scikit-image ship; without the latter there are no textures, and photographs take their place.
    """
    draw = _drawer(model, seed, attacked=attacked)
    seen: set[str] = set()
    i = 0
    while len(seen) < count:
        one = draw(i)
        i += 1
        if (name := digest(one.picture)) not in seen:
            seen.add(name)
            yield one


def _drawer(model: LatentModel, seed: int, *, attacked: bool) -> Callable[[int], Stranger]:
    """Return what draws the image of a number, whichever were drawn before; a few are drawn twice."""
    photographs, textures = _shipped()
    attacks = [a for grid in GRIDS.values() for a in grid if a.name in ATTACKS]
    makers: dict[str, Callable[[np.random.Generator, int], Image.Image]] = {
        PHOTOGRAPH: lambda rng, i: _crop(photographs, rng),
        TEXTURE: lambda rng, i: _crop(textures or photographs, rng),
        SCENE: lambda rng, i: _scene(model, i),
        FRACTAL: lambda rng, i: _fractal(model, rng),
        OWN: lambda rng, i: _made(model, None, seed + i),
        ANOTHER: lambda rng, i: _made(model, Key.generate(model.latent_shape, seed=seed + i), seed + i),
    }
    order = np.random.default_rng(seed).permutation(len(_TURN))

    def draw(i: int) -> Stranger:
        kind = _TURN[order[i % len(order)]]
        rng = np.random.default_rng([seed, i])
        picture = fit(makers[kind](rng, i), model.image_size)[0]
        attack = attacks[int(rng.integers(len(attacks)))] if attacked and i % 2 else None
        if attack:
            picture = attack.apply(picture, seed=i)
        return Stranger(kind, _text(attack), picture)

    return draw


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


def _crop(pictures: list[Image.Image], rng: np.random.Generator) -> Image.Image:
    picture = pictures[int(rng.integers(len(pictures)))]
    side = int(min(picture.size) * rng.uniform(0.2, 1))
    left, top = (int(rng.integers(length - side + 1)) for length in picture.size)
    return picture.crop((left, top, left + side, top + side))


def _scene(model: LatentModel, index: int) -> Image.Image:
    """Render a procedural landscape of the test stream, which the embedded model was never trained on."""
    from treering_verify.images import to_pil
    from treering_verify.models.landscape.scenes import render

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
