"""Inversion of over-exposed images: divide by the factor, complete what is clipped, and invert the completed image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from treering_verify.inversion.brightness import clipped_values, divided
from treering_verify.inversion.noise import trajectory
from treering_verify.models.restorer import STEPS, Restorer, latent_inputs, mirrored, noise_inputs

if TYPE_CHECKING:
    import torch

    from treering_verify.inversion.decoder.solution import Solution
    from treering_verify.models import LatentModel

_PLAIN = 0.3  # share of the plain estimate: found the best on 32 images, of 0 to 1, by little


def complete(
    model: LatentModel, restorer: Restorer, image: torch.Tensor, factors: Sequence[float]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Divide images by their factors, and draw what is clipped as the model expects it, but never darker than it can be.

    Parameters
    ----------
    model : LatentModel
    restorer : Restorer
    image : (B, 3, H, W) in [-1, 1]
    factors : sequence of B float
        `brightness_factors`.

    Returns
    -------
    completed : (B, 3, H, W) in [-1, 1]
    known : (B, 6 cell^2 + 2, h, w)
        What is known of the images, as `noise_inputs` takes it.
    """
    import torch

    told = image.new_tensor(factors)
    clipped = clipped_values(image)
    least = divided(image, told, clipped)
    start = model.encode(least)
    cell = model.image_size[0] // model.latent_shape[1]
    device = restorer.latent.device
    known = latent_inputs(least, clipped, told, cell)
    drawn = model.decode(start + restorer.latent(known.to(device), start.to(device)).to(start.device))
    return torch.where(clipped, torch.maximum(drawn, least).clamp_max(1), least), known


def read_noise(
    model: LatentModel, restorer: Restorer, found: Solution, known: torch.Tensor, plain: torch.Tensor
) -> torch.Tensor:
    """Return the noise estimate of completed images, (B, C, h, w), the mean of two: as they are, and mirrored.

    Parameters
    ----------
    model : LatentModel
    restorer : Restorer
    found : Solution
        Result of the decoder inversion of the completed images.
    known : (B, K, h, w)
        What `complete` knows.
    plain : (B, C, h, w)
        Noise estimate of the images as they are. A share of it is added where little is clipped.
    """
    points = trajectory(model, found.latent, steps=STEPS)
    estimate = points[-1] if model.estimate is None else model.estimate(points)
    device = restorer.noise.device
    read, start = noise_inputs(points, known).to(device), estimate.to(device)
    cell = model.image_size[0] // model.latent_shape[1]
    turned = restorer.noise(mirrored(read, cell), start.flip(-1)).flip(-1)
    corrected = estimate + ((restorer.noise(read, start) + turned) / 2).to(estimate.device)
    clipped = known[:, (known.shape[1] - 2) // 2 : -2].mean(dim=1, keepdim=True)
    return corrected + _PLAIN * (1 - clipped) * plain
