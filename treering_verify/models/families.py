"""Families of diffusers pipelines: how each asks its network, encodes a prompt, and lays out its latents.

What differs between families is here, as functions of one signature; what they share is `PipelineModel`. Noise is canonical
outside, (B, C, h, w) and unit normal: only a family knows that its network wants it packed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from treering_verify.errors import ModelError, UsageError
from treering_verify.models.autoencoder import AUTOENCODERS, latent_channels, pixels_per_cell
from treering_verify.models.clips import CAUSAL, FRAMEWISE, Video, fold, unfold
from treering_verify.models.diffusion_transformers import (
    classes_dit,
    condition_dit,
    condition_pixart,
    predict_dit,
    predict_pixart,
)
from treering_verify.models.few_steps import CONSISTENCY_CAUTION, TURBO_CAUTION, is_consistency, is_turbo
from treering_verify.models.protocol import Condition, Timestep
from treering_verify.models.rectified_flow import RELEASED, followed_scheduler, is_flow, predict_flow
from treering_verify.models.unet import condition_sd, condition_sdxl, predict_unet

if TYPE_CHECKING:
    import torch

    Given = dict[str, torch.Tensor]


@dataclass(frozen=True)
class PipelineFamily:
    """One family.

    Attributes
    ----------
    name, covers : str
        What it is called, and which models it is known for.
    pipelines : tuple of str
        Classes of diffusers that belong to it.
    network : str
        The component that is asked at each step.
    straight : bool
        Whether its ODE is a rectified flow's; else it is diffusion, and the scheduler says whether epsilon or v.
    spaced : bool
        As for `flow_grid`.
    packed : bool
        Whether the network, and the pipeline's `latents=`, want 2 x 2 cells as one token, (B, h w / 4, 4 C).
    distilled : bool
        Whether guidance is told to the network, and not extrapolated from two passes.
    cells : int
        Default side of the latent where the network's configuration names none (`sample_size`).
    limits : str
        What does not work, or has not been tried.
    needs : tuple of str
        Packages that loading needs beside transformers.
    video : Video, optional
        How it makes clips, if it does: z is then (B, C F, h, w), as `treering_verify.models.clips` lays them out.
    caution : str
        Why verdicts reach less far than elsewhere, and what to do; said whenever such a model is loaded. Empty: they do not.
    sampler : callable, optional
        (scheduler's class name, its configuration) -> whether it tells this family from others of the same pipelines.
    follows : callable
        Pipeline -> the scheduler whose grid its call follows.
    classes : callable, optional
        Pipeline -> names of its classes, where conditions are not prompts.
    latents : bool
        Whether the pipeline's call takes `latents=`.
    square : bool
        Whether its images are.
    condition : callable
        (pipeline, prompt or None, image size) -> tensors of one row, whatever the prompt; None is what the pipeline itself
        extrapolates guidance from.
    predict : callable
        (pipeline, z, grid point, tensors of B rows, guidance) -> the network's output, shaped like z.
    """

    name: str
    covers: str
    pipelines: tuple[str, ...]
    network: str
    condition: Callable[[Any, Condition, tuple[int, int]], Given]
    predict: Callable[[Any, torch.Tensor, Timestep, Given, float], torch.Tensor]
    straight: bool = False
    spaced: bool = False
    packed: bool = False
    distilled: bool = False
    cells: int = 64
    limits: str = ""
    needs: tuple[str, ...] = ()
    video: Video | None = None
    caution: str = ""
    sampler: Callable[[str, Mapping[str, Any]], bool] | None = None
    follows: Callable[[Any], Any] = attrgetter("scheduler")
    classes: Callable[[Any], tuple[str, ...]] | None = None
    latents: bool = True
    square: bool = False

    @property
    def autoencoders(self) -> tuple[str, ...]:
        """Classes of diffusers that its autoencoder may be of."""
        return self.video.autoencoders if self.video else AUTOENCODERS

    def patch(self, network: Mapping[str, Any]) -> int:
        """Cells on a side of what the network sees as one token."""
        size = network.get("patch_size") or 1
        return (
            2 if self.packed else int(size if isinstance(size, int) else size[-1])
        )  # of a clip's: (frames, rows, columns)

    def shapes(
        self,
        name: str,
        network: Mapping[str, Any],
        vae: Any,
        image_size: tuple[int, int] | None = None,
        frames: int | None = None,
    ) -> tuple[tuple[int, int, int], tuple[int, int]]:
        """Noise shape (C, h, w), (C F, h, w) of clips, and image size (H, W), from configurations alone.

        Raises
        ------
        ModelError
            If network and autoencoder do not fit each other.
        UsageError
            If images cannot have the size that is asked for.
        """
        channels, factor = (
            self.latent_channels(vae),
            self.video.cells(vae) if self.video else pixels_per_cell(name, vae),
        )
        wanted = channels * (4 if self.packed else 1)
        if network.get("in_channels") != wanted:
            raise ModelError(
                f"{name}: the network takes {network.get('in_channels')} channels and the autoencoder makes latents of "
                f"{wanted}: models for inpainting, depth or other pictures beside the noise are not supported"
            )
        side = network.get("sample_size") or self.cells
        default = (side, side) if isinstance(side, int) else tuple(side)
        own_size = self.video.size if self.video else None
        height, width = image_size or own_size or tuple(factor * cells for cells in default)
        unit = factor * self.patch(network)
        if height < unit or width < unit or height % unit or width % unit:
            raise UsageError(f"{name} makes no images of {height}x{width}: choose multiples of {unit}")
        if self.video:
            most = network.get("motion_max_seq_length")
            channels *= self.video.latent_frames(name, self.video.frames if frames is None else frames, most)
        elif frames is not None:
            raise UsageError(f"{name} makes pictures, not clips: leave the frames")
        if self.square and height != width:
            raise UsageError(f"{name} makes no images of {height}x{width}: choose a square")
        return (channels, height // factor, width // factor), (height, width)

    def latent_channels(self, vae: Mapping[str, Any]) -> int:
        """Channels of a latent, or of each latent frame."""
        return int(vae[self.video.channels]) if self.video else latent_channels(vae)


def pack(z: torch.Tensor) -> torch.Tensor:
    """(B, C, h, w) -> tokens (B, h w / 4, 4 C), each a square of 2 x 2 cells, channel by channel."""
    import torch

    return torch.nn.functional.pixel_unshuffle(z, 2).flatten(2).mT


def unpack(tokens: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Undo `pack`, given h and w."""
    import torch

    return torch.nn.functional.pixel_shuffle(tokens.mT.unflatten(2, (height // 2, width // 2)), 2)


def _condition_sd3(pipe: Any, prompt: Condition, image_size: tuple[int, int]) -> Given:
    states, _, pooled, _ = pipe.encode_prompt(
        prompt or "", None, None, device=pipe._execution_device, do_classifier_free_guidance=False
    )
    return {"encoder_hidden_states": states, "pooled_projections": pooled}


def _condition_flux(pipe: Any, prompt: Condition, image_size: tuple[int, int]) -> Given:
    states, pooled, _ = pipe.encode_prompt(prompt or "", None, device=pipe._execution_device)
    return {"encoder_hidden_states": states, "pooled_projections": pooled}


def _condition_wan(pipe: Any, prompt: Condition, image_size: tuple[int, int]) -> Given:
    return {"encoder_hidden_states": pipe.encode_prompt(prompt or "", None, False, max_sequence_length=512)[0]}


def _predict_sd3(pipe: Any, z: torch.Tensor, at: Timestep, given: Given, guidance: float) -> torch.Tensor:
    import torch

    times = z.new_full((len(z),), at.index, dtype=torch.float32)
    return pipe.transformer(hidden_states=z, timestep=times, return_dict=False, **given)[0]


def _predict_flux(pipe: Any, z: torch.Tensor, at: Timestep, given: Given, guidance: float) -> torch.Tensor:
    import torch

    height, width = z.shape[-2:]
    rows, columns = torch.meshgrid(torch.arange(height // 2), torch.arange(width // 2), indexing="ij")
    places = torch.stack([torch.zeros_like(rows), rows, columns], dim=-1).flatten(0, 1).to(z)
    told = z.new_full((len(z),), guidance, dtype=torch.float32) if pipe.transformer.config.guidance_embeds else None
    tokens = pipe.transformer(
        hidden_states=pack(z),
        timestep=z.new_full((len(z),), at.index) / 1000,
        guidance=told,
        txt_ids=z.new_zeros(given["encoder_hidden_states"].shape[1], 3),
        img_ids=places,
        return_dict=False,
        **given,
    )[0]
    return unpack(tokens, height, width)


def _predict_animatediff(pipe: Any, z: torch.Tensor, at: Timestep, given: Given, guidance: float) -> torch.Tensor:
    clip = unfold(z, pipe.unet.config.in_channels)
    states = given["encoder_hidden_states"].repeat_interleave(clip.shape[2], dim=0)  # a row for each frame
    return fold(pipe.unet(clip, at.index, encoder_hidden_states=states, return_dict=False)[0])


def _predict_wan(pipe: Any, z: torch.Tensor, at: Timestep, given: Given, guidance: float) -> torch.Tensor:
    import torch

    output = pipe.transformer(
        hidden_states=unfold(z, pipe.transformer.config.in_channels),
        timestep=z.new_full((len(z),), at.index, dtype=torch.float32),
        encoder_hidden_states=given["encoder_hidden_states"].to(z.dtype),
        return_dict=False,
    )[0]
    return fold(output)


_SD = PipelineFamily(
    "stable-diffusion",
    "Stable Diffusion 1.x and 2.x and their fine-tunes; epsilon and v",
    ("StableDiffusionPipeline",),
    "unet",
    condition_sd,
    predict_unet,
    limits="not inpainting or depth; the DDIM grid, whatever the sampler",
)
_SDXL = PipelineFamily(
    "stable-diffusion-xl",
    "SDXL base and its fine-tunes; epsilon and v",
    ("StableDiffusionXLPipeline",),
    "unet",
    condition_sdxl,
    predict_unet,
    cells=128,
    limits="not the refiner or inpainting; the DDIM grid, whatever the sampler",
)
_FAMILIES = (
    _SD,
    _SDXL,
    PipelineFamily(
        "stable-diffusion-3",
        "Stable Diffusion 3 and 3.5; flow matching",
        ("StableDiffusion3Pipeline",),
        "transformer",
        _condition_sd3,
        _predict_sd3,
        straight=True,
        cells=128,
        limits="Euler's grid only; no skipped layers or picture prompts",
    ),
    PipelineFamily(
        "flux",
        "FLUX.1 dev and schnell; flow matching",
        ("FluxPipeline",),
        "transformer",
        _condition_flux,
        _predict_flux,
        straight=True,
        spaced=True,
        packed=True,
        distilled=True,
        cells=128,
        limits="not FLUX.2, Kontext or Fill; Euler's grid only; no true_cfg_scale",
    ),
    PipelineFamily(
        "animatediff",
        "clips by AnimateDiff on Stable Diffusion 1.x; epsilon",
        ("AnimateDiffPipeline",),
        "unet",
        condition_sd,
        _predict_animatediff,
        limits="clips; not SDXL, LCM (AnimateLCM), IP-Adapter, FreeInit or FreeNoise; the DDIM grid",
        video=FRAMEWISE,
    ),
    PipelineFamily(
        "wan",
        "clips by Wan 2.1, text to video; flow matching",
        ("WanPipeline",),
        "transformer",
        _condition_wan,
        _predict_wan,
        straight=True,
        limits="clips; not Wan 2.2, pictures or clips as prompts; Euler's steps on the sampler's grid",
        needs=("accelerate",),  # diffusers keeps some of the weights in float32, and cannot without it
        video=CAUSAL,
    ),
    PipelineFamily(
        "pixart",
        "PixArt-alpha and -sigma; epsilon, with a learned variance",
        ("PixArtAlphaPipeline", "PixArtSigmaPipeline"),
        "transformer",
        condition_pixart,
        predict_pixart,
        cells=128,
        limits="the DDIM grid, whatever the sampler; sizes as asked, not the nearest of the pipeline's list",
    ),
    PipelineFamily(
        "dit",
        "DiT; classes instead of prompts, epsilon, with a learned variance",
        ("DiTPipeline",),
        "transformer",
        condition_dit,
        predict_dit,
        cells=32,
        classes=classes_dit,
        latents=False,
        square=True,
        limits="square images; the DDIM grid, whatever the sampler; its own call takes no latents=",
    ),
    PipelineFamily(
        "rectified-flow",
        "InstaFlow, 2-Rectified Flow and other velocity U-Nets; flow matching, one step or few",
        ("StableDiffusionPipeline", RELEASED),
        "unet",
        condition_sd,
        predict_flow,
        straight=True,
        sampler=is_flow,
        follows=followed_scheduler,
        limits="InstaFlow knows one step: --steps 1 --guidance 1, and --noise-inversion exact to verify",
    ),
    replace(
        _SD,
        name="stable-diffusion-lcm",
        covers="latent consistency models and LCM-LoRA",
        pipelines=("StableDiffusionPipeline", "LatentConsistencyModelPipeline"),
        sampler=is_consistency,
        caution=CONSISTENCY_CAUTION,
        limits="limited: fresh noise between the sampler's own steps; the LCM grid",
    ),
    replace(
        _SDXL,
        name="stable-diffusion-xl-lcm",
        covers="the same of SDXL",
        sampler=is_consistency,
        caution=CONSISTENCY_CAUTION,
        limits="limited: as stable-diffusion-lcm",
    ),
    replace(
        _SD,
        name="stable-diffusion-turbo",
        covers="SD-Turbo and others of few steps",
        sampler=is_turbo,
        caution=TURBO_CAUTION,
        limits="limited: 1 to 4 steps, no guidance; fresh noise between an ancestral sampler's steps",
    ),
    replace(
        _SDXL,
        name="stable-diffusion-xl-turbo",
        covers="SDXL-Turbo, SDXL-Lightning and others of few steps",
        sampler=is_turbo,
        caution=TURBO_CAUTION,
        limits="limited: as stable-diffusion-turbo",
    ),
)
FAMILIES: dict[str, PipelineFamily] = {family.name: family for family in _FAMILIES}


def family_of(
    kinds: tuple[str, ...], scheduler: str = "", config: Mapping[str, Any] | None = None
) -> PipelineFamily | None:
    """Family that a pipeline belongs to, by the first of its class names that any has.

    Where several have it, its scheduler's class and configuration may single one out.
    """
    found = next(([f for f in _FAMILIES if kind in f.pipelines] for kind in kinds if kind in known_pipelines()), [])
    singled = [family for family in found if family.sampler and family.sampler(scheduler, config or {})]
    plain = [family for family in found if not family.sampler]
    return next(iter(singled + plain + found), None)


def known_pipelines() -> tuple[str, ...]:
    """Class names of the pipelines of every family."""
    return tuple(dict.fromkeys(kind for family in _FAMILIES for kind in family.pipelines))
