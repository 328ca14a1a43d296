"""Seconds and memory of the whole main job at a released model's shapes, with random weights.

    python tests/helpers/models/real_shapes.py stable-diffusion-2.1 --steps 10
    python tests/helpers/models/real_shapes.py lavie --steps 2

generates a marked image or video, verifies it and, with --fit N, fits the inversion to N images. Weights are random, so what
is found says nothing; time and memory do not depend on them. --passes times one pass of each network first, to tell how long
the rest will take, and ends there. --shrink N divides the widths, to try the script itself.
"""

from __future__ import annotations

import argparse
import os
import resource
import time
from collections.abc import Callable
from typing import Any

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

import treering_verify as tv
from helpers.models.pipelines import clip_tokenizer, diffusion_scheduler
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
    """Run a job, and print its seconds, by the clock and of processors, and the largest memory of the process so far."""
    start, before = time.perf_counter(), time.process_time()
    found = job()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    spent = f"{time.perf_counter() - start:.1f} s ({time.process_time() - before:.1f} s of processors)"
    print(f"{what}: {spent}, at most {peak:.2f} GiB so far", flush=True)
    return found


def one_pass(model: Any) -> None:
    """Time one pass of each network."""
    with torch.inference_mode():
        height, width = model.image_size
        planes = 3 * (getattr(model, "frames", None) or 1)
        z = timed("encoder", lambda: model.encode(torch.zeros(1, planes, height, width)))
        timed("decoder", lambda: model.decode(z))
        at = model.timesteps(2)[0]
        timed("network", lambda: model.denoise(torch.randn(1, *model.latent_shape), at, [None]))


def main() -> None:
    """Parse the command line and run the job."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=("stable-diffusion-2.1", "lavie"))
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--guidance", type=float, default=2.0)
    parser.add_argument("--size", type=int, help="side of the images in pixels; default: the model's own")
    parser.add_argument("--frames", type=int, help="frames of the video; default: the model's own")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16"), default="float32", help="of network and text encoder"
    )
    parser.add_argument("--passes", action="store_true", help="time one pass of each network, and end")
    parser.add_argument("--fit", type=int, default=0, help="images to fit to, 8 or more")
    parser.add_argument("--experts", type=int, help="how many kinds of attacks the fit is for; default: all")
    parser.add_argument("--kernel", type=int, default=5)
    parser.add_argument("--stages", type=int, default=3)
    parser.add_argument("--shrink", type=int, default=1)
    given = parser.parse_args()
    torch.manual_seed(0)
    pipe = timed("build", lambda: pipeline(given.name, given.shrink))
    if given.dtype != "float32":
        pipe.unet.to(getattr(torch, given.dtype))
        pipe.text_encoder.to(getattr(torch, given.dtype))
    size = (given.size, given.size) if given.size else None
    model = timed("model", lambda: from_pipeline(pipe, image_size=size, frames=given.frames))
    print(f"{model.name}: noise {model.latent_shape}, images {model.image_size}, {given.dtype}")
    print(f"{torch.get_num_threads()} threads on {len(os.sched_getaffinity(0))} processors")
    if given.passes:
        return one_pass(model)
    key = tv.Key.generate(model.latent_shape, seed=1)
    make: Any = tv.generation.generate_videos if given.name == "lavie" else tv.generate
    made = timed(
        f"generate, {given.steps} steps",
        lambda: next(iter(make(model, key, seeds=[1], prompts=["a"], steps=given.steps, guidance=given.guidance))),
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
        from treering_verify.training import EXPERTS, FitOptions, fit

        points = tuple(sorted({1, min(3, given.steps), given.steps}))
        options = FitOptions(
            images=given.fit,
            generation_steps=given.steps,
            kernel=given.kernel,
            stages=given.stages,
            steps=given.steps,
            points=points,
            batch_size=1,
        )
        experts = dict(list(EXPERTS.items())[: given.experts])
        timed(f"fit, {given.fit} images, {len(experts)} experts", lambda: fit(model, options=options, attacks=experts))


if __name__ == "__main__":
    main()
