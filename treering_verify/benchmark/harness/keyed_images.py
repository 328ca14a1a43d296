"""Images that are each marked with their own key, and their evidence, so that no result depends on one key."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from treering_verify.benchmark.harness.cache import cached
from treering_verify.detection.evidence import evidence_of
from treering_verify.generation.generator import DEFAULT_GUIDANCE, DEFAULT_STEPS, generate
from treering_verify.inversion.recovery import InversionOptions, recover_noise
from treering_verify.media.conversion import to_pil, to_tensor
from treering_verify.models import LatentModel
from treering_verify.models.sampling import denoise
from treering_verify.models.weights import fingerprint
from treering_verify.version import __version__
from treering_verify.watermark.keys.key import Key

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray
    from PIL import Image

    from treering_verify.benchmark.harness.scope import Scope

_BATCH = 16


def generate_each(
    model: LatentModel, keys: Sequence[Key], seeds: Sequence[int], advance: Callable[[], None]
) -> list[Image.Image]:
    """Return one image per (key, seed)."""
    images = []
    for made in generate(model, keys, seeds=seeds):
        images.append(made.image)
        advance()
    return images


def generate_cached(
    model: LatentModel, keys: Sequence[Key], seeds: Sequence[int], scope: Scope, advance: Callable[[], None]
) -> list[Image.Image]:
    """Return one image per (key, seed), each batch of them from the cache where it was generated before."""
    import numpy as np
    from PIL import Image

    weights, images = fingerprint(model), list[Image.Image]()
    for start in range(0, len(keys), _BATCH):
        some, numbers = keys[start : start + _BATCH], tuple(seeds[start : start + _BATCH])

        def measure(some: Sequence[Key] = some, numbers: Sequence[int] = numbers) -> dict[str, NDArray[Any]]:
            made = generate_each(model, some, numbers, lambda: None)
            return {"images": np.stack([np.asarray(image) for image in made])}

        facts = (weights, __version__, [key.fingerprint for key in some], numbers)
        images += [Image.fromarray(image) for image in cached(scope.folder, "images", facts, measure)["images"]]
        for _ in some:
            advance()
    return images


def render_noise(model: LatentModel, noise: torch.Tensor, first: int = 0) -> list[Image.Image]:
    """Return the images of initial noise, classes taking turns; the first one is number `first` of them."""
    import torch

    images = []
    for start in range(0, len(noise), _BATCH):
        part = noise[start : start + _BATCH]
        numbers = range(first + start, first + start + len(part))
        labels = [model.classes[i % len(model.classes)] if model.classes else None for i in numbers]
        with torch.inference_mode():
            latents = denoise(model, part, steps=DEFAULT_STEPS, conditions=labels, guidance=DEFAULT_GUIDANCE)
            images += [to_pil(image) for image in model.decode(latents)]
    return images


def noise_of(
    model: LatentModel, images: Sequence[Image.Image], inversion: InversionOptions | None = None
) -> Iterator[torch.Tensor]:
    """Invert images in batches; yield the noise estimate of each, (1, C, h, w)."""
    import torch

    for first in range(0, len(images), _BATCH):
        pixels = torch.cat([to_tensor(image) for image in images[first : first + _BATCH]])
        noise_hat, _ = recover_noise(model, pixels, inversion)
        yield from noise_hat.split(1)


def evidence_of_images(
    model: LatentModel, images: Sequence[Image.Image], keys: Sequence[Key], inversion: InversionOptions | None = None
) -> Iterator[tuple[float, float]]:
    """Yield (log10 p, statistic) of image i under key i."""
    for noise_hat, key in zip(noise_of(model, images, inversion), keys, strict=True):
        (evidence,) = evidence_of(noise_hat, [key])[0]
        yield evidence.log10_pvalue, evidence.statistic
