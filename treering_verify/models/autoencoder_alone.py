"""An autoencoder without a diffusion network: its decoder can be inverted, and filters be fitted to it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Never, TypeGuard

from treering_verify.errors import ModelError, UsageError
from treering_verify.files import printable
from treering_verify.models.autoencoder import (
    AUTOENCODERS,
    check_autoencoder,
    decode,
    encode,
    fitting_tile,
    latent_channels,
    pixels_per_cell,
)
from treering_verify.models.checks.folder import WHOLE, check_files
from treering_verify.models.checks.json_files import read_object
from treering_verify.models.checks.parameters import check_parameters
from treering_verify.models.diffusers.loading import INDEX
from treering_verify.models.networks.reading import frozen, quiet, read_network, reported
from treering_verify.models.protocol import Condition, LatentModel, NoiseEstimator, Timestep
from treering_verify.models.source import ModelSource

if TYPE_CHECKING:
    import torch

_USUAL_SIDE = 256  # pixels, where the configuration names none


class AutoencoderModel:
    """A `LatentModel` that encodes and decodes, and refuses what needs a diffusion network.

    Parameters
    ----------
    name : str
        Its name in records.
    vae
        One of `AUTOENCODERS`, frozen and in evaluation mode.
    image_size : (H, W), optional
        Default: the configuration's, or 256 pixels a side.
    tile : int
        Side of tiles in pixels; 0: whole images.

    Raises
    ------
    ModelError
        If the kind of autoencoder is not supported.
    UsageError
        If a side is no multiple of a latent cell, or the tile does not fit.
    """

    classes: tuple[str, ...] = ()
    refine: Callable[..., torch.Tensor] | None = None
    estimate: NoiseEstimator | None = None
    screen: NoiseEstimator | None = None

    def __init__(self, name: str, vae: Any, image_size: tuple[int, int] | None = None, tile: int = 0) -> None:
        check_autoencoder(name, vae)
        self.name, self.device, self._vae = name, "cpu", vae
        self.latent_shape, self.image_size = shapes_of_config(name, vae.config, image_size)
        self.tile = fitting_tile(name, vae.config, tile)

    def to(self, device: str) -> AutoencoderModel:
        """Move the autoencoder to a device of torch, and return the model."""
        self._vae.to(device)
        self.device = device
        return self

    def encode(self, image: torch.Tensor) -> torch.Tensor:
        """Encode images in [-1, 1], (B, 3, H, W) -> (B, C, h, w): the mode of the posterior, shifted and scaled."""
        return encode(self._vae, image.to(self.device), self.tile).to(image.device)

    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        """Decode latents, (B, C, h, w) -> (B, 3, H, W), not clamped."""
        return decode(self._vae, latent.to(self.device), self.tile).to(latent.device)

    def timesteps(self, steps: int) -> tuple[Timestep, ...]:
        """Raise UsageError: there is no diffusion network."""
        return self._refuse()

    def denoise(
        self, z: torch.Tensor, at: Timestep, conditions: Sequence[Condition], guidance: float = 1.0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Raise UsageError: there is no diffusion network."""
        return self._refuse()

    def _refuse(self) -> Never:
        raise UsageError(
            f"{self.name} is an autoencoder alone, which makes no images and inverts no noise: fit it with treering models "
            "fit, and name the filters with --inverter at a model that has this autoencoder"
        )


def is_alone(model: LatentModel) -> TypeGuard[AutoencoderModel]:
    """Return whether a model is an autoencoder without a diffusion network."""
    return isinstance(model, AutoencoderModel)


def shapes_of_config(
    name: str, config: Any, image_size: tuple[int, int] | None = None
) -> tuple[tuple[int, int, int], tuple[int, int]]:
    """Return the shape (C, h, w) of an autoencoder's latents and the size (H, W) of its images, from its configuration.

    Raises
    ------
    UsageError
        If a side is no multiple of a latent cell.
    """
    side, factor = config.get("sample_size") or _USUAL_SIDE, pixels_per_cell(name, config)
    height, width = image_size or ((side, side) if isinstance(side, int) else side)
    if height % factor or width % factor or min(height, width) < factor:
        raise UsageError(f"{name} has cells of {factor} pixels: choose an image size that is a multiple of {factor}")
    return (latent_channels(config), height // factor, width // factor), (height, width)


def is_autoencoder_folder(source: ModelSource) -> bool:
    """Return whether a source is the folder of an autoencoder alone: a network's configuration, and no index of a model."""
    folder = Path(source.name)
    return (folder / "config.json").is_file() and not os.path.lexists(folder / INDEX)


def checked_config(source: ModelSource) -> tuple[dict[str, Any], list[int]]:
    """Check the files of an autoencoder's folder; return its configuration, and how many numbers each set of weights has.

    Raises
    ------
    ModelError
        If its files are refused, or it is another network.
    UsageError
        If an option does not apply to it.
    """
    folder, shown = Path(source.name), source.shown
    config = read_object(folder, "config.json", shown)
    kind = str(config.get("_class_name"))[:80]
    if kind not in AUTOENCODERS:
        raise ModelError(
            f"{shown} holds a {printable(kind)} alone: name a folder that holds a {INDEX}, or one of an autoencoder "
            f"({', '.join(AUTOENCODERS)})"
        )
    if source.dtype not in ("auto", "float32"):
        raise UsageError(f"{shown}: autoencoders are computed in float32: leave out the dtype")
    if source.frames is not None:
        raise UsageError(f"{shown} is an autoencoder of images: leave out the frames")
    return config, check_files(folder, {WHOLE: kind}, (WHOLE,), source.variant, shown)[WHOLE]


def latent_shape(source: ModelSource) -> tuple[int, int, int]:
    """Return the shape (C, h, w) of the latents of an autoencoder's folder, from its configuration."""
    return shapes_of_config(source.shown, checked_config(source)[0], source.image_size)[0]


def load(source: ModelSource) -> AutoencoderModel:
    """Load the autoencoder of a folder, on the processor; errors as for `checked_config`."""
    import diffusers

    shown, (config, held) = source.shown, checked_config(source)
    with reported(shown):
        kind = getattr(diffusers, config["_class_name"])
        with quiet():
            check_parameters(partial(kind.from_config, config), held, f"{shown}: config.json")
            vae = frozen(read_network(kind, Path(source.name), None, source.variant))
        return AutoencoderModel(source.name, vae, source.image_size, source.tile)
