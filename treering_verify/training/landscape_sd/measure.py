"""Measurements: `python -m treering_verify.training.landscape_sd.measure --model landscape-sd --sheet FILE.png`.

Prints how well the autoencoder keeps held-out scenes, how near samples are to scenes, and what is found of a key when the
noise is inverted under the right prompt, none, and a wrong one, by guidance and by sampler. Writes a contact sheet.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from treering_verify.training.landscape.measure import sliced_wasserstein
from treering_verify.training.landscape.recipe import psnr
from treering_verify.training.landscape_sd.attributes import draw_attributes, scene_generator
from treering_verify.training.landscape_sd.captions import captions
from treering_verify.training.landscape_sd.scenes import render

if TYPE_CHECKING:
    from PIL import Image

    from treering_verify.models import LatentModel

GUIDANCE, STEPS = 3.0, 20
_SAMPLERS = (
    "EulerDiscreteScheduler",
    "DPMSolverMultistepScheduler",
    "PNDMScheduler",
    "EulerAncestralDiscreteScheduler",
)
_BATCH = 4


def held_out_prompts(count: int) -> list[str]:
    """Return captions of scenes of the stream "test"."""
    g = scene_generator("test", 0)
    return captions(draw_attributes(count, g), g)


@torch.inference_mode()
def quality(model: LatentModel, samples: torch.Tensor) -> Iterator[str]:
    """Yield lines on the autoencoder and on samples, (N, 3, H, W) in [-1, 1], both against test scenes."""
    count = len(samples)
    scenes, others = (render(count, stream="test", index=i)[0] * 2 - 1 for i in (1, 2))
    decoded = torch.cat([model.decode(model.encode(part)).clamp(-1, 1) for part in scenes.split(_BATCH)])
    each = torch.stack([psnr(error) for error in decoded - scenes])
    yield f"autoencoder PSNR on {count} test scenes: mean {each.mean():.2f} dB, worst {each.min():.2f}"
    distances = [sliced_wasserstein(images, scenes) for images in (samples, others, decoded)]
    yield (
        f"sliced Wasserstein distance of 7 x 7 patches to {count} test scenes: samples {distances[0]:.4f}, "
        f"other test scenes {distances[1]:.4f}, autoencoded {distances[2]:.4f}"
    )


@torch.inference_mode()
def evidence(model: LatentModel, key: Any, images: Sequence[Image.Image], prompts: Sequence[str | None]) -> str:
    """Return median log10 p of a key, and how many of the images are found at 1e-6, by inversion under the prompts."""
    from treering_verify.detection.evidence import evidence_of
    from treering_verify.inversion.noise import DEFAULT_STEPS, naive
    from treering_verify.inversion.recovery import InversionOptions, recover_latent
    from treering_verify.media.conversion import to_tensor

    found = []
    for image, prompt in zip(images, prompts, strict=True):
        latent = recover_latent(model, to_tensor(image), InversionOptions(method="forward-step")).latent
        noise_hat = naive(model, latent, steps=DEFAULT_STEPS, conditions=[prompt])
        found.append(evidence_of(noise_hat, [key])[0][0].log10_pvalue)
    median = float(torch.tensor(found).median())
    return f"median log10 p {median:.1f}, found at 1e-6 {sum(p <= -6 for p in found)} of {len(found)}"


def marked(model: LatentModel, key: Any, prompts: Sequence[str], guidance: float) -> list[Image.Image]:
    """Return images under prompts, with a key, or without where it is None."""
    from treering_verify.generation.generator import generate

    seeds, options = range(len(prompts)), {"steps": STEPS, "guidance": guidance, "batch_size": _BATCH}
    return [one.image for one in generate(model, key, seeds=seeds, prompts=prompts, **options)]  # type: ignore[arg-type]


def sampled(folder: str, key: Any, prompts: Sequence[str], sampler: str) -> list[Image.Image]:
    """Return marked images by the pipeline's own call with a sampler of diffusers, at `GUIDANCE`."""
    import diffusers

    from treering_verify.generation.generator import watermarked_noise
    from treering_verify.models import load_pipeline

    pipe = load_pipeline(folder)
    pipe.scheduler = getattr(diffusers, sampler).from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    images = []
    for seed, prompt in enumerate(prompts):
        latents = watermarked_noise(pipe, key, seeds=[seed])
        g = torch.Generator().manual_seed(seed)
        images += pipe(
            [prompt], latents=latents, num_inference_steps=STEPS, guidance_scale=GUIDANCE, generator=g
        ).images
    return images


def contact_sheet(images: Sequence[Image.Image], columns: int = 4) -> Image.Image:
    """Return images of one size side by side, row by row."""
    from PIL import Image

    width, height = images[0].size
    sheet = Image.new("RGB", (columns * width, -(-len(images) // columns) * height))
    for i, image in enumerate(images):
        sheet.paste(image, (i % columns * width, i // columns * height))
    return sheet


def main(argv: list[str] | None = None) -> None:
    """Print the figures and write the contact sheet."""
    from treering_verify.media.conversion import to_tensor
    from treering_verify.models import load_model
    from treering_verify.watermark.keys.key import Key

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", default="landscape-sd", help="the model that ships, or a folder that the recipe wrote"
    )
    parser.add_argument("--sheet", type=Path, help="file for a contact sheet of the unmarked samples")
    parser.add_argument("--count", type=int, default=16, help="images of each kind")
    options = parser.parse_args(argv)
    model = load_model(options.model)
    prompts = held_out_prompts(options.count)
    wrong, nothing = [*prompts[1:], prompts[0]], [None] * len(prompts)
    plain = marked(model, None, prompts, GUIDANCE)
    if options.sheet:
        contact_sheet(plain).save(options.sheet)
        print(*prompts, sep="\n")
    for line in quality(model, torch.cat([to_tensor(image) for image in plain])):
        print(line, flush=True)
    key = Key.generate(model.latent_shape, seed=1)
    print(f"unmarked, no prompt: {evidence(model, key, plain, nothing)}", flush=True)
    for guidance in (1.0, GUIDANCE, 7.5):
        images = marked(model, key, prompts, guidance)
        for name, conditions in (("the right prompt", prompts), ("no prompt", nothing), ("a wrong prompt", wrong)):
            print(f"guidance {guidance:g}, {name}: {evidence(model, key, images, conditions)}", flush=True)
    for sampler in _SAMPLERS:
        images = sampled(options.model, key, prompts, sampler)
        print(f"{sampler}, guidance {GUIDANCE:g}, no prompt: {evidence(model, key, images, nothing)}", flush=True)


if __name__ == "__main__":
    main()
