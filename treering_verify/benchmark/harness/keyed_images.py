"""Images that are each marked with their own key, and their evidence, so that no result depends on one key."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from treering_verify.detection.evidence import evidence_of
from treering_verify.generation.generator import generate
from treering_verify.inversion.recovery import InversionOptions, recover_noise
from treering_verify.media.images import to_tensor
from treering_verify.models import LatentModel
from treering_verify.watermark.keys.key import Key

if TYPE_CHECKING:
    import torch
    from PIL import Image

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
