"""Procedural landscapes of 256 x 256 pixels, rendered from the attributes that their captions tell.

Images are (B, 3, S, S) float32 in [0, 1]. A batch is a pure function of (stream, index). They are drawn for an autoencoder
with a factor of 8: silhouettes are crisp, surfaces are smooth, and no dot is smaller than a few pixels.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from treering_verify.training.landscape.scenes import noise_1d, noise_2d, uniform
from treering_verify.training.landscape_sd.attributes import ATTRIBUTES, draw_attributes, scene_generator
from treering_verify.training.landscape_sd.trees import pines

SIZE = 256
_RIDGES = 4
# By time: sky at the top, sky at the horizon, light (sun, moon, cloud tops), tint of everything that it falls on.
_SKIES = (
    ((0.36, 0.47, 0.72), (0.98, 0.76, 0.70), (1.00, 0.90, 0.80), (0.92, 0.80, 0.84)),
    ((0.16, 0.42, 0.82), (0.76, 0.88, 0.96), (1.00, 0.99, 0.94), (1.00, 1.00, 0.97)),
    ((0.28, 0.20, 0.46), (0.99, 0.56, 0.27), (1.00, 0.86, 0.52), (0.96, 0.68, 0.56)),
    ((0.02, 0.04, 0.13), (0.12, 0.20, 0.36), (0.95, 0.96, 1.00), (0.25, 0.32, 0.50)),
)
# By land: far and near ground in summer.
_GROUNDS = (
    ((0.50, 0.56, 0.66), (0.24, 0.33, 0.20)),
    ((0.48, 0.62, 0.50), (0.28, 0.48, 0.16)),
    ((0.93, 0.75, 0.50), (0.84, 0.56, 0.28)),
    ((0.82, 0.52, 0.38), (0.62, 0.30, 0.17)),
    ((0.58, 0.66, 0.46), (0.44, 0.52, 0.20)),
)
_AUTUMN, _SNOW = (0.72, 0.42, 0.14), (0.93, 0.95, 0.99)
_HEIGHTS = (0.21, 0.085, 0.075, 0.13, 0.018)  # of the far ridges, by land
_PINES = ((0.09, 0.20, 0.12), (0.42, 0.22, 0.07), (0.30, 0.38, 0.38))  # colour by season


class _Scene(NamedTuple):
    """What all layers of a batch share; colours are (B, 3, 1, 1), v (1, 1, S, 1), u (1, 1, 1, S), the rest (B, 1, 1, 1)."""

    attributes: Tensor
    u: Tensor
    v: Tensor
    horizon: Tensor
    top: Tensor
    haze: Tensor
    light: Tensor
    tint: Tensor
    far: Tensor
    near: Tensor
    g: torch.Generator

    @property
    def size(self) -> int:
        return self.u.shape[-1]

    def of(self, name: str) -> Tensor:
        return self.attributes[:, list(ATTRIBUTES).index(name)]

    def has(self, name: str, *values: str) -> Tensor:
        """Return 1 where an attribute has one of the values, else 0."""
        found = [self.of(name) == ATTRIBUTES[name].index(value) for value in values]
        return torch.stack(found).any(dim=0).float().view(-1, 1, 1, 1)


def render(
    count: int, *, stream: str = "train", index: int = 0, size: int = SIZE, attributes: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Render one batch of scenes.

    Parameters
    ----------
    count : int
        Number of images B.
    stream : {"train", "test", "calibration"}
        Disjoint random streams.
    index : int
        Which batch of the stream.
    size : int
        Side S in pixels.
    attributes : (B, len(ATTRIBUTES)) int64, optional
        What the scenes show; random when left out.

    Returns
    -------
    images : (B, 3, S, S) float32 in [0, 1]
    attributes : (B, len(ATTRIBUTES)) int64
    """
    g = scene_generator(stream, index)
    drawn = draw_attributes(count, g)
    scene = _begin(drawn if attributes is None else attributes, size, g)
    image, _clouds = _sky(scene)
    image = _ridges(scene, image)
    image = _lake(scene, image)
    image = _foreground(scene, image)
    image = _styled(scene, image.clamp(0, 1))
    return image.clamp(0, 1), scene.attributes


def _begin(attributes: Tensor, size: int, g: torch.Generator) -> _Scene:
    count, names = len(attributes), list(ATTRIBUTES)
    place = (torch.arange(size) + 0.5) / size
    sky = (
        torch.tensor(_SKIES)[attributes[:, names.index("time")]] + 0.05 * torch.randn(count, 4, 3, generator=g)
    ).clamp(0, 1)
    ground = torch.tensor(_GROUNDS)[attributes[:, names.index("land")]]
    ground = (ground + 0.05 * torch.randn(count, 2, 3, generator=g)).clamp(0, 1)
    top, haze, light, tint = (sky[:, i].view(count, 3, 1, 1) for i in range(4))
    far, near = (ground[:, i].view(count, 3, 1, 1) for i in range(2))
    horizon = 0.44 + 0.16 * uniform(count, g)
    scene = _Scene(
        attributes, place.view(1, 1, 1, size), place.view(1, 1, size, 1), horizon, top, haze, light, tint, far, near, g
    )
    autumn, winter = scene.has("season", "autumn"), scene.has("season", "winter")
    near = torch.lerp(near, torch.tensor(_AUTUMN).view(1, 3, 1, 1), 0.75 * autumn)
    near = torch.lerp(near, torch.tensor(_SNOW).view(1, 3, 1, 1), 0.88 * winter)
    far = torch.lerp(far, torch.tensor(_SNOW).view(1, 3, 1, 1), 0.5 * winter)
    grey = (0.3 * top + 0.7 * haze).mean(dim=1, keepdim=True).expand_as(top)
    dull = scene.has("sky", "overcast") * 0.8 + scene.has("sky", "mist") * 0.35
    return scene._replace(
        near=near, far=far, top=torch.lerp(top, 0.86 * grey, dull), haze=torch.lerp(haze, 1.02 * grey, dull)
    )


def _sky(scene: _Scene) -> tuple[Tensor, Tensor]:
    """Return sky with stars, sun or moon, and clouds; and the opacity of the clouds."""
    count, size, g = len(scene.attributes), scene.size, scene.g
    night, overcast = scene.has("time", "night"), scene.has("sky", "overcast")
    low = scene.has("time", "dawn", "sunset")
    image = torch.lerp(scene.top, scene.haze, (scene.v / scene.horizon).clamp(0, 1) ** (0.8 + 0.7 * uniform(count, g)))
    stars = _stars(count, size, g) * night * scene.has("sky", "clear", "cloudy")
    image = image + (1 - image) * stars
    side = scene.of("side").view(-1, 1, 1, 1)
    x = (side + 0.5 + 0.7 * (uniform(count, g) - 0.5)) / 3
    high = 0.2 + 0.35 * uniform(count, g) + low * (0.3 + 0.1 * uniform(count, g))
    radius = (0.030 + 0.022 * uniform(count, g)) * (1 + 0.5 * low)
    distance = ((scene.u - x) ** 2 + (scene.v - scene.horizon * high) ** 2).sqrt()
    visible = 1 - overcast
    glow = (0.45 - 0.25 * night) * torch.exp(-distance / (3.5 * radius))
    disc = torch.sigmoid((radius - distance) * size) * (1 - 0.45 * scene.has("sky", "mist"))
    image = torch.lerp(image, scene.light, (visible * (glow + 0.95 * disc)).clamp(0, 1))
    field = noise_2d(count, size, g, octaves=5, cells=2, gain=0.5, aspect=0.5)
    threshold = (
        2.5 - 2.1 * scene.has("sky", "cloudy") - 2.6 * overcast + 0.25 * torch.randn(count, 1, 1, 1, generator=g)
    )
    clouds = torch.sigmoid((field - threshold) * 4.5) * (0.75 + 0.2 * uniform(count, g))
    lit = 0.5 + 0.5 * torch.tanh(noise_2d(count, size, g, octaves=3, cells=3, gain=0.5, aspect=0.5))
    colour = torch.lerp(0.75 * scene.haze + 0.1 * scene.top, 0.45 * scene.haze + 0.55 * scene.light, lit)
    colour = torch.lerp(colour, scene.haze * (0.72 + 0.25 * lit), overcast)
    return torch.lerp(image, colour * (1 - 0.35 * night), clouds), clouds


def _stars(count: int, size: int, g: torch.Generator) -> Tensor:
    """Return some 70 stars, (B, 1, S, S) in [0, 1], each a soft dot of a hundredth of the side."""
    cells = 64
    sparks = (torch.rand(count, 1, cells, cells, generator=g) > 0.983).float()
    sparks = sparks * (0.4 + 0.9 * torch.rand(count, 1, cells, cells, generator=g))
    wide = F.interpolate(sparks, size=(size, size), mode="bicubic", align_corners=False)
    return (1.3 * wide - 0.1).clamp(0, 1)


def _skylines(scene: _Scene, k: int) -> Tensor:
    """Return ridge k of each scene, (B, 1, 1, S), about unit spread, in the form of its land."""
    count, size, g = len(scene.attributes), scene.size, scene.g
    rough = noise_1d(count, size, g, octaves=6, cells=3 + k, gain=0.5)
    smooth = noise_1d(count, size, g, octaves=2, cells=3 + k, gain=0.35)
    smooth = F.avg_pool1d(F.pad(smooth[:, 0], (size // 24, size // 24), mode="replicate"), 2 * (size // 24) + 1, 1)
    smooth = smooth.unsqueeze(1)
    peaks = 1.2 - 1.9 * noise_1d(count, size, g, octaves=4, cells=2 + k, gain=0.5).abs() + 0.25 * rough
    mesa = torch.tanh(7 * (smooth - 0.1)) + 0.06 * rough
    return (
        scene.has("land", "mountains") * peaks
        + scene.has("land", "hills", "plain") * (smooth + 0.05 * rough)
        + scene.has("land", "dunes") * smooth
        + scene.has("land", "mesas") * mesa
    )


def _ridges(scene: _Scene, image: Tensor) -> Tensor:
    """Add ridges from far to near, with side light, texture, snow on high mountains, woods and mist between them."""
    count, size, g = len(scene.attributes), scene.size, scene.g
    texture = noise_2d(count, size, g, octaves=5, cells=4, gain=0.55, aspect=0.7)
    heights = torch.tensor(_HEIGHTS)[scene.of("land")].view(-1, 1, 1, 1)
    side = (scene.of("side").view(-1, 1, 1, 1) - 1.0).sign()
    mist, _winter = scene.has("sky", "mist"), scene.has("season", "winter")
    for k in range(_RIDGES):
        near = k / (_RIDGES - 1)
        skyline = _skylines(scene, k)
        height = heights * (1 - 0.75 * near) * (0.7 + 0.6 * uniform(count, g))
        ridge = scene.horizon + 0.015 + 0.30 * near**1.3 * (1 - scene.horizon) - height * skyline
        below = scene.v - ridge
        slope = F.avg_pool2d(F.pad(skyline[..., 2:] - skyline[..., :-2], (3, 3, 0, 0), mode="replicate"), (1, 5), 1)
        slope = slope * size / 256 * height
        shade = 1 + (0.08 + 0.10 * near) * texture
        shade = shade + (16 * (side + 0.4) * slope * torch.exp(-below.clamp(min=0) * 7)).clamp(-0.28, 0.28)
        ground = torch.lerp(scene.far, scene.near, near)
        white = torch.sigmoid((0.055 + 0.025 * texture - below) * 55) * torch.sigmoid(
            (scene.horizon - 0.05 - ridge) * 45
        )
        white = white * (1 - near) * scene.has("land", "mountains")
        ground = torch.lerp(ground * shade, torch.tensor(_SNOW).view(1, 3, 1, 1) * (0.6 + 0.4 * shade), 0.92 * white)
        layer = ground * scene.tint
        fog = (0.62 - 0.1 * scene.has("time", "night")) * (1 - near) ** 1.2 * (0.55 + 0.45 * (below / 0.3).clamp(0, 1))
        fog = (fog + mist * (0.25 + 0.35 * (1 - near)) * (0.4 + 1.6 * (below / 0.2).clamp(0, 1))).clamp(0, 0.93)
        cover = torch.sigmoid(below * size)
        if k > 0:
            wood = pines(scene.u, scene.v, ridge, cells=44 - 9 * k, height=0.045 + 0.02 * k, g=g)
            wood = wood * scene.has("trees", "forest")
            bark = _pine_colour(scene) * (0.8 + 0.15 * texture) * scene.tint
            layer = torch.lerp(layer, bark, (wood * torch.sigmoid((0.06 - below) * 60)).clamp(0, 1))
            cover = torch.maximum(cover, wood)
        image = torch.lerp(image, torch.lerp(layer, scene.haze, fog), cover)
    return image


def _pine_colour(scene: _Scene) -> Tensor:
    return torch.tensor(_PINES)[scene.of("season")].view(-1, 3, 1, 1)


def _lake(scene: _Scene, image: Tensor) -> Tensor:
    """Add a lake that mirrors what stands above it."""
    count, size, g = len(scene.attributes), scene.size, scene.g
    level = scene.horizon + 0.10 + 0.08 * uniform(count, g)
    shore = level + 0.008 * noise_1d(count, size, g, octaves=3, cells=4, gain=0.5)
    ripple = 0.006 * noise_2d(count, size, g, octaves=3, cells=12, gain=0.7, aspect=0.25)
    source_v = (2 * level - scene.v + ripple * (1 + 6 * (scene.v - level).clamp(min=0))).clamp(0, 1)
    source_u = scene.u + 0.5 * ripple
    grid = torch.stack([source_u[:, 0], source_v.expand_as(source_u)[:, 0]], dim=-1) * 2 - 1
    mirror = F.grid_sample(image, grid, align_corners=False, padding_mode="border")
    water = 0.82 * mirror + 0.08 * scene.top
    return torch.lerp(image, water, torch.sigmoid((scene.v - shore) * size) * scene.has("water", "lake"))


def _foreground(scene: _Scene, image: Tensor) -> Tensor:
    """Add a bank at the bottom, with tall pines where there are trees."""
    count, size, g = len(scene.attributes), scene.size, scene.g
    bank = 0.90 - 0.05 * scene.has("land", "plain") + 0.025 * noise_1d(count, size, g, octaves=4, cells=3, gain=0.5)
    texture = noise_2d(count, size, g, octaves=4, cells=8, gain=0.6)
    cover = torch.sigmoid((scene.v - bank) * size)
    layer = scene.near * (0.72 + 0.10 * texture) * scene.tint
    for cells, height, share, names in (
        (5, 0.42, 0.45, ("few",)),
        (8, 0.34, 0.75, ("forest",)),
        (6, 0.5, 0.4, ("forest",)),
    ):
        standing = scene.has("trees", *names)
        wood = pines(scene.u, scene.v, bank + 0.02, cells=cells, height=height, g=g, share=share) * standing
        bark = _pine_colour(scene) * (0.62 + 0.06 * texture) * scene.tint
        image = torch.lerp(image, bark, wood)
    return torch.lerp(image, layer, cover)


def _styled(scene: _Scene, image: Tensor) -> Tensor:
    grey = (image * torch.tensor([0.3, 0.55, 0.15]).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)
    toned = grey * torch.tensor([1.08, 0.90, 0.66]).view(1, 3, 1, 1) + torch.tensor([0.06, 0.03, 0.0]).view(1, 3, 1, 1)
    styles = {
        "pastel": 0.42 + 0.5 * torch.lerp(grey, image, 0.8),
        "vivid": grey + 1.7 * (image - grey),
        "monochrome": (1.15 * (grey - 0.5) + 0.5).expand_as(image),
        "sepia": toned,
    }
    for name, changed in styles.items():
        image = torch.lerp(image, changed, scene.has("style", name))
    return image
