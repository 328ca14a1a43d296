"""Adapter for pipelines of diffusers: wrapped once, here, and never changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from treering_verify.errors import LimitedModelWarning, ModelError, UsageError
from treering_verify.models.autoencoder import check_autoencoder, decode, encode, fitting_tile, own_float32
from treering_verify.models.diffusers.families import family_of, known_pipelines
from treering_verify.models.diffusers.family import PipelineFamily
from treering_verify.models.diffusers.few_steps import CONSISTENCY
from treering_verify.models.diffusers.flow_transformers import pack, unpack
from treering_verify.models.diffusers.schedules import (
    FLOW,
    diffusion_grid,
    diffusion_scheduler,
    estimates,
    flow_grid,
    flow_scheduler,
)
from treering_verify.models.diffusers.video import unfold
from treering_verify.models.protocol import Condition, LatentModel, NoiseEstimator, Timestep

if TYPE_CHECKING:
    import torch

_KEPT_PROMPTS = 64


def from_pipeline(
    pipe: Any,
    *,
    name: str | None = None,
    image_size: tuple[int, int] | None = None,
    tile: int = 0,
    frames: int | None = None,
) -> LatentModel:
    """Make a `LatentModel` of a diffusers pipeline, to mark, generate, invert and verify with.

    The pipeline stays as it is: its scheduler, dtypes, devices, hooks and training flags are not touched, not even when
    something fails. The autoencoder is computed in float32, with weights of its own where the pipeline's are of another
    dtype; everything else runs as the pipeline has it.

    Parameters
    ----------
    pipe : DiffusionPipeline
        Of a class that `treering models` lists.
    name : str, optional
        What records call it; where it was loaded from when left out.
    image_size : (H, W), optional
        Of its images; the model's own when left out.
    tile : int
        As `ModelSource.tile`.
    frames : int, optional
        Of its videos, where it makes videos; the family's own when left out.

    Raises
    ------
    ModelError
        If the pipeline belongs to no family, or cannot be inverted.
    UsageError
        If its images, or tiles of them, cannot have that size, its videos that length, or videos would have to be tiled.

    Warns
    -----
    LimitedModelWarning
        If verdicts on its images reach less far than on others'.
    """
    import warnings

    model = PipelineModel(pipe, _family(pipe), name or _name(pipe), image_size, tile, frames)
    if model.family.caution:
        warnings.warn(f"{model.name}: {model.family.caution}", LimitedModelWarning, stacklevel=2)
    return model


def native_noise(pipe: Any, noise: torch.Tensor) -> torch.Tensor:
    """Lay canonical noise (B, C, h, w) out as a pipeline's `latents=` wants it: packed where it packs, in its dtype.

    A video's, (B, C F, h, w), becomes (B, C, F, h, w).

    Never scaled: every pipeline here multiplies by its scheduler's `init_noise_sigma` itself, whoever gave the latents.

    Raises
    ------
    UsageError
        If the pipeline has no such noise at any image size.
    """
    family = _family(pipe)
    if not family.latents:
        raise UsageError(
            f"a {type(pipe).__name__} takes no latents=: generate with tv.generate(tv.from_pipeline(pipe), ...)"
        )
    network = getattr(pipe, family.network)
    channels, patch = family.latent_channels(pipe.vae.config), family.patch(network.config)
    wrong = noise.shape[1] % channels if family.video else noise.shape[1] != channels
    if wrong or noise.shape[2] % patch or noise.shape[3] % patch:
        raise UsageError(
            f"noise of shape {tuple(noise.shape[1:])} does not fit {_name(pipe)}: make a key for {channels} channels"
            f"{' a frame' if family.video else ''} and sides that are multiples of {patch}"
        )
    if family.video:
        return unfold(noise, channels).to(pipe._execution_device, network.dtype)
    return (pack(noise) if family.packed else noise).to(pipe._execution_device, network.dtype)


def canonical_noise(pipe: Any, latents: torch.Tensor, latent_shape: tuple[int, int, int]) -> torch.Tensor:
    """Undo `native_noise`: what a pipeline passes around as latents -> (B, C, h, w) float32 on the processor.

    Raises
    ------
    UsageError
        If they are not of that shape.
    """
    height, width = latent_shape[1:]
    if _family(pipe).video:
        raise UsageError(
            f"{_name(pipe)} makes videos, which are not marked from within the loop: give the pipeline latents="
        )
    if _family(pipe).packed and latents.ndim == 3 and latents.shape[1] * 4 == height * width:
        latents = unpack(latents, height, width)
    if tuple(latents.shape[1:]) != latent_shape:
        raise UsageError(
            f"{_name(pipe)} makes latents of shape {tuple(latents.shape[1:])} here, and the key is made for {latent_shape}: "
            "make a key for the images' size (treering keygen --size)"
        )
    return latents.detach().float().cpu()


def pipeline_shape(pipe: Any) -> tuple[int, int, int]:
    """Shape (C, h, w) of the noise that a pipeline starts from at its own image size."""
    family = _family(pipe)
    return family.shapes(_name(pipe), getattr(pipe, family.network).config, pipe.vae.config)[0]


class PipelineModel:
    """A `LatentModel` made of a pipeline; see `from_pipeline`."""

    def __init__(
        self,
        pipe: Any,
        family: PipelineFamily,
        name: str,
        image_size: tuple[int, int] | None,
        tile: int = 0,
        frames: int | None = None,
    ) -> None:
        check_autoencoder(name, pipe.vae, family.autoencoders)
        if pipe.config.get("boundary_ratio") is not None or pipe.config.get("expand_timesteps"):
            raise ModelError(f"{name}: Wan 2.2 asks two networks, or tells times by token: use a model of Wan 2.1")
        network, scheduler = getattr(pipe, family.network), family.follows(pipe)
        told = network.config.get("time_cond_proj_dim") is not None
        if told and type(scheduler).__name__ != CONSISTENCY:
            raise ModelError(
                f"{name}: a consistency model (LCM) with a {type(scheduler).__name__}, whose times it does not know: "
                f"give it an {CONSISTENCY}"
            )
        self.name, self.family = name, family
        self.classes = family.classes(pipe) if family.classes else ()
        self._told = family.distilled or told
        self.latent_shape, self.image_size = family.shapes(name, network.config, pipe.vae.config, image_size, frames)
        self.frames = (family.video.frames if frames is None else frames) if family.video else None
        self.fps = family.video.fps if family.video else None
        self.latent_frames = self.latent_shape[0] // family.latent_channels(pipe.vae.config) if family.video else None
        if tile and family.video:
            raise UsageError(
                f"{name}: videos go through the autoencoder in chunks of frames, not in tiles: leave the tile"
            )
        self.tile = 0 if family.video else fitting_tile(name, pipe.vae.config, tile)
        self.refine: Callable[..., torch.Tensor] | None = None
        self.estimate: NoiseEstimator | None = None
        self.screen: NoiseEstimator | None = None
        self._pipe, self._network, self.device = pipe, network, str(pipe._execution_device)
        self._vae = own_float32(pipe.vae, self.device)
        self._scheduler = (flow_scheduler if family.straight else diffusion_scheduler)(name, scheduler)
        self._kept: dict[Condition, dict[str, torch.Tensor]] = {}

    def to(self, device: str) -> PipelineModel:
        """Compute on a device from now on, and move the pipeline there, which is not for one that a caller lent."""
        self._pipe.to(device)
        self._vae.to(device)
        self._kept.clear()
        self.device = device
        return self

    def encode(self, image: torch.Tensor) -> torch.Tensor:
        """Image (B, 3, H, W) in [-1, 1] -> latent (B, C, h, w): mode of the posterior, normalised."""
        if self.family.video:
            return self.family.video.encode(self._vae, image.to(self.device)).to(image.device)
        return encode(self._vae, image.to(self.device), self.tile).to(image.device)

    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        """Latent (B, C, h, w) -> image (B, 3, H, W), not clamped."""
        if self.family.video:
            return self.family.video.decode(self._vae, latent.to(self.device)).to(latent.device)
        return decode(self._vae, latent.to(self.device), self.tile).to(latent.device)

    def timesteps(self, steps: int) -> tuple[Timestep, ...]:
        """Grid as the pipeline's scheduler spaces it; where the scheduler shifts it by size, for this image size."""
        if not self.family.straight:
            return diffusion_grid(self._scheduler, steps)
        _, height, width = self.latent_shape
        tokens = height * width // self.family.patch(self._network.config) ** 2
        spaced = self.family.spaced and not self._scheduler.config.get("use_flow_sigmas")
        return flow_grid(self._scheduler, steps, tokens, spaced)

    def denoise(
        self, z: torch.Tensor, at: Timestep, conditions: Sequence[Condition], guidance: float = 1.0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Estimate (latent, noise) from z_t; guidance extrapolates, or is told to the network where that was distilled."""
        with _evaluating(self._network):
            output = self._ask(z, at, conditions, guidance)
            if guidance != 1.0 and not self._told:
                null = self._ask(z, at, [None] * len(z), guidance)
                output = null + guidance * (output - null)
        kind = FLOW if self.family.straight else self._scheduler.config.prediction_type
        return estimates(z, at, output, kind)

    def _ask(self, z: torch.Tensor, at: Timestep, conditions: Sequence[Condition], guidance: float) -> torch.Tensor:
        import torch

        rows = [self._embedded(condition) for condition in conditions]
        given = {name: torch.cat([row[name] for row in rows]) for name in rows[0]}
        output = self.family.predict(self._pipe, z.to(self.device, self._network.dtype), at, given, guidance)
        return output.float().to(z.device)

    def _embedded(self, condition: Condition) -> dict[str, torch.Tensor]:
        import torch

        if condition not in self._kept:
            if len(self._kept) >= _KEPT_PROMPTS:
                self._kept.clear()
            encoders = [part for part in self._pipe.components.values() if isinstance(part, torch.nn.Module)]
            # Not as inference tensors, which autograd would refuse later.
            with torch.inference_mode(False), torch.no_grad(), _evaluating(*encoders):
                self._kept[condition] = self.family.condition(self._pipe, condition, self.image_size)
        return self._kept[condition]


@contextmanager
def _evaluating(*parts: torch.nn.Module) -> Iterator[None]:
    """Switch modules to evaluation mode, and those that were training back, whatever happens."""
    training = [module for part in parts for module in part.modules() if module.training]
    try:
        for module in training:
            module.training = False
        yield
    finally:
        for module in training:
            module.training = True


def _family(pipe: Any) -> PipelineFamily:
    scheduler = getattr(pipe, "scheduler", None)
    family = family_of(
        tuple(kind.__name__ for kind in type(pipe).__mro__),
        type(scheduler).__name__,
        getattr(scheduler, "config", None),
    )
    if family is None:
        raise ModelError(f"a {type(pipe).__name__} is not supported: give one of {', '.join(known_pipelines())}")
    return family


def _name(pipe: Any) -> str:
    return str(pipe.config.get("_name_or_path") or type(pipe).__name__)
