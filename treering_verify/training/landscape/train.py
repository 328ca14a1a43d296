"""Recipe of the embedded model: `python -m treering_verify.training.landscape.train --work DIR`.

Trained from scratch on `scenes` and on nothing else; two CPU cores are enough:

* the autoencoder (`AutoencoderKL`, f = 4, 4 channels), on fresh scenes without end, begun as a linear pyramid (`begin`);
* its decoder once more, alone, on latents with noise: generated latents are never exact, and their grain should not show;
* the diffusion model (class-conditional `UNet2DModel`, v-prediction), on cached posteriors of the autoencoder;
* the diffusion model once more, mostly at the times when detail forms: these latents are as red as images are, so what
  makes an edge sharp stands far below the noise for most of the schedule.

Each part keeps an exponential moving average (EMA) of its weights, writes whole checkpoints under the work folder
(temporary file, then rename), and continues from the last one when started again. `export` writes the EMA weights as
float16 safetensors in the layout that diffusers reads.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DModel

from treering_verify.training.landscape.pyramid_start import begin_as_pyramid
from treering_verify.training.landscape.scenes import CLASSES, render

NULL_CLASS = len(CLASSES)  # the class index that means "no condition"
AUTOENCODER_STEPS, AUTOENCODER_BATCH = 2000, 8
DECODER_STEPS, DECODER_NOISE = 500, 0.15  # most noise, in standard deviations of the latents
_CROP, _CROP_SHARE = 64, 0.8  # this share of the autoencoder's steps sees windows of the scenes: 4 times faster
DIFFUSION_STEPS, DIFFUSION_BATCH, DIFFUSION_SCENES = 4000, 16, 8000
DETAIL_STEPS, DETAIL_BATCH = 3000, 32
_DETAIL_TIMES, _DETAIL_SHARE = 0.4, 0.7  # the second time this share of a batch is in the cleanest part of the schedule
_DECODER_FROM = 1_000_000  # seeds of the noise that the decoder is trained with start here
_DETAIL_FROM = 2_000_000  # and those of the diffusion model's second time here
_LATENT_BATCHES_FROM = 10_000_000  # scenes of the diffusion model start at this index of the training stream
_ENCODE_BATCH = 40


def build_autoencoder() -> AutoencoderKL:
    """1.6 M parameters; (B, 3, 128, 128) <-> (B, 4, 32, 32); no attention, so any size that 4 divides works."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        block_out_channels=(32, 64, 96),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        norm_num_groups=1,  # groups of two channels would take out each image's colour (see `begin`)
        sample_size=128,
        mid_block_add_attention=False,
    )


def build_unet() -> UNet2DModel:
    """3.9 M parameters; class-conditional UNet on (B, 4, 32, 32) latents; the last class index is the null class."""
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
    """Stable Diffusion's noise schedule with v-prediction; nothing is clipped, so a step can be undone."""
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


def autocast() -> torch.autocast:
    """bfloat16 where the processor multiplies it in hardware (AMX); elsewhere it is emulated, 3 times *slower*."""
    return torch.autocast("cpu", torch.bfloat16, enabled=torch.cpu._is_amx_tile_supported())


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Warm up over 2 % of the steps, hold until half, then decay to 1 % of the peak along a cosine."""
    warmup, hold = max(1, steps // 50), steps // 2
    if step < warmup:
        return peak * (step + 1) / warmup
    if step < hold:
        return peak
    share = (step - hold) / max(1, steps - hold)
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share)))


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file under its final name only when it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


class Trainer:
    """Model, EMA, optimiser and step count of one part, with resume. `loss_of(step)` gives loss and its parts."""

    def __init__(self, name: str, model: torch.nn.Module, work: Path, *, steps: int, peak: float, decay: float):
        self.name, self.model, self.steps, self.peak = name, model, steps, peak
        self.ema = copy.deepcopy(model).requires_grad_(False)
        self.optimiser = torch.optim.AdamW(model.parameters(), lr=peak, betas=(0.9, 0.99), weight_decay=decay)
        self.checkpoint = work / f"{name}.pt"
        self.step = 0
        if self.checkpoint.exists():
            state = torch.load(self.checkpoint, weights_only=True)
            self.model.load_state_dict(state["model"])
            self.ema.load_state_dict(state["ema"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.step = state["step"]
            print(f"{name}: resuming at step {self.step}", flush=True)

    def save(self) -> None:
        """Write the checkpoint, whole or not at all."""
        state = {
            "model": self.model.state_dict(),
            "ema": self.ema.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
        }
        write_whole(self.checkpoint, lambda path: torch.save(state, path))

    def run(self, loss_of: Callable[[int], dict[str, torch.Tensor]], *, every: int = 50, keep: int = 250) -> None:
        """Train up to the last step, with a log line `every` and a checkpoint each `keep` steps."""
        self.model.train()
        sums: dict[str, float] = {}
        started, first = time.monotonic(), self.step
        while self.step < self.steps:
            rate = learning_rate(self.step, self.steps, self.peak)
            for group in self.optimiser.param_groups:
                group["lr"] = rate
            losses = loss_of(self.step)
            self.optimiser.zero_grad()
            losses["loss"].backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimiser.step()
            self.step += 1
            decay = min(0.999, (1 + self.step) / (10 + self.step))
            with torch.no_grad():
                for average, parameter in zip(self.ema.parameters(), self.model.parameters(), strict=True):
                    average.lerp_(parameter, 1 - decay)
            for key, value in losses.items():
                sums[key] = sums.get(key, 0.0) + float(value.detach())
            if self.step % every == 0:
                seconds = (time.monotonic() - started) / (self.step - first)
                parts = "  ".join(f"{key} {value / every:.4f}" for key, value in sums.items())
                left = seconds * (self.steps - self.step) / 60
                print(
                    f"{self.name} {self.step}/{self.steps}  {parts}  {seconds:.2f} s/step, {left:.0f} min left",
                    flush=True,
                )
                sums = {}
            if self.step % keep == 0 or self.step == self.steps:
                self.save()


def pixel_loss(error: torch.Tensor) -> torch.Tensor:
    """L1 and L2 on pixels (L2 keeps the stars), L1 on gradients, L1 on 8 x 8 means (holds the colours)."""
    edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    colours = F.avg_pool2d(error, 8).abs().mean()
    return error.abs().mean() + 16 * error.pow(2).mean() + edges + 4 * colours


def autoencoder_loss(model: AutoencoderKL, image: torch.Tensor, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Loss of the pixels, and KL; `image` is (B, 3, H, W) in [-1, 1]."""
    with autocast():
        posterior = model.encode(image).latent_dist
        output = model.decode(posterior.sample(generator)).sample
    error = output.float() - image
    kl = posterior.kl().float().mean() / posterior.mean[0].numel()
    loss = pixel_loss(error) + 5e-4 * kl
    return {"loss": loss, "psnr": -10 * torch.log10(error.detach().pow(2).mean() / 4), "kl": kl}


def autoencoder_batch(step: int, steps: int, batch: int, generator: torch.Generator) -> torch.Tensor:
    """Scenes of one step in [-1, 1]: one random window of each, and towards the end half as many, whole."""
    if step >= _CROP_SHARE * steps:
        return render(max(1, batch // 2), stream="train", index=step)[0] * 2 - 1
    image = render(batch, stream="train", index=step)[0] * 2 - 1
    top, left = torch.randint(0, image.shape[-1] - _CROP + 1, (2,), generator=generator).tolist()
    return image[:, :, top : top + _CROP, left : left + _CROP].contiguous()


def train_autoencoder(work: Path, *, steps: int, batch: int) -> AutoencoderKL:
    """Train, or go on training, the first part; returns its EMA."""
    torch.manual_seed(0)
    model = build_autoencoder()
    begin_as_pyramid(model, render(8, stream="train", index=0)[0] * 2 - 1)
    model = model.to(memory_format=torch.channels_last)  # 1.3 times faster than the default layout
    trainer = Trainer("autoencoder", model, work, steps=steps, peak=5e-4, decay=0.0)

    def loss_of(step: int) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(step)
        return autoencoder_loss(trainer.model, autoencoder_batch(step, steps, batch, generator), generator)

    trainer.run(loss_of)
    return trainer.ema.eval()


def train_decoder(autoencoder: AutoencoderKL, work: Path, scale: float, *, steps: int, batch: int) -> AutoencoderKL:
    """Train, or go on training, the decoder on noisy latents, the encoder as it is; leaves its EMA in `autoencoder`.

    Every image has a noise level of its own, from none to `DECODER_NOISE`, so the decoder learns to tell grain from detail.
    """
    autoencoder.requires_grad_(False)
    half = torch.nn.ModuleDict({"decoder": autoencoder.decoder, "post_quant_conv": autoencoder.post_quant_conv})
    trainer = Trainer("decoder", half.requires_grad_(True), work, steps=steps, peak=3e-4, decay=0.0)

    def loss_of(step: int) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(_DECODER_FROM + step)
        image = autoencoder_batch(step, steps, batch, generator)
        level = DECODER_NOISE / scale * torch.rand(len(image), 1, 1, 1, generator=generator)
        with torch.no_grad(), autocast():
            latent = autoencoder.encode(image).latent_dist.mean
        with autocast():
            output = autoencoder.decode(latent + level * torch.randn(latent.shape, generator=generator)).sample
        error = output.float() - image
        return {"loss": pixel_loss(error), "psnr": -10 * torch.log10(error.detach().pow(2).mean() / 4)}

    trainer.run(loss_of)
    half.load_state_dict(trainer.ema.state_dict())
    return autoencoder.eval()


@torch.no_grad()
def cache_posteriors(autoencoder: AutoencoderKL, work: Path, scenes: int) -> dict[str, torch.Tensor]:
    """Mean and log-variance of `scenes` training latents, float16, kept under the work folder."""
    path = work / "posteriors.pt"
    if path.exists():
        return torch.load(path, weights_only=True)
    moments, labels = [], []
    for i in range(scenes // _ENCODE_BATCH):
        image, label = render(_ENCODE_BATCH, stream="train", index=_LATENT_BATCHES_FROM + i)
        with autocast():
            posterior = autoencoder.encode(image * 2 - 1).latent_dist
        moments.append(torch.cat([posterior.mean, posterior.logvar], dim=1).half())
        labels.append(label)
        if i % 50 == 0:
            print(f"posteriors {i * _ENCODE_BATCH}/{scenes}", flush=True)
    cache = {"moments": torch.cat(moments), "labels": torch.cat(labels)}
    write_whole(path, lambda temporary: torch.save(cache, temporary))
    return cache


def detail_times(u: torch.Tensor) -> torch.Tensor:
    """Map uniform numbers of [0, 1) to times of [0, 1), `_DETAIL_SHARE` of them under `_DETAIL_TIMES`."""
    early = u * (_DETAIL_TIMES / _DETAIL_SHARE)
    late = 1 - (1 - u) * ((1 - _DETAIL_TIMES) / (1 - _DETAIL_SHARE))
    return torch.where(u < _DETAIL_SHARE, early, late)


def draw_latents(
    cache: dict[str, torch.Tensor], scale: float, batch: int, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw latents (batch, C, h, w) from cached posteriors, and their labels, of which `drop_labels` takes some away."""
    pick = torch.randint(0, len(cache["labels"]), (batch,), generator=generator)
    mean, logvar = cache["moments"][pick].float().chunk(2, dim=1)
    z = (mean + torch.exp(0.5 * logvar) * torch.randn(mean.shape, generator=generator)) * scale
    return z, drop_labels(cache["labels"][pick], generator)


def drop_labels(labels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Put the null class in the place of 15 % of the labels."""
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
    """Mean squared error of the velocity v = sqrt(a) eps - sqrt(1 - a) z (Salimans and Ho, arXiv 2202.00512)."""
    g = torch.Generator().manual_seed(step)
    z, y = draw_latents(cache, scale, batch, g)
    t = (times(draw_times(batch, g)) * len(alphas)).long()
    a = alphas[t].view(-1, 1, 1, 1)
    noise = torch.randn(z.shape, generator=g)
    with autocast():
        predicted = model(a.sqrt() * z + (1 - a).sqrt() * noise, t, class_labels=y).sample
    return {"loss": F.mse_loss(predicted.float(), a.sqrt() * noise - (1 - a).sqrt() * z)}


def train_diffusion(autoencoder: AutoencoderKL, work: Path, *, steps: int, batch: int, scenes: int) -> UNet2DModel:
    """Train, or go on training, the second part; returns its EMA."""
    cache = cache_posteriors(autoencoder, work, scenes)
    scale = latent_scale(cache)
    alphas = build_scheduler().alphas_cumprod
    torch.manual_seed(1)
    trainer = Trainer("diffusion", build_unet(), work, steps=steps, peak=5e-4, decay=0.01)
    trainer.run(lambda step: diffusion_loss(trainer.model, cache, scale, alphas, step, batch))
    return trainer.ema.eval()


def train_detail(
    unet: UNet2DModel, cache: dict[str, torch.Tensor], work: Path, *, steps: int, batch: int
) -> UNet2DModel:
    """Train, or go on training, the second part once more, mostly at `detail_times`; returns its EMA."""
    scale, alphas = latent_scale(cache), build_scheduler().alphas_cumprod
    model = copy.deepcopy(unet).requires_grad_(True).to(memory_format=torch.channels_last)  # 1.2 times faster
    trainer = Trainer("detail", model, work, steps=steps, peak=5e-4, decay=0.01)
    trainer.run(
        lambda step: diffusion_loss(trainer.model, cache, scale, alphas, _DETAIL_FROM + step, batch, detail_times)
    )
    return trainer.ema.eval()


def latent_scale(cache: dict[str, torch.Tensor]) -> float:
    """Factor that gives the latents unit standard deviation, posterior noise included."""
    mean, logvar = cache["moments"].float().chunk(2, dim=1)
    return float((mean.var() + logvar.exp().mean()).rsqrt())


def export(autoencoder: AutoencoderKL, unet: UNet2DModel, scale: float, output: Path) -> None:
    """Write weights and configurations as diffusers reads them (float16 safetensors)."""
    autoencoder = copy.deepcopy(autoencoder)
    autoencoder.register_to_config(scaling_factor=scale)
    index: dict[str, Any] = {
        "_class_name": "LandscapePipeline",
        "_diffusers_version": "0.42.1",
        "classes": list(CLASSES),
    }
    for name, part in (("scheduler", build_scheduler()), ("unet", unet), ("vae", autoencoder)):
        (part if name == "scheduler" else part.to(torch.float16)).save_pretrained(output / name)
        index[name] = ["diffusers", type(part).__name__]
    text = json.dumps(index, indent=2) + "\n"
    write_whole(output / "model_index.json", lambda path: path.write_text(text))


def recipe_parser(description: str | None, keeps: str, part: str = "") -> argparse.ArgumentParser:
    """Options that recipes share; `part` is the subfolder that a recipe adds to a model which is there already."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help=f"folder of {keeps}")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    if part:
        parser.add_argument("--model", default="landscape", help=f"folder of the model that gets {part}/")
        parser.add_argument("--output", type=Path, help=f"model folder to write {part}/ into; default WORK")
    return parser


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
