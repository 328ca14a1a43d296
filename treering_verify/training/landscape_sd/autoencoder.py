"""The autoencoder of `landscape-sd`: factor 8, four latent channels, trained from a linear pyramid on scenes alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL

from treering_verify.training.landscape.pyramid_start import begin_as_pyramid
from treering_verify.training.landscape.recipe import autocast, psnr
from treering_verify.training.landscape_sd.scenes import SIZE, render
from treering_verify.training.trainer import Trainer

_CROP, _CROP_SHARE = 128, 0.85  # this share of the steps has crops of the scenes, which cost a fourth
_KL = 5e-4
_GREY = (0.3, 0.55, 0.15)
_HELD_OUT = 8


def build_autoencoder() -> AutoencoderKL:
    """Return an untrained autoencoder of 1.6 M parameters; (B, 3, 256, 256) <-> (B, 4, 32, 32); any size that 8 divides."""
    return AutoencoderKL(
        latent_channels=4,
        block_out_channels=(16, 32, 64, 96),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        norm_num_groups=1,  # see `pyramid_start`
        sample_size=SIZE,
        mid_block_add_attention=False,
    )


def perceptual_loss(output: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """Return a loss of images in [-1, 1]: L1 and L2, L1 of gradients at three scales, and 1 - SSIM of grey at two.

    SSIM is that of Wang et al. (IEEE Transactions on Image Processing 13(4), 2004), on windows of 7 x 7.
    """
    error = output - image
    total = error.abs().mean() + 4 * error.square().mean()
    for scale in (1, 2, 4):
        at = F.avg_pool2d(error, scale) if scale > 1 else error
        total = total + at.diff(dim=-1).abs().mean() + at.diff(dim=-2).abs().mean()
    mix = torch.tensor(_GREY).view(1, 3, 1, 1)
    a, b = (((some + 1) / 2 * mix).sum(dim=1, keepdim=True) for some in (output, image))
    for scale in (1, 2):
        total = total + 0.15 * (1 - ssim(F.avg_pool2d(a, scale), F.avg_pool2d(b, scale)))
    return total


def ssim(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return the mean structural similarity of grey images in [0, 1], (B, 1, H, W)."""
    mean_a, mean_b, square_a, square_b, product = F.avg_pool2d(
        torch.cat([a, b, a * a, b * b, a * b], dim=1), 7, 1
    ).split(1, dim=1)
    covariance = product - mean_a * mean_b
    variances = square_a + square_b - mean_a**2 - mean_b**2
    similar = (2 * mean_a * mean_b + 1e-4) * (2 * covariance + 9e-4)
    return (similar / ((mean_a**2 + mean_b**2 + 1e-4) * (variances + 9e-4))).mean()


def draw_images(step: int, steps: int, batch: int, generator: torch.Generator) -> torch.Tensor:
    """Return the images of one step in [-1, 1]: two crops of each scene, and towards the end fewer, whole scenes."""
    if step >= _CROP_SHARE * steps:
        return render(max(1, batch // 4), stream="train", index=step)[0] * 2 - 1
    scenes = render(max(1, batch // 2), stream="train", index=step)[0] * 2 - 1
    crops = []
    for scene in scenes.repeat(2, 1, 1, 1)[:batch]:
        top, left = torch.randint(0, SIZE - _CROP + 1, (2,), generator=generator).tolist()
        crops.append(scene[:, top : top + _CROP, left : left + _CROP])
    return torch.stack(crops)


def coding_loss(model: Any, image: torch.Tensor, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Return the loss of images in [-1, 1] that an autoencoder codes and decodes, with the KL divergence."""
    with autocast():
        posterior = model.encode(image.contiguous(memory_format=torch.channels_last)).latent_dist
        output = model.decode(posterior.sample(generator)).sample.float()
    kl = posterior.kl().float().mean() / posterior.mean[0].numel()
    return {"loss": perceptual_loss(output, image) + _KL * kl, "psnr": psnr(output - image), "kl": kl}


@torch.no_grad()
def held_out_psnr(model: Any) -> dict[str, torch.Tensor]:
    """Return PSNR and loss of eight test scenes, mean of the posterior decoded, in float32."""
    image = render(_HELD_OUT, stream="test", index=0)[0] * 2 - 1
    output = torch.cat([model.decode(model.encode(some).latent_dist.mean).sample for some in image.split(1)])
    each = torch.stack([psnr(error) for error in output - image])
    return {"psnr": each.mean(), "worst psnr": each.min(), "loss": perceptual_loss(output, image)}


def train_autoencoder(work: Path, *, steps: int, batch: int) -> AutoencoderKL:
    """Train the autoencoder, or resume, and return the EMA."""
    torch.manual_seed(0)
    model = build_autoencoder()
    begin_as_pyramid(model, render(8, stream="train", index=0)[0] * 2 - 1)
    trainer = Trainer(
        "autoencoder", model.to(memory_format=torch.channels_last), work, steps=steps, peak=5e-4, decay=0.0
    )

    def loss_of(step: int) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(step)
        return coding_loss(trainer.model, draw_images(step, steps, batch, generator), generator)

    trainer.run(loss_of, held_out=held_out_psnr)
    return trainer.model
