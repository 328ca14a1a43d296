"""What a captioned scene shows, as numbers: one index into `ATTRIBUTES[name]` for each attribute of each scene."""

from __future__ import annotations

import torch

from treering_verify.training.landscape.scenes import STREAMS

ATTRIBUTES = {
    "time": ("dawn", "day", "sunset", "night"),
    "land": ("mountains", "hills", "dunes", "mesas", "plain"),
    "season": ("summer", "autumn", "winter"),
    "trees": ("none", "few", "forest"),
    "water": ("none", "lake"),
    "sky": ("clear", "cloudy", "overcast", "mist"),
    "side": ("left", "middle", "right"),  # of the sun or the moon
    "style": ("natural", "pastel", "vivid", "monochrome", "sepia"),
}
DESERTS = ("dunes", "mesas")  # have one season and no trees
_SHARES = {
    "time": (0.2, 0.4, 0.2, 0.2),
    "land": (0.36, 0.25, 0.13, 0.11, 0.15),
    "season": (0.5, 0.22, 0.28),
    "trees": (0.3, 0.35, 0.35),
    "water": (0.55, 0.45),
    "sky": (0.34, 0.34, 0.14, 0.18),
    "side": (1 / 3, 1 / 3, 1 / 3),
    "style": (0.6, 0.1, 0.1, 0.1, 0.1),
}
_BATCHES = 1 << 30  # in each stream; torch's generator on the processor takes the lower 32 bits of a seed, and no more


def scene_generator(stream: str, index: int) -> torch.Generator:
    """Return the generator of batch `index` of a stream ("train", "test" or "calibration"); no two share a seed."""
    if not 0 <= index < _BATCHES:
        raise ValueError(f"batch index {index} is outside [0, {_BATCHES})")
    return torch.Generator().manual_seed((STREAMS[stream] + 1) * _BATCHES + index)


def code(name: str, value: str) -> int:
    """Return the number of a value of an attribute."""
    return ATTRIBUTES[name].index(value)


def draw_attributes(count: int, generator: torch.Generator) -> torch.Tensor:
    """Draw the attributes of `count` scenes, (B, len(ATTRIBUTES)) int64."""
    columns = [
        torch.multinomial(torch.tensor(shares), count, replacement=True, generator=generator)
        for shares in _SHARES.values()
    ]
    return settled(torch.stack(columns, dim=1))


def settled(attributes: torch.Tensor) -> torch.Tensor:
    """Return attributes that go together: deserts are in summer, without trees."""
    names = list(ATTRIBUTES)
    land = attributes[:, names.index("land")]
    desert = torch.stack([land == code("land", name) for name in DESERTS]).any(dim=0)
    attributes = attributes.clone()
    for name, value in (("season", "summer"), ("trees", "none")):
        column = names.index(name)
        attributes[:, column] = torch.where(desert, code(name, value), attributes[:, column])
    return attributes
