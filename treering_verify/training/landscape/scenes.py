"""Procedural landscapes: the endless, licence-free training data of the embedded model.

Images are (B, 3, S, S) float32 in [0, 1]; labels are (B,) int64 indices into `CLASSES`. A batch is a pure function of
(stream, index) and its size. Torch's generator on the processor takes the lower 32 bits of a seed alone, which are the
index: batches of one index and one size are the same in every stream. What is measured on "test" was not trained on, because
its batches have other sizes than those of training at these indices, and then the scenes differ.

Every random field is drawn for the whole batch at once; all positions are fractions of the image's side, with v
growing downwards and u to the right.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

CLASSES = ("alpine", "lake", "night", "desert", "forest")
STREAMS = {"train": 0, "test": 1, "calibration": 2}

# Mean colours per class: sky at the top, sky at the horizon, far ridges, near ridges, light (sun, moon, cloud tops).
_PALETTE = (
    ((0.18, 0.43, 0.84), (0.76, 0.88, 0.96), (0.54, 0.64, 0.80), (0.17, 0.27, 0.26), (1.00, 0.98, 0.92)),
    ((0.27, 0.17, 0.45), (0.98, 0.56, 0.30), (0.58, 0.33, 0.45), (0.16, 0.10, 0.22), (1.00, 0.86, 0.50)),
    ((0.02, 0.03, 0.13), (0.11, 0.22, 0.37), (0.11, 0.16, 0.29), (0.02, 0.04, 0.07), (0.94, 0.95, 1.00)),
    ((0.32, 0.60, 0.88), (0.96, 0.89, 0.74), (0.91, 0.70, 0.46), (0.74, 0.41, 0.18), (1.00, 0.95, 0.80)),
    ((0.56, 0.70, 0.77), (0.90, 0.92, 0.86), (0.52, 0.68, 0.54), (0.08, 0.25, 0.13), (1.00, 1.00, 0.92)),
)
_ROUGHNESS = (1.25, 0.45, 0.9, 0.3, 0.7)  # ridge height by class
_RIDGES = 4


def batch_seed(stream: str, index: int) -> int:
    """Return the seed of batch `index` of a stream: never negative, fits 63 bits; its lower 32 are the index."""
    if not 0 <= index < 1 << 40:
        raise ValueError(f"batch index {index} is outside [0, 2**40)")
    return (STREAMS[stream] + 1) << 40 | index


def render(
    count: int, *, stream: str = "train", index: int = 0, size: int = 128, labels: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
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
    labels : (B,) int64, optional
        Classes to draw; random when left out.

    Returns
    -------
    images : (B, 3, S, S) float32 in [0, 1]
    labels : (B,) int64 in [0, len(CLASSES))
    """
    g = torch.Generator().manual_seed(batch_seed(stream, index))
    y = torch.randint(0, len(CLASSES), (count,), generator=g) if labels is None else labels
    palette = (torch.tensor(_PALETTE)[y] + 0.07 * torch.randn(count, 5, 3, generator=g)).clamp(0, 1)
    top, horizon_colour, far, near, light = (palette[:, i].view(count, 3, 1, 1) for i in range(5))
    v = ((torch.arange(size) + 0.5) / size).view(1, 1, size, 1)
    u = ((torch.arange(size) + 0.5) / size).view(1, 1, 1, size)
    horizon = 0.45 + 0.2 * uniform(count, g)

    def is_class(*names: str) -> torch.Tensor:
        return torch.stack([(y == CLASSES.index(n)).float() for n in names]).sum(0).view(count, 1, 1, 1)

    image = torch.lerp(top, horizon_colour, (v / horizon).clamp(0, 1) ** (0.7 + uniform(count, g)))
    clouds = _clouds(count, size, g)
    image = image + (1 - image) * _stars(count, size, g) * is_class("night") * (1 - clouds)
    image = _sun(image, u, v, horizon, light, g)
    image = torch.lerp(image, 0.45 * horizon_colour + 0.55 * light, clouds * (1 - 0.6 * is_class("night")))
    image = _ridges(image, v, horizon, far, near, horizon_colour, y, is_class, g)
    image = _water(image, u, v, horizon, top, is_class, g)
    return image.clamp(0, 1), y


def uniform(count: int, g: torch.Generator) -> torch.Tensor:
    """Return a number of [0, 1) for each image, (B, 1, 1, 1)."""
    return torch.rand(count, 1, 1, 1, generator=g)


def noise_2d(
    count: int, size: int, g: torch.Generator, *, octaves: int, cells: int, gain: float, aspect: float = 1.0
) -> torch.Tensor:
    """Return fractal value noise, (B, 1, S, S), about unit spread; `aspect` < 1 stretches it sideways."""
    field, amplitude, power = torch.zeros(count, 1, size, size), 1.0, 0.0
    for octave in range(octaves):
        rows = cells * 2**octave
        columns = max(2, int(rows * aspect))
        grid = torch.randn(count, 1, rows + 1, columns + 1, generator=g)
        field += amplitude * F.interpolate(grid, size=(size, size), mode="bilinear", align_corners=True)
        power += amplitude**2
        amplitude *= gain
    return field / power**0.5


def noise_1d(count: int, size: int, g: torch.Generator, *, octaves: int, cells: int, gain: float) -> torch.Tensor:
    """Return a fractal skyline, (B, 1, 1, S), about unit spread."""
    line, amplitude, power = torch.zeros(count, 1, size), 1.0, 0.0
    for octave in range(octaves):
        grid = torch.randn(count, 1, cells * 2**octave + 1, generator=g)
        line += amplitude * F.interpolate(grid, size=size, mode="linear", align_corners=True)
        power += amplitude**2
        amplitude *= gain
    return (line / power**0.5).unsqueeze(2)


def _clouds(count: int, size: int, g: torch.Generator) -> torch.Tensor:
    """Return the opacity of the clouds, (B, 1, S, S) in [0, 1]."""
    field = noise_2d(count, size, g, octaves=4, cells=2, gain=0.5, aspect=0.6)
    threshold = 0.6 + 0.6 * torch.randn(count, 1, 1, 1, generator=g)
    return torch.sigmoid((field - threshold) * 4) * (0.35 + 0.5 * uniform(count, g))


def _stars(count: int, size: int, g: torch.Generator) -> torch.Tensor:
    """Return about 60 stars of different brightness, (B, 1, S, S) in [0, 1], each a soft dot about 3 pixels wide."""
    sparks = (torch.rand(count, 1, size, size, generator=g) > 0.9955).float()
    sparks = sparks * (0.45 + 0.75 * torch.rand(count, 1, size, size, generator=g))
    profile = torch.exp(-(torch.arange(-2, 3).float() ** 2) / (2 * 0.8**2))
    kernel = (profile[:, None] * profile[None, :]).view(1, 1, 5, 5)
    return F.conv2d(sparks, kernel, padding=2).clamp(0, 1)


def _sun(image: Tensor, u: Tensor, v: Tensor, horizon: Tensor, light: Tensor, g: torch.Generator) -> torch.Tensor:
    count, size = image.shape[0], image.shape[-1]
    x, height, radius = uniform(count, g), 0.15 + 0.7 * uniform(count, g), 0.035 + 0.045 * uniform(count, g)
    distance = ((u - x) ** 2 + (v - horizon * height) ** 2).sqrt()
    glow, disc = 0.45 * torch.exp(-distance / (3 * radius)), torch.sigmoid((radius - distance) * size)
    return torch.lerp(image, light, (glow + 0.9 * disc).clamp(0, 1))


def _ridges(
    image: Tensor,
    v: Tensor,
    horizon: Tensor,
    far: Tensor,
    near: Tensor,
    haze: Tensor,
    y: Tensor,
    is_class: Callable[..., Tensor],
    g: torch.Generator,
) -> torch.Tensor:
    """Add four ridges from far to near: skyline, shading, haze, snow on alpine tops, tree lines in the forest."""
    count, size = image.shape[0], image.shape[-1]
    rough = torch.tensor(_ROUGHNESS)[y].view(count, 1, 1, 1)
    texture = noise_2d(count, size, g, octaves=5, cells=3, gain=0.6)
    for k in range(_RIDGES):
        near_share = k / (_RIDGES - 1)
        skyline = noise_1d(count, size, g, octaves=5, cells=2 + k, gain=0.48)
        trees = noise_1d(count, size, g, octaves=1, cells=22 + 6 * k, gain=1.0).abs() * is_class("forest")
        height = (0.10 - 0.04 * near_share) * rough * (0.6 + 0.8 * uniform(count, g))
        ridge = horizon + 0.02 + 0.42 * near_share * (1 - horizon) - height * skyline - 0.012 * (1 + k) * trees
        below = v - ridge
        depth = (below / 0.35).clamp(0, 1)
        colour = torch.lerp(far, near, near_share)
        shade = 1 + (0.10 + 0.16 * near_share) * texture - 0.25 * depth * (1 - near_share)
        # Side light: slopes facing one side are brighter, which gives dunes and peaks their form.
        slope = F.avg_pool2d(F.pad(skyline[..., 2:] - skyline[..., :-2], (3, 3, 0, 0), mode="replicate"), (1, 5), 1)
        shade = shade + (1.2 * rough * slope * torch.exp(-below.clamp(min=0) * 6)).clamp(-0.25, 0.25)
        layer = colour * shade
        snow_line = torch.sigmoid((0.05 + 0.02 * texture - below) * 60) * torch.sigmoid((horizon - 0.04 - ridge) * 40)
        layer = torch.lerp(layer, torch.ones(()), 0.9 * snow_line * (1 - near_share) * is_class("alpine"))
        fog = 0.55 * depth * (1 - 0.7 * near_share) * is_class("forest") + 0.15 * (1 - near_share)
        layer = torch.lerp(layer, haze, fog)
        image = torch.lerp(image, layer, torch.sigmoid(below * size * 1.2))
    return image


def _water(
    image: Tensor,
    u: Tensor,
    v: Tensor,
    horizon: Tensor,
    top: Tensor,
    is_class: Callable[..., Tensor],
    g: torch.Generator,
) -> torch.Tensor:
    """Add a lake that mirrors what stands above it: always in "lake", in a third of "alpine" and "forest"."""
    count, size = image.shape[0], image.shape[-1]
    sometimes = is_class("alpine", "forest") * (uniform(count, g) < 0.35).float()
    has_water = (is_class("lake") + sometimes).clamp(0, 1)
    level = horizon + 0.12 + 0.1 * uniform(count, g)
    ripple = 0.010 * noise_2d(count, size, g, octaves=3, cells=10, gain=0.7, aspect=0.25)
    source_v = (2 * level - v + ripple * (1 + 6 * (v - level).clamp(min=0))).clamp(0, 1)
    source_u = u + 0.5 * ripple
    grid = torch.stack([source_u[:, 0], source_v.expand_as(source_u)[:, 0]], dim=-1) * 2 - 1
    mirror = F.grid_sample(image, grid, align_corners=False, padding_mode="border")
    return torch.lerp(image, 0.84 * mirror + 0.06 * top, torch.sigmoid((v - level) * size) * has_water)
