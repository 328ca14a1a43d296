"""Recipe of `landscape-sd`, a text-to-image model: `python -m treering_verify.training.landscape_sd.train --work DIR`.

A `StableDiffusionPipeline` of 256 x 256 landscapes, trained from scratch on procedural scenes and captions of ours:

1. `text`: a byte-level BPE tokenizer of the captions' words, and a small CLIP text encoder that learns to tell a scene's
   attributes from its caption. It is fixed afterwards.
2. `autoencoder`: an `AutoencoderKL` with factor 8, on new scenes in every step.
3. `diffusion`: a `UNet2DConditionModel`, v-prediction, on cached posteriors; some captions are dropped for guidance.
4. `decoder`: the decoder again, alone, on latents with noise, since generated latents are never exact.

Each has a moving average (EMA) of its weights, writes checkpoints atomically under the work folder, and resumes from the
last one. `log.jsonl` there tells losses, held-out losses and processor time. The averages are exported in float16, with a
card. The work folder belongs to one recipe: another number of steps goes on from it, but the latents are not made anew.
"""

from __future__ import annotations

import copy
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextModel

from treering_verify.files import write_atomic
from treering_verify.training.landscape.recipe import recipe_parser
from treering_verify.training.landscape.train import build_scheduler, train_decoder
from treering_verify.training.landscape_sd.autoencoder import draw_images, perceptual_loss, train_autoencoder
from treering_verify.training.landscape_sd.card import card
from treering_verify.training.landscape_sd.diffusion import DiffusionData, cache_latents, scale_of, train_diffusion
from treering_verify.training.landscape_sd.text import build_tokenizer, save_tokenizer, train_text_encoder

TEXT_STEPS, TEXT_BATCH = 500, 64
AUTOENCODER_STEPS, AUTOENCODER_BATCH = 2000, 8
DIFFUSION_STEPS, DIFFUSION_BATCH = 5500, 16
DECODER_STEPS, DECODER_BATCH = 900, 8
SCENES, TEST_SCENES = 6000, 64


def export(
    autoencoder: AutoencoderKL,
    unet: UNet2DConditionModel,
    encoder: CLIPTextModel,
    scale: float,
    work: Path,
    output: Path,
) -> None:
    """Write the pipeline as diffusers reads it (float16 safetensors) and its card; a folder of that name is replaced."""

    def half(part: Any) -> Any:
        return copy.deepcopy(part).to(torch.float16)

    autoencoder = half(autoencoder)
    autoencoder.register_to_config(scaling_factor=scale)
    tokenizer = build_tokenizer()
    pipe = StableDiffusionPipeline(
        vae=autoencoder,
        text_encoder=half(encoder),
        tokenizer=tokenizer,
        unet=half(unet),
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    whole = output.with_name(f".{output.name}.{os.getpid()}.tmp")
    pipe.save_pretrained(whole, safe_serialization=True)
    save_tokenizer(tokenizer, whole / "tokenizer")
    write_atomic(whole / "README.md", card(work, whole).encode())
    if output.exists():
        shutil.rmtree(output)
    whole.replace(output)


def main(argv: list[str] | None = None) -> None:
    """Train all parts and export the model."""
    parser = recipe_parser(__doc__, "checkpoints, caches and the log")
    parser.add_argument("--output", type=Path, help="where to export the model; default WORK/landscape-sd")
    parser.add_argument("--text-steps", type=int, default=TEXT_STEPS)
    parser.add_argument("--autoencoder-steps", type=int, default=AUTOENCODER_STEPS)
    parser.add_argument("--diffusion-steps", type=int, default=DIFFUSION_STEPS)
    parser.add_argument("--decoder-steps", type=int, default=DECODER_STEPS)
    parser.add_argument("--scenes", type=int, default=SCENES, help="scenes that the diffusion network learns")
    parser.add_argument("--batch", type=int, help="images of a step, for trials; default: what each part is made with")
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    work: Path = options.work
    work.mkdir(parents=True, exist_ok=True)
    batch: int | None = options.batch
    encoder = train_text_encoder(work, steps=options.text_steps, batch=batch or TEXT_BATCH)
    autoencoder = train_autoencoder(work, steps=options.autoencoder_steps, batch=batch or AUTOENCODER_BATCH)
    latents = cache_latents(autoencoder, work, "train", options.scenes)
    scale = scale_of(latents)
    held_out = DiffusionData(cache_latents(autoencoder, work, "test", min(TEST_SCENES, options.scenes)), encoder, scale)
    unet = train_diffusion(
        DiffusionData(latents, encoder, scale),
        held_out,
        work,
        steps=options.diffusion_steps,
        batch=batch or DIFFUSION_BATCH,
    )
    train_decoder(
        autoencoder,
        work,
        scale,
        steps=options.decoder_steps,
        batch=batch or DECODER_BATCH,
        draw=draw_images,
        loss=perceptual_loss,
    )
    export(autoencoder, unet, encoder, scale, work, options.output or work / "landscape-sd")


if __name__ == "__main__":
    main()
