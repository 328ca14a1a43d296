"""Seconds and memory of the whole main job at a released model's shapes, with random weights.

    python tests/helpers/real_shapes.py stable-diffusion-2.1 --steps 10
    python tests/helpers/real_shapes.py lavie --steps 2

generates a marked image or video, verifies it and, with --fit N, fits the inversion to N images. Weights are random, so what
is found says nothing; time and memory do not depend on them. --shrink N divides the widths, to try the script itself.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from typing import Any

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

import treering_verify as tv
from helpers.pipelines import clip_tokenizer, diffusion_scheduler
from treering_verify.inversion.recovery import InversionOptions
from treering_verify.models import from_pipeline

_DOWN = ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",)
_UP = ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3


def pipeline(name: str, shrink: int) -> Any:
    """Return a pipeline of the shapes of Stable Diffusion 2.1 (768 pixels), or of LaVie's base model."""
    from treering_verify.models.diffusers.kinds.lavie_network import LaVieUNet, VideoGenPipeline

    lavie = name == "lavie"
    width, layers = (768, 12) if lavie else (1024, 23)
    network = (LaVieUNet if lavie else UNet2DConditionModel)(
        sample_size=64 if lavie else 96,
        block_out_channels=tuple(n // shrink for n in (320, 640, 1280, 1280)),
        down_block_types=_DOWN,
        up_block_types=_UP,
        cross_attention_dim=width // shrink,
        attention_head_dim=8 if lavie else (5, 10, 20, 20),
        use_linear_projection=not lavie,
        norm_num_groups=32 // shrink,
    )
    vae = AutoencoderKL(
        block_out_channels=tuple(n // shrink for n in (128, 256, 512, 512)),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=4,
        norm_num_groups=32 // shrink,
    )
    text = CLIPTextConfig(
        vocab_size=49408, hidden_size=width // shrink, intermediate_size=4 * width // shrink, num_hidden_layers=layers
    )
    parts = {
        "vae": vae.eval(),
        "text_encoder": CLIPTextModel(text).eval(),
        "tokenizer": clip_tokenizer(),
        "unet": network.eval(),
        "scheduler": diffusion_scheduler("epsilon" if lavie else "v_prediction"),
    }
    if lavie:
        return VideoGenPipeline(**parts)
    return StableDiffusionPipeline(**parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False)


def timed(what: str, job: Callable[[], Any]) -> Any:
    """Run a job, and print its seconds and the largest memory of the process so far."""
    start = time.perf_counter()
    found = job()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{what}: {time.perf_counter() - start:.1f} s, at most {peak:.2f} GiB so far", flush=True)
    return found


def main() -> None:
    """Parse the command line and run the job."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=("stable-diffusion-2.1", "lavie"))
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--fit", type=int, default=0)
    parser.add_argument("--shrink", type=int, default=1)
    given = parser.parse_args()
    torch.manual_seed(0)
    pipe = timed("build", lambda: pipeline(given.name, given.shrink))
    model = timed("model", lambda: from_pipeline(pipe))
    print(f"{model.name}: noise {model.latent_shape}, images {model.image_size}, {torch.get_num_threads()} threads")
    key = tv.Key.generate(model.latent_shape, seed=1)
    make: Any = tv.generation.generate_videos if given.name == "lavie" else tv.generate
    made = timed(
        f"generate, {given.steps} steps",
        lambda: next(iter(make(model, key, seeds=[1], prompts=["a"], steps=given.steps))),
    )
    for method in ("encoder", "auto"):
        options = InversionOptions(method=method, steps=given.steps)
        shown = made.frames if given.name == "lavie" else made.image
        (verdict,) = timed(
            f"verify, {method}, {given.steps} steps",
            lambda shown=shown, options=options: list(
                tv.detection.verify_many([shown], key, model=model, inversion=options, search=None)
            ),
        )
        print(
            f"  log10 p {verdict.log10_pvalue:.1f}" if hasattr(verdict, "log10_pvalue") else f"  p {verdict.pvalue:.3g}"
        )
    if given.fit:
        from treering_verify.training import FitOptions, fit

        timed(
            f"fit, {given.fit} images",
            lambda: fit(model, options=FitOptions(images=given.fit, generation_steps=given.steps)),
        )


if __name__ == "__main__":
    main()
