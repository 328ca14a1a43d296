"""Training images of the recipes: latents that the model generates, and attacked 8-bit images."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from treering_verify.attacks import Attack
from treering_verify.generation.generator import initial_noise
from treering_verify.media.conversion import to_tensor
from treering_verify.models import LatentModel
from treering_verify.models.sampling import denoise

if TYPE_CHECKING:
    from PIL import Image

_STEPS = 20


def generate_latents(model: LatentModel, seeds: Sequence[int], guidance: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the initial noise of seeds and the latents generated from it in 20 steps, all classes in turn."""
    noise = initial_noise(model.latent_shape, seeds)
    classes = [model.classes[seed % len(model.classes)] for seed in seeds]
    return noise, denoise(model, noise, steps=_STEPS, conditions=classes, guidance=guidance)


def draw_attack(generator: random.Random) -> Attack | None:
    """Draw an attack: none for a third of the images, a codec for another third, the rest at random."""
    roll = generator.random()
    if roll < 0.35:
        return None
    if roll < 0.65:
        return Attack("jpeg", {"quality": 10 + int(85 * generator.random() ** 1.5)})  # half of them below 40
    if roll < 0.72:
        return Attack("webp", {"quality": generator.randint(10, 90)})
    if roll < 0.82:
        return Attack("noise", {"sigma": generator.uniform(0.01, 0.1)})
    if roll < 0.90:
        return Attack("blur", {"radius": generator.uniform(0.5, 3.0)})
    if roll < 0.96:
        return Attack("resize", {"share": generator.uniform(0.4, 0.9)})
    return Attack("brightness", {"factor": generator.uniform(0.6, 1.5)})


def attack_images(images: Sequence[Image.Image], generator: random.Random, seeds: Sequence[int]) -> torch.Tensor:
    """Apply an attack that is drawn for each image; return the results as (n, 3, H, W) in [-1, 1]."""
    attacks = [draw_attack(generator) for _ in images]
    triples = zip(images, attacks, seeds, strict=True)
    return torch.cat([to_tensor(attack.apply(image, seed=s) if attack else image) for image, attack, s in triples])
