"""The supported families of diffusers pipelines.

A family holds what differs between pipelines, as functions of one signature; `PipelineModel` is what they share. Noise is
(B, C, h, w) and unit normal everywhere else: only a family knows whether its network packs it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from treering_verify.files import printable
from treering_verify.models.diffusers.diffusion_transformers import (
    classes_dit,
    condition_dit,
    condition_pixart,
    predict_dit,
    predict_pixart,
)
from treering_verify.models.diffusers.family import PipelineFamily
from treering_verify.models.diffusers.few_steps import (
    CONSISTENCY_CAUTION,
    TURBO_CAUTION,
    is_consistency,
    is_named_few_steps,
    is_turbo,
)
from treering_verify.models.diffusers.flow_transformers import condition_flux, condition_sd3, predict_flux, predict_sd3
from treering_verify.models.diffusers.kinds.flux2 import FLUX2
from treering_verify.models.diffusers.kinds.lavie import LAVIE
from treering_verify.models.diffusers.kinds.qwen_image import QWEN_IMAGE
from treering_verify.models.diffusers.kinds.sana import SANA
from treering_verify.models.diffusers.kinds.z_image import Z_IMAGE
from treering_verify.models.diffusers.rectified_flow import (
    RELEASED,
    class_of_flow,
    followed_scheduler,
    is_flow,
    predict_flow,
)
from treering_verify.models.diffusers.related import base_of
from treering_verify.models.diffusers.unet import condition_sd, condition_sdxl, predict_unet
from treering_verify.models.diffusers.video import CAUSAL, FRAMEWISE
from treering_verify.models.diffusers.video_networks import condition_wan, predict_animatediff, predict_wan
from treering_verify.plugins import Registry

_IMAGE_PROMPTS = ("image_encoder", "feature_extractor")
_TWO_TEXTS = ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")
_THREE_TEXTS = (*_TWO_TEXTS, "text_encoder_3", "tokenizer_3")
_SD = PipelineFamily(
    "stable-diffusion",
    "Stable Diffusion 1.x and 2.x and their fine-tunes; epsilon and v",
    ("StableDiffusionPipeline",),
    "unet",
    condition_sd,
    predict_unet,
    limits="not depth; the DDIM grid, whatever the sampler",
)
_SDXL = PipelineFamily(
    "stable-diffusion-xl",
    "SDXL base and its fine-tunes; epsilon and v",
    ("StableDiffusionXLPipeline",),
    "unet",
    condition_sdxl,
    predict_unet,
    components=(*_TWO_TEXTS, *_IMAGE_PROMPTS),
    cells=128,
    limits="not the refiner; the DDIM grid, whatever the sampler",
)
_FAMILIES = (
    _SD,
    _SDXL,
    PipelineFamily(
        "stable-diffusion-3",
        "Stable Diffusion 3 and 3.5; flow matching",
        ("StableDiffusion3Pipeline",),
        "transformer",
        condition_sd3,
        predict_sd3,
        networks=("SD3Transformer2DModel",),
        components=(*_THREE_TEXTS, *_IMAGE_PROMPTS),
        straight=True,
        cells=128,
        limits="Euler's grid only; no skipped layers or image prompts",
    ),
    PipelineFamily(
        "flux",
        "FLUX.1 dev and schnell; flow matching",
        ("FluxPipeline",),
        "transformer",
        condition_flux,
        predict_flux,
        networks=("FluxTransformer2DModel",),
        components=(*_TWO_TEXTS, *_IMAGE_PROMPTS),
        straight=True,
        spaced=True,
        packed=True,
        distilled=True,
        cells=128,
        limits="not Kontext or Fill; Euler's grid only; no true_cfg_scale",
    ),
    FLUX2,
    QWEN_IMAGE,
    SANA,
    Z_IMAGE,
    PipelineFamily(
        "animatediff",
        "videos by AnimateDiff on Stable Diffusion 1.x; epsilon",
        ("AnimateDiffPipeline",),
        "unet",
        condition_sd,
        predict_animatediff,
        networks=("UNet2DConditionModel", "UNetMotionModel"),
        components=("text_encoder", "tokenizer", "motion_adapter", *_IMAGE_PROMPTS),
        limits="videos; not SDXL, LCM (AnimateLCM), IP-Adapter, FreeInit or FreeNoise; the DDIM grid",
        video=FRAMEWISE,
    ),
    LAVIE,
    PipelineFamily(
        "wan",
        "videos by Wan 2.1, text to video; flow matching",
        ("WanPipeline",),
        "transformer",
        condition_wan,
        predict_wan,
        networks=("WanTransformer3DModel",),
        components=("text_encoder", "tokenizer"),
        straight=True,
        limits="videos; not Wan 2.2, images or videos as prompts; Euler's steps on the sampler's grid",
        needs=("accelerate",),  # without it diffusers cannot keep some weights in float32
        video=CAUSAL,
    ),
    PipelineFamily(
        "pixart",
        "PixArt-alpha and -sigma; epsilon, with a learned variance",
        ("PixArtAlphaPipeline", "PixArtSigmaPipeline"),
        "transformer",
        condition_pixart,
        predict_pixart,
        networks=("PixArtTransformer2DModel", "Transformer2DModel"),
        components=("text_encoder", "tokenizer"),
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
        networks=("DiTTransformer2DModel", "Transformer2DModel"),
        components=(),
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
        class_of=class_of_flow,
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
        cautioned=is_named_few_steps,
        limits="limited: 1 to 4 steps, no guidance; fresh noise between an ancestral sampler's steps",
    ),
    replace(
        _SDXL,
        name="stable-diffusion-xl-turbo",
        covers="SDXL-Turbo, SDXL-Lightning and others of few steps",
        sampler=is_turbo,
        caution=TURBO_CAUTION,
        cautioned=is_named_few_steps,
        limits="limited: as stable-diffusion-turbo",
    ),
)
FAMILIES: Registry[PipelineFamily] = Registry(
    "model family",
    "treering_verify.families",
    {family.name: family for family in _FAMILIES},
    fits=lambda value: isinstance(value, PipelineFamily),
)
"""Families by name; users add their own (docs/extending.md)."""


def family_of(
    kinds: tuple[str, ...],
    scheduler: str = "",
    config: Mapping[str, Any] | None = None,
    components: Callable[[], Mapping[str, type | None]] | None = None,
) -> tuple[PipelineFamily, str] | None:
    """Return the family of a pipeline and the name of its class there; None if there is none.

    The class is the first of the pipeline's class names that a family has, or else the one whose components the pipeline
    has (`related.base_of`). If several families have the class, the scheduler's class and configuration choose one.

    Parameters
    ----------
    kinds : tuple of str
        Class names of the pipeline, its own first.
    scheduler : str
        Class name of its scheduler.
    config : mapping, optional
        Configuration of its scheduler.
    components : callable, optional
        Returns the classes of its components by name. It is called if no family has one of the class names.
    """
    known = known_pipelines()
    kind = next((kind for kind in kinds if kind in known), None)
    if kind is None and components is not None:
        kind = base_of(kinds[0], components(), dict(_classes()))
    if kind is None:
        return None
    found = [family for family in FAMILIES.values() if kind in family.pipelines]
    singled = [family for family in found if family.sampler and family.sampler(scheduler, config or {})]
    plain = [family for family in found if not family.sampler]
    return next(iter(singled + plain + found)), kind


def _classes() -> Iterator[tuple[str, Any]]:
    """Yield name and class of every supported pipeline that can be imported."""
    for family in FAMILIES.values():
        for kind in family.pipelines:
            try:
                yield kind, family.class_of(kind)
            except (AttributeError, ImportError, RuntimeError):  # needs a package that is not installed
                continue


def known_pipelines() -> tuple[str, ...]:
    """Return the class names of the pipelines of every family."""
    return tuple(dict.fromkeys(kind for family in FAMILIES.values() for kind in family.pipelines))


def unsupported(kind: str) -> str:
    """Return the message, of one line, for a pipeline class of no family: the class that was probably meant, if any is."""
    from difflib import get_close_matches

    close = get_close_matches(kind, known_pipelines(), n=1, cutoff=0.8)
    meant = f"did you mean {close[0]}? " if close else ""
    return f"the pipeline class {printable(kind)[:100]} is not supported: {meant}`treering models` lists those that are"
