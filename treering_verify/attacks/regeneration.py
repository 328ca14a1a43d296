"""Attacks that need a model: regeneration by its autoencoder or its diffusion, and an adversarial change.

Each is a function ``(images, model, *, parameters, seeds) -> images`` on a batch, (B, 3, H, W) float32 in [-1, 1], with one
seed per image. Images of another size than the model's are stretched to it before and to their own size afterwards: they
become softer, but are never cropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from treering_verify.models.protocol import LatentModel
from treering_verify.models.sampling import step

if TYPE_CHECKING:
    import torch


def regenerate_vae(images: torch.Tensor, model: LatentModel, *, repeats: int = 1, seeds: Sequence[int]) -> torch.Tensor:
    """Encode and decode with the model's autoencoder, `repeats` times, in [-1, 1] in between.

    Regeneration without a diffusion step (Zhao et al., arXiv 2306.01953). An autoencoder other than the generating one is
    the harder test: `landscape-tiny` for images of `landscape`.
    """
    import torch

    with torch.inference_mode():
        x = scaled(images, model.image_size)
        for _ in range(repeats):
            x = model.decode(model.encode(x)).clamp(-1.0, 1.0)
        return scaled(x, images.shape[-2:]) if repeats else images


def regenerate_diffusion(
    images: torch.Tensor, model: LatentModel, *, strength: float = 0.3, steps: int = 20, seeds: Sequence[int]
) -> torch.Tensor:
    """Encode, add noise up to a point of the model's own grid, and denoise from there without a prompt; decode.

    z_t = signal_t E(x) + sigma_t n, n ~ N(0, I) from the image's seed, and t the grid's point number
    strength x steps, rounded, from the clean end (Zhao et al., arXiv 2306.01953). Strength 0 leaves the autoencoder's
    round trip; 1 starts from the noisiest point, which leaves as little of the image as the grid allows.
    """
    import torch

    rounds = round(strength * steps)
    with torch.inference_mode():
        z = model.encode(scaled(images, model.image_size))
        if rounds:
            grid = model.timesteps(steps)[steps - rounds :]
            noise = fresh_noise(z.shape[1:], seeds).to(z)
            z = grid[0].signal * z + grid[0].sigma * noise
            for start, end in pairwise(grid):
                z = step(model, z, start, end, [None] * len(z))
        return scaled(model.decode(z).clamp(-1.0, 1.0), images.shape[-2:])


def adversarial(
    images: torch.Tensor, model: LatentModel, *, budget: int = 4, steps: int = 20, seeds: Sequence[int]
) -> torch.Tensor:
    """Change each value by at most `budget` grey levels, so that the encoder's latent moves as far as possible.

    The attacker has the autoencoder, but neither the key nor the detector: projected gradient ascent on
    |E(x') - E(x)|^2 within |x' - x| <= budget, by signs of the gradient, from a random start that the seed draws, in steps
    of 2.5 x budget / steps; then rounded to whole grey levels, which keeps the bound. The same idea as the
    adversarial embedding attacks of An et al. (WAVES, arXiv 2401.08573).
    """
    import torch

    if not budget or not steps:
        return images
    levels = ((images + 1.0) * 127.5).round()
    start = [torch.rand(images.shape[1:], generator=torch.Generator().manual_seed(s)) for s in seeds]
    change = (2.0 * torch.stack(start).to(images) - 1.0) * budget
    with torch.no_grad():
        truth = model.encode(scaled(images, model.image_size))
    for _ in range(steps):
        change.requires_grad_(True)
        changed = (levels + change).clamp(0.0, 255.0) / 127.5 - 1.0
        distance = (model.encode(scaled(changed, model.image_size)) - truth).square().sum()
        (gradient,) = torch.autograd.grad(distance, change)
        change = (change.detach() + 2.5 * budget / steps * gradient.sign()).clamp(-float(budget), float(budget))
    return (levels + change).round().clamp(0.0, 255.0) / 127.5 - 1.0


def scaled(images: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Stretch (B, 3, H, W) to `size` (height, width), bicubic and antialiased; the same tensor if it has that size."""
    from torch.nn.functional import interpolate

    if tuple(images.shape[-2:]) == tuple(size):
        return images
    return interpolate(images, tuple(size), mode="bicubic", antialias=True)


def fresh_noise(shape: Sequence[int], seeds: Sequence[int]) -> torch.Tensor:
    """Draw unit-normal noise (B, *shape), one generator per seed, so that an image does not depend on its batch."""
    import torch

    return torch.stack([torch.randn(tuple(shape), generator=torch.Generator().manual_seed(s)) for s in seeds])
