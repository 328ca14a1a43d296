"""Generated images and videos, with a key in their noise or without: noise -> latent -> image."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from treering_verify.errors import LimitedModelWarning, UsageError
from treering_verify.generation.sidecar import sidecar
from treering_verify.media.conversion import to_pil
from treering_verify.models import Condition, LatentModel, images_only, makes_videos, native_noise, pipeline_shape
from treering_verify.models.diffusers.related import check_takes_noise
from treering_verify.models.sampling import denoise
from treering_verify.results import Generated, GeneratedVideo
from treering_verify.watermark.embedding import embed
from treering_verify.watermark.keys.given import keys_to_write
from treering_verify.watermark.keys.key import Key

if TYPE_CHECKING:
    import torch

DEFAULT_STEPS = 50
DEFAULT_GUIDANCE = 2.0


def initial_noise(latent_shape: tuple[int, int, int], seeds: Sequence[int]) -> torch.Tensor:
    """Return unit-normal noise (B, C, h, w), from one generator per seed, so that image i does not depend on its batch.

    torch's generator takes the lower 32 bits of a seed: seeds that agree in them give the same noise.
    """
    import torch

    return torch.stack([torch.randn(latent_shape, generator=torch.Generator().manual_seed(s)) for s in seeds])


def watermarked_noise(
    pipe: Any,
    key: Key | str | Path | Sequence[Key | str | Path],
    seeds: int | Sequence[int] | None = None,
    *,
    generator: torch.Generator | Sequence[torch.Generator] | None = None,
    count: int | None = None,
    image_size: tuple[int, int] | None = None,
    strength: float | None = None,
) -> torch.Tensor:
    """Return noise with a key in it, for a diffusers script: ``pipe(prompts, latents=watermarked_noise(...))``.

    Parameters
    ----------
    pipe : DiffusionPipeline
        A pipeline of a class that `treering models` lists, or one with the components of such a class and more inputs
        (ControlNet, PAG, T2I-Adapter, IP-Adapter, inpainting at strength 1). It is not changed.
    key : Key, path of a key file, or sequence of these
        One key for all images, or one for each, made for the noise of the images' size (`pipeline_shape`).
    seeds : int or sequence of int, optional
        One per image of the call. Image i depends on its own seed only. Give either seeds or generators.
    generator : torch.Generator or sequence of torch.Generator, optional
        One per image, or one that draws `count` images together, as the pipeline's own ``generator=``: outside the key's
        bins the noise is what a float32 pipeline draws from them.
    count : int, optional
        Images of the call: prompts times ``num_images_per_prompt``. Pipelines do not check that `latents=` has as many.
        Default: as many as there are seeds, generators or keys.
    image_size : (H, W), optional
        The call's ``height=`` and ``width=``, of images or videos. Default: the pipeline's own size.
    strength : float, optional
        The call's ``strength=``, for pipelines that inpaint; it has to be 1. Default: the pipeline's own default.

    Returns
    -------
    torch.Tensor
        Noise as the pipeline's ``latents=`` takes it: packed where it packs, on its device and in its network's dtype. It
        is not scaled, because every pipeline scales its latents by its scheduler's ``init_noise_sigma``.

    Raises
    ------
    ModelError
        If the pipeline belongs to no family.
    UsageError
        If the pipeline does not start from the noise that it is given (image to image); the key is made for another shape;
        seeds are out of range; or the counts of keys, seeds or generators and images differ.

    Warns
    -----
    LimitedModelWarning
        If the key is for another image size than the pipeline's own and no `image_size` says that this is meant.
    """
    import torch

    key = keys_to_write(key)
    own = pipeline_shape(pipe, image_size)  # refuses pipelines of no family
    check_takes_noise(pipe, strength)
    if (seeds is None) == (generator is None):
        raise UsageError("give seeds, one per image, or else generator, as the pipeline takes it")
    if seeds is not None:
        numbers, of = list(seeds) if isinstance(seeds, Iterable) else [int(seeds)], "seeds"
        check_seeds(numbers)
        drawn = len(numbers)
    elif isinstance(generator, torch.Generator):
        numbers, of = [], "images"
        drawn = (1 if isinstance(key, Key) else len(key)) if count is None else count
    else:
        numbers, of = [], "generators"
        drawn = len(list(generator or ()))
    if drawn < 1:
        raise UsageError(f"no {of}: give one per image")
    if count not in (None, drawn):
        raise UsageError(
            f"{drawn} {of} for {count} images: give one per image of the call (prompts times num_images_per_prompt)"
        )
    keys = _keys_of(key, drawn, of)
    shape = (key if isinstance(key, Key) else key[0]).latent_shape
    noise = initial_noise(shape, numbers) if numbers else _drawn(shape, generator, drawn)
    native = native_noise(pipe, _marked(noise, keys))
    _check_size(shape, own, image_size)
    return native


def _drawn(shape: tuple[int, int, int], generator: Any, count: int) -> torch.Tensor:
    """Return noise (B, C, h, w) of a generator, or of one per image, drawn as diffusers draws it."""
    import torch

    if isinstance(generator, torch.Generator):
        return torch.randn((count, *shape), generator=generator, device=generator.device).cpu()
    return torch.cat([_drawn(shape, one, 1) for one in generator])


def _check_size(shape: tuple[int, int, int], own: tuple[int, int, int], image_size: tuple[int, int] | None) -> None:
    """Warn of a key for another image size than the pipeline's own; UsageError if it does not fit a size that is named."""
    import warnings

    if shape[1:] == own[1:]:
        return
    if image_size is not None:
        raise UsageError(
            f"the key is made for noise {shape}, and images of {image_size[0]}x{image_size[1]} start from {own}: make a key "
            "for the images' size (treering keygen --image-size)"
        )
    warnings.warn(
        f"the key is made for noise {shape}, and the pipeline's own size is {own}: give the call height= "
        "and width= of the key, and verify at that size; image_size=(height, width) here says that it is meant",
        LimitedModelWarning,
        stacklevel=3,
    )


def generate(
    model: LatentModel,
    key: Key | str | Path | Sequence[Key | str | Path] | None,
    *,
    seeds: Sequence[int],
    prompts: Sequence[Condition] | None = None,
    steps: int = DEFAULT_STEPS,
    guidance: float = DEFAULT_GUIDANCE,
    batch_size: int = 16,
) -> Iterator[Generated]:
    """Generate one image per seed, lazily, batch by batch.

    Parameters
    ----------
    model : LatentModel
    key : Key, path of a key file, sequence of these, or None
        One key for all images, or one for each. A key that many images share can be estimated by averaging them; a key that
        no other image has also identifies its image (`Key.of_index` derives any number from one secret). None generates
        unmarked controls: noise of the same seed differs in the key's bins only.
    seeds : sequence of int
        One per image, 0 <= seed < 2**63.
    prompts : sequence of str or None, optional
        Condition of each image: a class name for class-conditional models, a prompt otherwise, or None for no condition.
        When left out, classes take turns by seed.
    steps : int
        DDIM steps.
    guidance : float
        Classifier-free guidance; 1 is none.
    batch_size : int

    Yields
    ------
    Generated
        In the order of the seeds.

    Raises
    ------
    UsageError
        If a key is made for another shape, the counts of keys, prompts and seeds differ, seeds, steps or guidance are out of
        range, or the model makes videos.
    """
    images_only(model, "generate")
    for image, described, noise, latent in _rendered(model, key, seeds, prompts, steps, guidance, batch_size):
        yield Generated(to_pil(image), described, noise, latent)


def generate_videos(
    model: LatentModel,
    key: Key | str | Path | Sequence[Key | str | Path] | None,
    *,
    seeds: Sequence[int],
    prompts: Sequence[Condition] | None = None,
    steps: int = DEFAULT_STEPS,
    guidance: float = DEFAULT_GUIDANCE,
) -> Iterator[GeneratedVideo]:
    """Generate one video per seed, lazily, one after another, by a model that makes videos; otherwise as `generate`.

    Raises
    ------
    UsageError
        As `generate`, or if the model makes images.
    """
    if not makes_videos(model):
        raise UsageError(f"{model.name} makes images, not videos: use generate")
    for video, described, noise, latent in _rendered(model, key, seeds, prompts, steps, guidance, 1):
        frames = tuple(to_pil(frame) for frame in video.split(3))
        yield GeneratedVideo(frames, {**described, "frames": model.frames, "fps": model.fps}, noise, latent)


def _rendered(
    model: LatentModel,
    key: Key | str | Path | Sequence[Key | str | Path] | None,
    seeds: Sequence[int],
    prompts: Sequence[Condition] | None,
    steps: int,
    guidance: float,
    batch_size: int,
) -> Iterator[tuple[torch.Tensor, dict[str, Any], torch.Tensor, torch.Tensor]]:
    """Yield the decoder's output, sidecar, noise and latent of each seed; parameters and errors as for `generate`."""
    import math

    import torch

    check_seeds(seeds)
    keys = _keys_of(None if key is None else keys_to_write(key), len(seeds))
    if not math.isfinite(guidance) or guidance < 0:
        raise UsageError(f"guidance is {guidance}: choose a number from 0 upwards (1: none)")
    if prompts is None:
        prompts = [model.classes[s % len(model.classes)] if model.classes else None for s in seeds]
    if len(prompts) != len(seeds):
        raise UsageError(f"{len(prompts)} prompts for {len(seeds)} seeds: give one per seed")
    for first in range(0, len(seeds), batch_size):
        batch = list(seeds[first : first + batch_size])
        labels = list(prompts[first : first + batch_size])
        own = keys[first : first + batch_size]
        noise = _marked(initial_noise(model.latent_shape, batch), own)
        with torch.inference_mode():
            latents = denoise(model, noise, steps=steps, conditions=labels, guidance=guidance)
            images = model.decode(latents)
        for i, (seed, label, used) in enumerate(zip(batch, labels, own, strict=True)):
            facts: dict[str, Any] = {"seed": seed, "class" if model.classes else "prompt": label}
            described = sidecar(model, used, {"steps": steps, "guidance": guidance}, **facts)
            yield images[i], described, noise[i], latents[i]


def _keys_of(key: Key | Sequence[Key] | None, count: int, of: str = "seeds") -> Sequence[Key | None]:
    """Return the key of each image; UsageError if the counts differ, or a key is retired or not yet in use.

    `of` says in messages what there is one of per image.
    """
    for each in [key] if isinstance(key, Key) else key or []:
        each.check_in_use()
    if key is None or isinstance(key, Key):
        return [key] * count
    if len(key) != count:
        raise UsageError(f"{len(key)} keys for {count} {of}: give one key for all, or one per {of[:-1]}")
    return key


def _marked(noise: torch.Tensor, keys: Sequence[Key | None]) -> torch.Tensor:
    """Return noise (B, C, h, w) with each item's key in it."""
    import torch

    pairs = zip(noise.split(1), keys, strict=True)
    return torch.cat([one if key is None else embed(one, key) for one, key in pairs])


def check_seeds(seeds: Sequence[int]) -> None:
    """Raise UsageError unless all seeds lie in [0, 2**63)."""
    if any(not 0 <= s < 1 << 63 for s in seeds):
        raise UsageError("a seed is out of range: choose integers from 0 to 2**63 - 1")
