"""The interface of a model: all that the algorithms of this package use of it.

Shapes: an image is (B, 3, H, W) float32 in [-1, 1], and `decode` does not clamp it. A latent is (B, C, h, w) float32, scaled
as the diffusion model sees it. Noise has the shape of the latent and is unit normal. A model may compute on another device,
in another precision and layout (a GPU, 16 bits, packed tokens). Its inputs may be on any device; its outputs are float32, of
these shapes, and on the device of the input. The frames of a video are concatenated along the channel axis, images as
(B, 3 F, H, W) and latents as (B, C f, h, w): `treering_verify.models.diffusers.video` says why.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeGuard, TypeVar

from treering_verify.errors import UsageError

if TYPE_CHECKING:
    import torch

Condition = str | None  # a class name, or a prompt if the model has no classes; None for no condition


@dataclass(frozen=True)
class Timestep:
    """A point of the ODE's grid, where z = signal z_0 + sigma noise.

    Attributes
    ----------
    index : float
        Time as the network takes it.
    alpha : float
        Share of the signal: alpha-bar, of the power, if the ODE preserves variance (DDIM); 1 - sigma, of the amplitude, if
        the ODE is straight from latent to noise (rectified flow, Liu et al., arXiv 2209.03003).
    straight : bool
        Whether the ODE is straight.
    """

    index: float
    alpha: float
    straight: bool = False

    @property
    def signal(self) -> float:
        """Factor of the latent."""
        return self.alpha if self.straight else self.alpha**0.5

    @property
    def sigma(self) -> float:
        """Factor of the noise."""
        return 1 - self.alpha if self.straight else (1 - self.alpha) ** 0.5


class NoiseEstimator(Protocol):
    """Estimates the noise from points of the noise inversion, such as `Estimator`."""

    steps: int  # steps of the noise inversion that it was trained on
    points: tuple[int, ...]  # points that it reads: 0 is the latent, k the point after k steps

    def __call__(self, trajectory: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return the expected noise, from the points of the inversion, the latent first, each of its shape."""


class LatentModel(Protocol):
    """What this package needs of a latent diffusion model: its autoencoder, its time grid and its denoising network.

    `load_model` and `from_pipeline` return such models; any object with these attributes and methods is one. The model's
    probability-flow ODE must preserve variance (DDIM) or be straight (rectified flow), as `Timestep` says.

    Attributes
    ----------
    name : str
        Its name in records.
    classes : tuple of str
        Names of its classes; empty if conditions are prompts.
    latent_shape : (C, h, w)
        Shape of its noise and latents; for videos (C f, h, w).
    image_size : (H, W)
        Size of the images that it encodes and decodes.
    refine, estimate, screen : callable or None
        Networks that were trained for the model's inversion, if it has any: they refine the decoder inversion, estimate the
        noise, and estimate it cheaply for the screening pass.
    tile : int
        Side of the autoencoder's tiles, in pixels; 0: whole images.
    """

    name: str
    classes: tuple[str, ...]  # empty if conditions are prompts
    latent_shape: tuple[int, int, int]
    image_size: tuple[int, int]  # of images that it encodes and decodes; `load_model` can choose another
    refine: Callable[..., torch.Tensor] | None  # the refiner: (E(x), z, r(z), x, D(z)) -> estimate of z_0 - z
    estimate: NoiseEstimator | None
    tile: int  # side of the autoencoder's tiles, in pixels; 0: whole images
    screen: NoiseEstimator | None  # a cheap one, for the screening pass (`detection.screening`)

    def encode(self, image: torch.Tensor) -> torch.Tensor:
        """Encode images in [-1, 1], (B, 3, H, W) -> (B, C, h, w): the mode of the encoder's posterior, never a sample."""

    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        """Decode latents, (B, C, h, w) -> (B, 3, H, W), differentiable in the latent."""

    def timesteps(self, steps: int) -> tuple[Timestep, ...]:
        """Return the scheduler's grid of `steps` steps: steps + 1 points, from the noisiest to the clean one."""

    def denoise(
        self, z: torch.Tensor, at: Timestep, conditions: Sequence[Condition], guidance: float = 1.0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Estimate (latent z_0, noise) from z_t at a grid point, each shaped like z, in one network pass."""


class MovableModel(LatentModel, Protocol):
    """A latent diffusion model that was loaded by this package, so it can be moved to another device."""

    device: str  # as torch names it

    def to(self, device: str) -> MovableModel:
        """Move the model to a device, and return it."""


class VideoModel(LatentModel, Protocol):
    """A latent diffusion model of videos, whose frames are stacked along the channels: (B, 3 F, H, W), (B, C f, h, w)."""

    frames: int  # of videos that it encodes and decodes
    latent_frames: int  # of their latents: f in the shapes above
    fps: int  # frames per second


if TYPE_CHECKING:
    from typing_extensions import TypeVar as TypeVarWithDefault  # as Python 3.13 has it

    ModelT = TypeVarWithDefault("ModelT", bound=LatentModel, default=LatentModel)
else:
    ModelT = TypeVar("ModelT")
"""The kind of a model: a `VideoModel` where it is known as one, else a `LatentModel`."""


def movable(model: LatentModel) -> TypeGuard[MovableModel]:
    """Return whether a model can be moved to another device."""
    return hasattr(model, "device")


def device_of(model: LatentModel) -> str:
    """Return the device of a model, such as "cpu" or "cuda"."""
    return model.device if movable(model) else "cpu"


def makes_videos(model: LatentModel) -> TypeGuard[VideoModel]:
    """Return whether a model makes videos."""
    return getattr(model, "frames", None) is not None


def check_loaded(model: object) -> None:
    """Raise UsageError if something is no loaded model."""
    if not hasattr(model, "latent_shape"):
        raise UsageError(
            f"model is of type {type(model).__name__}: load it by load_model, or take a pipeline's, from_pipeline(pipe)"
        )


def images_only(model: LatentModel, doing: str) -> None:
    """Raise UsageError if a model makes videos, for an operation that needs images, or is not loaded."""
    check_loaded(model)
    if makes_videos(model):
        raise UsageError(
            f"{doing} works on images, and {model.name} makes videos: those are for treering generate and verify"
        )
