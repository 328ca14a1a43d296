"""Images that each carry a key of their own, and their evidence: no figure is then that of one lucky key."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from treering_verify.generation import DEFAULT_GUIDANCE, DEFAULT_STEPS, initial_noise
from treering_verify.images import to_pil, to_tensor
from treering_verify.key import Key
from treering_verify.models import LatentModel
from treering_verify.noise_inversion import denoise
from treering_verify.recovery import recover_noise
from treering_verify.watermark import embed
from treering_verify.weighing import weigh

if TYPE_CHECKING:
    import torch
    from PIL import Image

_BATCH = 16


def generate_each(
    model: LatentModel, keys: Sequence[Key], seeds: Sequence[int], advance: Callable[[], None]
) -> list[Image.Image]:
    """One image per (key, seed), in batches although each has a key of its own."""
    import torch

    images = []
    for first in range(0, len(keys), _BATCH):
        part = list(zip(keys, seeds, strict=True))[first : first + _BATCH]
        noise = torch.cat([embed(initial_noise(model.latent_shape, [seed]), key) for key, seed in part])
        labels = [model.classes[seed % len(model.classes)] if model.classes else None for _, seed in part]
        with torch.inference_mode():
            latents = denoise(model, noise, steps=DEFAULT_STEPS, conditions=labels, guidance=DEFAULT_GUIDANCE)
            decoded = model.decode(latents)
        for picture in decoded:
            images.append(to_pil(picture))
            advance()
    return images


def noise_of(model: LatentModel, images: Sequence[Image.Image]) -> Iterator[torch.Tensor]:
    """Take images back to their noise, in batches; yield that of each, (1, C, h, w)."""
    import torch

    for first in range(0, len(images), _BATCH):
        pixels = torch.cat([to_tensor(image) for image in images[first : first + _BATCH]])
        noise_hat, _ = recover_noise(model, pixels)
        yield from noise_hat.split(1)


def evidence_of(
    model: LatentModel, images: Sequence[Image.Image], keys: Sequence[Key]
) -> Iterator[tuple[float, float]]:
    """Yield (log10 p, statistic) of image i under key i."""
    for noise_hat, key in zip(noise_of(model, images), keys, strict=True):
        (evidence,) = weigh(noise_hat, [key])[0]
        yield evidence.log10_pvalue, evidence.statistic
