"""Recipe of the embedded model: `python -m treering_verify.training.landscape.train --work DIR`.

Trained from scratch on `scenes` alone; two CPU cores suffice:

* the autoencoder (`AutoencoderKL`, f = 4, 4 channels), on new scenes in every step, starting as a linear pyramid
  (`pyramid_start`);
* its decoder again, alone, on latents with noise, since generated latents are never exact and their grain should not show;
* the diffusion model (class-conditional `UNet2DModel`, v-prediction), on cached posteriors of the autoencoder;
* the diffusion model again, mostly at the times when detail forms: the spectrum of these latents falls as that of images
  does, so the frequencies of an edge are far below the noise for most of the schedule.

Each part has an exponential moving average (EMA) of its weights, writes checkpoints atomically under the work folder, and
resumes from the last one. `export` writes the EMA weights as float16 safetensors in the layout that diffusers reads.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DModel

from treering_verify.training.example_store import ExampleStore
from treering_verify.training.landscape.pyramid_start import begin_as_pyramid
from treering_verify.training.landscape.recipe import autocast, export_pipeline, pixel_loss, psnr, recipe_parser
from treering_verify.training.landscape.scenes import CLASSES, render
from treering_verify.training.trainer import Trainer

NULL_CLASS = len(CLASSES)  # the class index of "no condition"
AUTOENCODER_STEPS, AUTOENCODER_BATCH = 2000, 8
DECODER_STEPS, DECODER_NOISE = 500, 0.15  # most noise, in standard deviations of the latents
_CROP, _CROP_SHARE = 64, 0.8  # this share of the autoencoder's steps has crops of the scenes, which is 4 times faster
DIFFUSION_STEPS, DIFFUSION_BATCH, DIFFUSION_SCENES = 4000, 16, 8000
DETAIL_STEPS, DETAIL_BATCH = 3000, 32
_DETAIL_TIMES, _DETAIL_SHARE = (
    0.4,
    0.7,
)  # this share of a batch is in the cleanest part of the schedule
_DECODER_FROM = 1_000_000  # seeds of the noise that the decoder is trained with start here
_DETAIL_FROM = 2_000_000  # and those of the diffusion model's second training here
_LATENT_BATCHES_FROM = 10_000_000  # scenes of the diffusion model start at this index of the training stream
_ENCODE_BATCH = 40


def build_autoencoder() -> AutoencoderKL:
    """Return an untrained autoencoder of 1.6 M parameters; (B, 3, 128, 128) <-> (B, 4, 32, 32); any size that 4 divides."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        block_out_channels=(32, 64, 96),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        norm_num_groups=1,  # groups of two channels would take out each image's colour (see `pyramid_start`)
        sample_size=128,
        mid_block_add_attention=False,
    )


def build_unet() -> UNet2DModel:
    """Return an untrained class-conditional UNet of 3.9 M parameters on (B, 4, 32, 32) latents; last class: no condition."""
    return UNet2DModel(
        sample_size=32,
        in_channels=4,
        out_channels=4,
        layers_per_block=2,
        block_out_channels=(32, 64, 128),
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        num_class_embeds=len(CLASSES) + 1,
        attention_head_dim=32,
        norm_num_groups=16,
    )


def build_scheduler() -> DDIMScheduler:
    """Return Stable Diffusion's noise schedule with v-prediction, without clipping, so that a step can be inverted."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="v_prediction",
    )


def autoencoder_loss(model: AutoencoderKL, image: torch.Tensor, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Return the loss of pixels and KL divergence; `image` is (B, 3, H, W) in [-1, 1]."""
    with autocast():
        posterior = model.encode(image).latent_dist
        output = model.decode(posterior.sample(generator)).sample
    error = output.float() - image
    kl = posterior.kl().float().mean() / posterior.mean[0].numel()
    loss = pixel_loss(error) + 5e-4 * kl
    return {"loss": loss, "psnr": psnr(error), "kl": kl}


def autoencoder_batch(step: int, steps: int, batch: int, generator: torch.Generator) -> torch.Tensor:
    """Return the scenes of one step in [-1, 1]: one random crop of each, and towards the end half as many whole scenes."""
    if step >= _CROP_SHARE * steps:
        return render(max(1, batch // 2), stream="train", index=step)[0] * 2 - 1
    image = render(batch, stream="train", index=step)[0] * 2 - 1
    top, left = torch.randint(0, image.shape[-1] - _CROP + 1, (2,), generator=generator).tolist()
    return image[:, :, top : top + _CROP, left : left + _CROP].contiguous()


def train_autoencoder(work: Path, *, steps: int, batch: int) -> AutoencoderKL:
    """Train the autoencoder, or resume, and return the EMA."""
    torch.manual_seed(0)
    model = build_autoencoder()
    begin_as_pyramid(model, render(8, stream="train", index=0)[0] * 2 - 1)
    model = model.to(memory_format=torch.channels_last)  # 1.3 times faster than the default layout
    trainer = Trainer("autoencoder", model, work, steps=steps, peak=5e-4, decay=0.0)

    def loss_of(step: int) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(step)
        return autoencoder_loss(trainer.model, autoencoder_batch(step, steps, batch, generator), generator)

    trainer.run(loss_of)
    return trainer.model


def train_decoder(
    autoencoder: AutoencoderKL,
    work: Path,
    scale: float,
    *,
    steps: int,
    batch: int,
    draw: Callable[[int, int, int, torch.Generator], torch.Tensor] = autoencoder_batch,
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = lambda output, image: pixel_loss(output - image),
) -> AutoencoderKL:
    """Train the decoder on noisy latents, or resume, with the encoder fixed; the decoder's weights become the EMA.

    Every image has its own noise level, from 0 to `DECODER_NOISE`, so that the decoder learns to tell grain from detail.
    `draw` and `loss` stand for the scenes of a step (step, steps, batch, generator) and the loss of (output, image).
    """
    autoencoder.requires_grad_(False)
    half = torch.nn.ModuleDict({"decoder": autoencoder.decoder, "post_quant_conv": autoencoder.post_quant_conv})
    trainer = Trainer("decoder", half.requires_grad_(True), work, steps=steps, peak=3e-4, decay=0.0)

    def loss_of(step: int) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(_DECODER_FROM + step)
        image = draw(step, steps, batch, generator)
        level = DECODER_NOISE / scale * torch.rand(len(image), 1, 1, 1, generator=generator)
        with torch.no_grad(), autocast():
            latent = autoencoder.encode(image).latent_dist.mean
        with autocast():
            output = autoencoder.decode(latent + level * torch.randn(latent.shape, generator=generator)).sample.float()
        return {"loss": loss(output, image), "psnr": psnr(output - image)}

    trainer.run(loss_of)
    return autoencoder.eval()


def cache_posteriors(autoencoder: AutoencoderKL, work: Path, scenes: int) -> dict[str, torch.Tensor]:
    """Return mean and log-variance of `scenes` training latents, float16, cached under the work folder."""

    @torch.no_grad()
    def compute() -> dict[str, torch.Tensor]:
        moments, labels = [], []
        for i in range(scenes // _ENCODE_BATCH):
            image, label = render(_ENCODE_BATCH, stream="train", index=_LATENT_BATCHES_FROM + i)
            with autocast():
                posterior = autoencoder.encode(image * 2 - 1).latent_dist
            moments.append(torch.cat([posterior.mean, posterior.logvar], dim=1).half())
            labels.append(label)
            if i % 50 == 0:
                print(f"posteriors {i * _ENCODE_BATCH}/{scenes}", flush=True)
        return {"moments": torch.cat(moments), "labels": torch.cat(labels)}

    return ExampleStore(work).get("posteriors", compute)


def detail_times(u: torch.Tensor) -> torch.Tensor:
    """Map uniform numbers of [0, 1) to times of [0, 1), `_DETAIL_SHARE` of them under `_DETAIL_TIMES`."""
    early = u * (_DETAIL_TIMES / _DETAIL_SHARE)
    late = 1 - (1 - u) * ((1 - _DETAIL_TIMES) / (1 - _DETAIL_SHARE))
    return torch.where(u < _DETAIL_SHARE, early, late)


def draw_latents(
    cache: dict[str, torch.Tensor], scale: float, batch: int, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw latents (batch, C, h, w) from cached posteriors, and their labels after `drop_labels`."""
    pick = torch.randint(0, len(cache["labels"]), (batch,), generator=generator)
    mean, logvar = cache["moments"][pick].float().chunk(2, dim=1)
    z = (mean + torch.exp(0.5 * logvar) * torch.randn(mean.shape, generator=generator)) * scale
    return z, drop_labels(cache["labels"][pick], generator)


def drop_labels(labels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Replace 15 % of the labels by "no condition"."""
    return torch.where(torch.rand(len(labels), generator=generator) < 0.15, NULL_CLASS, labels)


def draw_times(count: int, generator: torch.Generator) -> torch.Tensor:
    """Draw times of [0, 1), one in each 1 / count of the range, which lowers the variance of the gradient."""
    return (torch.arange(count) + torch.rand(count, generator=generator)) / count


def diffusion_loss(
    model: UNet2DModel,
    cache: dict[str, torch.Tensor],
    scale: float,
    alphas: torch.Tensor,
    step: int,
    batch: int,
    times: Callable[[torch.Tensor], torch.Tensor] = lambda u: u,
) -> dict[str, torch.Tensor]:
    """Return the mean squared error of the velocity v = sqrt(a) eps - sqrt(1 - a) z (Salimans and Ho, arXiv 2202.00512)."""
    g = torch.Generator().manual_seed(step)
    z, y = draw_latents(cache, scale, batch, g)
    t = (times(draw_times(batch, g)) * len(alphas)).long()
    a = alphas[t].view(-1, 1, 1, 1)
    noise = torch.randn(z.shape, generator=g)
    with autocast():
        predicted = model(a.sqrt() * z + (1 - a).sqrt() * noise, t, class_labels=y).sample
    return {"loss": F.mse_loss(predicted.float(), a.sqrt() * noise - (1 - a).sqrt() * z)}


def train_diffusion(autoencoder: AutoencoderKL, work: Path, *, steps: int, batch: int, scenes: int) -> UNet2DModel:
    """Train the diffusion model, or resume, and return the EMA."""
    cache = cache_posteriors(autoencoder, work, scenes)
    scale = latent_scale(cache)
    alphas = build_scheduler().alphas_cumprod
    torch.manual_seed(1)
    trainer = Trainer("diffusion", build_unet(), work, steps=steps, peak=5e-4, decay=0.01)
    trainer.run(lambda step: diffusion_loss(trainer.model, cache, scale, alphas, step, batch))
    return trainer.model


def train_detail(
    unet: UNet2DModel, cache: dict[str, torch.Tensor], work: Path, *, steps: int, batch: int
) -> UNet2DModel:
    """Train the diffusion model again, or resume, mostly at `detail_times`; return the EMA."""
    scale, alphas = latent_scale(cache), build_scheduler().alphas_cumprod
    model = copy.deepcopy(unet).requires_grad_(True).to(memory_format=torch.channels_last)  # 1.2 times faster
    trainer = Trainer("detail", model, work, steps=steps, peak=5e-4, decay=0.01)
    trainer.run(
        lambda step: diffusion_loss(trainer.model, cache, scale, alphas, _DETAIL_FROM + step, batch, detail_times)
    )
    return trainer.model


def latent_scale(cache: dict[str, torch.Tensor]) -> float:
    """Return the factor that gives the latents unit standard deviation, posterior noise included."""
    mean, logvar = cache["moments"].float().chunk(2, dim=1)
    return float((mean.var() + logvar.exp().mean()).rsqrt())


def export(autoencoder: AutoencoderKL, unet: UNet2DModel, scale: float, output: Path) -> None:
    """Write weights and configurations as diffusers reads them (float16 safetensors)."""
    autoencoder = copy.deepcopy(autoencoder)
    autoencoder.register_to_config(scaling_factor=scale)
    export_pipeline("LandscapePipeline", {"scheduler": build_scheduler(), "unet": unet, "vae": autoencoder}, output)


def main(argv: list[str] | None = None) -> None:
    """Train all parts and export the model."""
    parser = recipe_parser(__doc__, "checkpoints and caches")
    parser.add_argument("--output", type=Path, help="where to export the model; default WORK/landscape")
    parser.add_argument("--autoencoder-steps", type=int, default=AUTOENCODER_STEPS)
    parser.add_argument("--decoder-steps", type=int, default=DECODER_STEPS)
    parser.add_argument("--diffusion-steps", type=int, default=DIFFUSION_STEPS)
    parser.add_argument("--detail-steps", type=int, default=DETAIL_STEPS)
    parser.add_argument("--scenes", type=int, default=DIFFUSION_SCENES, help="scenes that the diffusion model learns")
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    work: Path = options.work
    autoencoder = train_autoencoder(work, steps=options.autoencoder_steps, batch=AUTOENCODER_BATCH)
    unet = train_diffusion(
        autoencoder, work, steps=options.diffusion_steps, batch=DIFFUSION_BATCH, scenes=options.scenes
    )
    cache = cache_posteriors(autoencoder, work, options.scenes)
    unet = train_detail(unet, cache, work, steps=options.detail_steps, batch=DETAIL_BATCH)
    scale = latent_scale(cache)
    train_decoder(autoencoder, work, scale, steps=options.decoder_steps, batch=AUTOENCODER_BATCH)
    export(autoencoder, unet, scale, options.output or work / "landscape")


if __name__ == "__main__":
    main()
