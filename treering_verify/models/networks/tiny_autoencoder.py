"""`AutoencoderTiny` as its author releases it: keys without "layers", and blocks that normalise over the whole image.

The release counts the clamp at the decoder's start as its first layer, and diffusers does not. The autoencoder of FLUX.2
(taef2) has blocks with a branch `pool` that diffusers 0.42 does not know. Both are read from the names of the weights.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from diffusers import AutoencoderTiny

_RELEASED = re.compile(r"(encoder|decoder)\.(\d+)\.(.+)")
_POOL = re.compile(r"(encoder|decoder)\.layers\.(\d+)\.pool\.0\.weight")
_CLAMPS = {"encoder": 0, "decoder": 1}  # layers before the first one that diffusers counts
_GROUPS = 4
_STEM = "diffusion_pytorch_model"


class PooledBlock(nn.Module):
    """A block of `AutoencoderTiny` that adds to its input a branch normalised over the whole image.

    Parameters
    ----------
    block : nn.Module
        The block without the branch; its layers are taken over.
    channels, hidden : int
        Widths of the input and of the branch.
    """

    def __init__(self, block: Any, channels: int, hidden: int) -> None:
        super().__init__()
        self.conv, self.skip, self.fuse = block.conv, block.skip, block.fuse
        self.pool = nn.Sequential(
            nn.Conv2d(channels, hidden, 1, bias=False),
            nn.GroupNorm(_GROUPS, hidden),
            nn.ReLU(),
            nn.Conv2d(hidden, channels, 1, bias=False),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the block's output, of the shape of its input (B, C, H, W)."""
        x = x + self.pool(x)
        output: torch.Tensor = self.fuse(self.conv(x) + self.skip(x))
        return output


def released_weights(folder: Path, variant: str | None = None) -> Path | None:
    """Return the file of a folder's weights if they are named as the author names them, or have pooled blocks."""
    from safetensors import safe_open

    for suffix in ([f".{variant}"] if variant else []) + [""]:
        path = folder / f"{_STEM}{suffix}.safetensors"
        if path.is_file():
            with safe_open(path, "pt") as file:
                names = list(file.keys())
            return path if any(_RELEASED.fullmatch(name) or _POOL.fullmatch(name) for name in names) else None
    return None


def load_released(kind: type[AutoencoderTiny], folder: Path, weights: Path) -> AutoencoderTiny:
    """Return the autoencoder of a folder's config.json with these weights, in float32.

    Raises
    ------
    RuntimeError
        If the weights do not fit the configuration.
    """
    from safetensors.torch import load_file

    state = {_named(name): tensor.float() for name, tensor in load_file(weights).items()}
    network = kind.from_config(kind.load_config(folder, local_files_only=True))
    _add_pools(network, state)
    network.load_state_dict(state)
    return network


def _named(name: str) -> str:
    """Return the name that diffusers gives to a weight of the release; other names as they are."""
    found = _RELEASED.fullmatch(name)
    if not found:
        return name
    half, layer, rest = found.groups()
    return f"{half}.layers.{int(layer) - _CLAMPS[half]}.{rest}"


def _add_pools(network: Any, state: Mapping[str, torch.Tensor]) -> None:
    """Put a `PooledBlock` where the weights have one."""
    for name, tensor in state.items():
        if found := _POOL.fullmatch(name):
            layers, place = getattr(network, found[1]).layers, int(found[2])
            layers[place] = PooledBlock(layers[place], tensor.shape[1], tensor.shape[0])
