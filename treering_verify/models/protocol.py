"""What every algorithm of this package knows about a model, and nothing more.

Shapes: image (B, 3, H, W) float32 in [-1, 1], not clamped on the way out of `decode`; latent (B, C, h, w) float32, scaled
as the diffusion model sees it; noise like latent, unit normal. A model may compute elsewhere, in other precisions and
layouts (a GPU, 16 bits, packed tokens): what goes in may lie on any device, and what comes out is float32, of these
shapes, and lies where the input lay. The frames of a video lie one after another along the channel axis, images
(B, 3 F, H, W) and latents (B, C f, h, w): `treering_verify.models.diffusers.video` says why.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeGuard

from treering_verify.errors import UsageError

if TYPE_CHECKING:
    import torch

Condition = str | None  # a class name, or a prompt where the model has no classes; None for "no condition"


@dataclass(frozen=True)
class Timestep:
    """A point of the ODE's grid, where z = signal z_0 + sigma noise.

    Attributes
    ----------
    index : float
        What the network is told of the time.
    alpha : float
        The signal's share: of the power, alpha-bar, where the ODE preserves variance (DDIM); of the amplitude, 1 - sigma,
        where it runs straight from latent to noise (rectified flow, Liu et al., arXiv 2209.03003).
    straight : bool
        Which of the two.
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
    """What says the noise from points of the way back to it, such as `Estimator`."""

    steps: int  # of the noise inversion that it knows
    points: tuple[int, ...]  # what it looks at: 0 is the latent, k what k steps have made of it

    def __call__(self, trajectory: Sequence[torch.Tensor]) -> torch.Tensor:
        """Points that were passed, the latent first -> the expected noise, shaped like each of them."""


class LatentModel(Protocol):
    """A latent diffusion model whose ODE preserves variance or runs straight."""

    name: str
    classes: tuple[str, ...]  # empty where conditions are prompts
    latent_shape: tuple[int, int, int]
    image_size: tuple[int, int]  # of what it encodes and decodes; `load_model` may be asked for another
    refine: Callable[..., torch.Tensor] | None  # the refiner: (E(x), z, r(z), x, D(z)) -> estimate of z_0 - z
    estimate: NoiseEstimator | None
    tile: int  # pixels on a side of what the autoencoder sees at a time; 0: whole images
    screen: NoiseEstimator | None  # a cheap one, for the first of two passes (`first_pass`)

    def encode(self, image: torch.Tensor) -> torch.Tensor:
        """Mode of the encoder's posterior: image -> latent. Never a sample."""

    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        """Latent -> image, differentiable in the latent."""

    def timesteps(self, steps: int) -> tuple[Timestep, ...]:
        """Grid of `steps` steps from the noisiest to the clean end, steps + 1 points, as the scheduler spaces it."""

    def denoise(
        self, z: torch.Tensor, at: Timestep, conditions: Sequence[Condition], guidance: float = 1.0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """One network pass at a grid point: z_t -> estimates of (latent z_0, noise), each shaped like z."""


class MovableModel(LatentModel, Protocol):
    """A latent diffusion model that was loaded here, and so may be told where to compute."""

    device: str  # of torch

    def to(self, device: str) -> MovableModel:
        """Compute on a device from now on; return the model."""


class VideoModel(LatentModel, Protocol):
    """A latent diffusion model of videos."""

    frames: int  # of what it encodes and decodes
    latent_frames: int  # that become them, f of the shapes above
    fps: int  # frames a second


def movable(model: LatentModel) -> TypeGuard[MovableModel]:
    """Whether a model may be told where to compute."""
    return hasattr(model, "device")


def device_of(model: LatentModel) -> str:
    """Where a model computes, such as "cpu" or "cuda"."""
    return model.device if movable(model) else "cpu"


def makes_videos(model: LatentModel) -> TypeGuard[VideoModel]:
    """Whether a model makes videos."""
    return getattr(model, "frames", None) is not None


def images_only(model: LatentModel, doing: str) -> None:
    """UsageError if a model makes videos, where something works on images."""
    if makes_videos(model):
        raise UsageError(
            f"{doing} works on images, and {model.name} makes videos: those are for treering generate and verify"
        )
