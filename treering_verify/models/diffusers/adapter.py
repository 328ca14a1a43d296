"""Make a model of a pipeline of diffusers, without changing the pipeline."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from treering_verify.errors import LimitedModelWarning, ModelError, UsageError
from treering_verify.models.autoencoder import check_autoencoder, decode, encode, fitting_tile, own_float32
from treering_verify.models.diffusers.families import family_of, unsupported
from treering_verify.models.diffusers.family import PipelineFamily
from treering_verify.models.diffusers.few_steps import CONSISTENCY
from treering_verify.models.diffusers.flow_transformers import pack, unpack
from treering_verify.models.diffusers.related import (
    base_pipeline,
    check_unconditional,
    components_of,
    takes_mask,
)
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
    """Make a `LatentModel` of a diffusers pipeline, for marking, generation, inversion and verification.

    The pipeline is not changed: its scheduler, dtypes, devices, hooks and training flags stay as they are, also after an
    error. The autoencoder is computed in float32, with a copy of its weights if they have another dtype. Everything else
    is computed as the pipeline does it.

    Parameters
    ----------
    pipe : DiffusionPipeline
        A pipeline of a class that `treering models` lists, or one with the components of such a class and more inputs, as
        ControlNet, PAG, T2I-Adapter, image to image and inpainting. Their other inputs are not known to verification, so
        the model is the base model: without them, and with a mask that covers the whole image.
    name : str, optional
        Its name in records. Default: where it was loaded from.
    image_size : (H, W), optional
        Size of its images. Default: the model's own.
    tile : int
        As `ModelSource.tile`.
    frames : int, optional
        Frames of its videos, for video models. Default: the family's own.

    Raises
    ------
    ModelError
        If the pipeline belongs to no family, or cannot be inverted.
    UsageError
        If images or tiles of that size, or videos of that length, are impossible, or if tiles are chosen for videos.

    Warns
    -----
    LimitedModelWarning
        If marks in its images are detected less surely than in those of other models.
    """
    import warnings

    family, base = _found(pipe)
    masked, own = takes_mask(type(pipe)), name or _name(pipe)
    shared = pipe if base is None else base_pipeline(pipe, base)
    model = PipelineModel(shared, family, own, image_size, tile, frames, masked=masked)
    if family.caution and family.cautioned(pipe):
        warnings.warn(f"{model.name}: {model.family.caution}", LimitedModelWarning, stacklevel=2)
    return model


def native_noise(pipe: Any, noise: torch.Tensor) -> torch.Tensor:
    """Return noise, (B, C, h, w), in the layout and dtype of a pipeline's `latents=`: packed if the pipeline packs it.

    Noise of videos, (B, C F, h, w), becomes (B, C, F, h, w). It is not scaled, because every supported pipeline multiplies
    `latents=` by its scheduler's `init_noise_sigma` itself.

    Raises
    ------
    UsageError
        If the pipeline takes no `latents=`, or has no noise of this shape at any image size.
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
    laid_out = family.laid_out or (pack if family.packed else _unchanged)
    return laid_out(noise).to(pipe._execution_device, network.dtype)


def _unchanged(noise: torch.Tensor) -> torch.Tensor:
    return noise


def canonical_noise(pipe: Any, latents: torch.Tensor, latent_shape: tuple[int, int, int]) -> torch.Tensor:
    """Return a pipeline's latents as (B, C, h, w) float32 on the processor: the inverse of `native_noise`.

    Raises
    ------
    UsageError
        If the latents do not have that shape, or the pipeline makes videos.
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
            "make a key for the images' size (treering keygen --image-size)"
        )
    return latents.detach().float().cpu()


def pipeline_shape(pipe: Any, image_size: tuple[int, int] | None = None) -> tuple[int, int, int]:
    """Return the shape (C, h, w) of the noise that a pipeline starts from at an image size, by default its own.

    Raises
    ------
    ModelError
        If the pipeline belongs to no family.
    UsageError
        If it makes no images of that size.
    """
    family = _family(pipe)
    network = getattr(pipe, family.network).config
    most = network.get("motion_max_seq_length")
    frames = min(family.video.frames, most) if family.video and most else None
    return family.shapes(_name(pipe), network, pipe.vae.config, image_size, frames, takes_mask(type(pipe)))[0]


class PipelineModel:
    """A `LatentModel` of a pipeline; see `from_pipeline`."""

    def __init__(
        self,
        pipe: Any,
        family: PipelineFamily,
        name: str,
        image_size: tuple[int, int] | None,
        tile: int = 0,
        frames: int | None = None,
        masked: bool = False,
    ) -> None:
        check_autoencoder(name, pipe.vae, family.autoencoders)
        if pipe.config.get("boundary_ratio") is not None or pipe.config.get("expand_timesteps"):
            raise ModelError(
                f"{name}: Wan 2.2, with two networks or a time for each token, is not supported: use a model of Wan 2.1"
            )
        network, scheduler = getattr(pipe, family.network), family.follows(pipe)
        told = network.config.get("time_cond_proj_dim") is not None
        if told and type(scheduler).__name__ != CONSISTENCY:
            raise ModelError(
                f"{name}: a consistency model (LCM) with a {type(scheduler).__name__}, whose times it does not know: "
                f"give it an {CONSISTENCY}"
            )
        self.name, self.family = name, family
        self.classes = family.classes(pipe) if family.classes else ()
        # Guidance is an input of the network, or the network was distilled to do without (FLUX.2 klein).
        self._told = family.distilled or told or bool(pipe.config.get("is_distilled"))
        self.latent_shape, self.image_size = family.shapes(
            name, network.config, pipe.vae.config, image_size, frames, masked
        )
        self._inpaints = masked and network.config.in_channels == 2 * self.latent_shape[0] + 1
        self.frames = (family.video.frames if frames is None else frames) if family.video else None
        self.fps = family.video.fps if family.video else None
        self.latent_frames = self.latent_shape[0] // family.latent_channels(pipe.vae.config) if family.video else None
        if tile and family.video:
            raise UsageError(
                f"{name}: videos go through the autoencoder in chunks of frames, not in tiles: leave out the tile"
            )
        self.tile = 0 if family.video else fitting_tile(name, family.plain(pipe.vae.config), tile)
        self.refine: Callable[..., torch.Tensor] | None = None
        self.estimate: NoiseEstimator | None = None
        self.screen: NoiseEstimator | None = None
        self._pipe, self._network, self.device = pipe, network, str(pipe._execution_device)
        self._vae = own_float32(pipe.vae, self.device)
        self._coder = family.autoencoder.wrapped(self._vae) if family.autoencoder else self._vae
        self._scheduler = (flow_scheduler if family.straight else diffusion_scheduler)(name, scheduler)
        self._kept: dict[Condition, dict[str, torch.Tensor]] = {}

    def to(self, device: str) -> PipelineModel:
        """Move the model and its pipeline to a device; not for a pipeline that a caller passed in."""
        self._pipe.to(device)
        self._vae.to(device)
        self._kept.clear()
        self.device = device
        return self

    def encode(self, image: torch.Tensor) -> torch.Tensor:
        """Encode images in [-1, 1], (B, 3, H, W) -> (B, C, h, w): the mode of the posterior, normalised."""
        if self.family.video:
            return self.family.video.encode(self._vae, image.to(self.device)).to(image.device)
        return encode(self._coder, image.to(self.device), self.tile).to(image.device)

    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        """Decode latents, (B, C, h, w) -> (B, 3, H, W), not clamped."""
        if self.family.video:
            return self.family.video.decode(self._vae, latent.to(self.device)).to(latent.device)
        return decode(self._coder, latent.to(self.device), self.tile).to(latent.device)

    def timesteps(self, steps: int) -> tuple[Timestep, ...]:
        """Return the grid of the pipeline's scheduler; if that depends on the image size, for this one."""
        if not self.family.straight:
            return diffusion_grid(self._scheduler, steps)
        _, height, width = self.latent_shape
        tokens = height * width // self.family.patch(self._network.config) ** 2
        spaced = self.family.spaced and not self._scheduler.config.get("use_flow_sigmas")
        return flow_grid(self._scheduler, steps, tokens, spaced, self.family.shift)

    def denoise(
        self, z: torch.Tensor, at: Timestep, conditions: Sequence[Condition], guidance: float = 1.0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Estimate (latent, noise) from z_t; guidance extrapolates, or is an input of a network distilled for it."""
        with _evaluating(self._network):
            output = self._ask(z, at, conditions, guidance)
            if guidance != 1.0 and not self._told:
                unconditional = self._ask(z, at, [None] * len(z), guidance)
                output = self.family.guided(output, unconditional, guidance)
        kind = FLOW if self.family.straight else self._scheduler.config.prediction_type
        return estimates(z, at, output, kind)

    def _ask(self, z: torch.Tensor, at: Timestep, conditions: Sequence[Condition], guidance: float) -> torch.Tensor:
        rows = [self._embedded(condition) for condition in conditions]
        given = {name: _joined([row[name] for row in rows]) for name in rows[0]}
        output = self.family.predict(self._pipe, z.to(self.device, self._network.dtype), at, given, guidance)
        return output.float().to(z.device)

    def _embedded(self, condition: Condition) -> dict[str, torch.Tensor]:
        import torch

        if condition not in self._kept:
            if len(self._kept) >= _KEPT_PROMPTS:
                self._kept.clear()
            encoders = [part for part in self._pipe.components.values() if isinstance(part, torch.nn.Module)]
            # Not as inference tensors, which autograd would reject later.
            with torch.inference_mode(False), torch.no_grad(), _evaluating(*encoders):
                given = self.family.condition(self._pipe, condition, self.image_size)
                self._kept[condition] = {**given, "beside": self._whole_mask()} if self._inpaints else given
        return self._kept[condition]

    def _whole_mask(self) -> torch.Tensor:
        """Return what an inpainting network takes beside the noise, (1, 1 + C, h, w), if the mask is the whole image."""
        import torch

        latent = encode(self._coder, torch.zeros(1, 3, *self.image_size, device=self.device))  # the masked image: grey
        return torch.cat([latent.new_ones(1, 1, *latent.shape[2:]), latent], dim=1)


def _joined(rows: list[torch.Tensor]) -> torch.Tensor:
    """Return tensors of one row each as one, after zeros at the end of prompts that are shorter than the longest."""
    import torch

    if len({row.shape for row in rows}) == 1:
        return torch.cat(rows)
    return torch.nn.utils.rnn.pad_sequence([row[0] for row in rows], batch_first=True)


@contextmanager
def _evaluating(*parts: torch.nn.Module) -> Iterator[None]:
    """Switch modules to evaluation mode, and restore the mode of each afterwards."""
    training = [module for part in parts for module in part.modules() if module.training]
    try:
        for module in training:
            module.training = False
        yield
    finally:
        for module in training:
            module.training = True


def _family(pipe: Any) -> PipelineFamily:
    return _found(pipe)[0]


def _found(pipe: Any) -> tuple[PipelineFamily, Any]:
    """Return a pipeline's family, and the class of the base model's pipeline; None if it is of such a class itself."""
    if isinstance(pipe, str | os.PathLike):
        raise UsageError(
            f"{os.fspath(pipe)} is a name or path, and no pipeline: models.load_pipeline loads a pipeline by it, and "
            "load_model a model"
        )
    scheduler = getattr(pipe, "scheduler", None)
    kinds = tuple(kind.__name__ for kind in type(pipe).__mro__)
    found = family_of(kinds, type(scheduler).__name__, getattr(scheduler, "config", None), lambda: components_of(pipe))
    if found is None:
        raise ModelError(unsupported(type(pipe).__name__))
    family, kind = found
    if kind in kinds:
        return family, None
    base = family.class_of(kind)
    check_unconditional(pipe, base, getattr(pipe, family.network))
    return family, base


def _name(pipe: Any) -> str:
    return str(pipe.config.get("_name_or_path") or type(pipe).__name__)
