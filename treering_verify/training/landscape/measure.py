"""Measurements of the embedded model: `python -m treering_verify.training.landscape.measure` prints the card's numbers."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from treering_verify.training.landscape.scenes import CLASSES, render

if TYPE_CHECKING:
    from PIL import Image

    from treering_verify.inversion.decoder import Problem
    from treering_verify.models import LatentModel


def sliced_wasserstein(
    a: torch.Tensor, b: torch.Tensor, *, patch: int = 7, patches: int = 20000, directions: int = 256, seed: int = 0
) -> float:
    """Return the sliced Wasserstein-1 distance between the patches of two sets of images (no learned features).

    Parameters
    ----------
    a, b : (N, 3, H, W) float32, same range
    patch : int
        Side of the square patches.
    patches : int
        Random patches per set.
    directions : int
        Random projections, each of unit length.
    seed : int

    Returns
    -------
    float
        Mean over projections, in the images' units.
    """
    g = torch.Generator().manual_seed(seed)
    slices = F.normalize(torch.randn(3 * patch * patch, directions, generator=g), dim=0)

    def project(images: torch.Tensor) -> torch.Tensor:
        count, _, height, width = images.shape
        i = torch.randint(0, count, (patches,), generator=g)
        y = torch.randint(0, height - patch + 1, (patches,), generator=g)
        x = torch.randint(0, width - patch + 1, (patches,), generator=g)
        span = torch.arange(patch)
        rows, columns = (y[:, None] + span)[:, :, None], (x[:, None] + span)[:, None, :]
        chosen = images[i[:, None, None], :, rows, columns]
        return (chosen.flatten(1) @ slices).sort(dim=0).values

    return float((project(a) - project(b)).abs().mean())


def colour_error(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return the root mean square difference of the images' mean colours, in grey levels of 255; (N, 3, H, W) in [-1, 1]."""
    return float((a - b).mean(dim=(2, 3)).pow(2).mean().sqrt()) * 127.5


def star_contrast(decoded: torch.Tensor, scenes: torch.Tensor, threshold: float = 0.4) -> float:
    """Return the share of the stars' contrast that is left, as a least-squares slope over pixels brighter than others near.

    Surroundings are the 9 x 9 mean of the grey image; stars are pixels of `scenes` that exceed it by `threshold`. 1 keeps
    them all, 0 none; NaN if there are none.
    """

    def contrast(images: torch.Tensor) -> torch.Tensor:
        grey = images.mean(dim=1, keepdim=True)
        return grey - F.avg_pool2d(grey, 9, stride=1, padding=4, count_include_pad=False)

    true, found = contrast(scenes), contrast(decoded)
    stars = true > threshold
    return float((true * found)[stars].sum() / true[stars].square().sum())


def _decibels(latent: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Return the NMSE of each item in dB, (n, C, h, w) twice -> (n,)."""
    return 20 * torch.log10((latent - truth).flatten(1).norm(dim=1) / truth.flatten(1).norm(dim=1))


STOP_ATTACKS = (
    "jpeg:quality=90",
    "jpeg:quality=75",
    "jpeg:quality=50",
    "jpeg:quality=25",
    "noise:sigma=0.05",
    "blur:radius=1",
    "blur:radius=2",
    "brightness:factor=1.2",
)
LEARNED_ATTACKS = (*STOP_ATTACKS[:4], "jpeg:quality=10", *STOP_ATTACKS[4:7])
LEARNED_SEEDS = (9 << 32) + (1 << 20)  # of images on which neither a network nor a threshold was fitted
STOP_SEEDS = 9 << 32  # images on which settings were chosen; no benchmark uses them


def _problems(
    model: LatentModel, images: Sequence[Image.Image], attacks: Sequence[str]
) -> Iterator[tuple[str, Problem]]:
    """Yield the decoder inversion problem of images as they are, "clean", and after each attack, given as text."""
    from treering_verify.attacks import parse
    from treering_verify.inversion.recovery import problem_of
    from treering_verify.media.conversion import to_tensor

    yield "clean", problem_of(model, torch.cat([to_tensor(image) for image in images]))
    for text in attacks:
        changed = [parse(text).apply(image, i) for i, image in enumerate(images)]
        yield text, problem_of(model, torch.cat([to_tensor(image) for image in changed]))


@torch.inference_mode()
def early_stopping(model: LatentModel, attacks: Sequence[str], count: int) -> Iterator[str]:
    """Yield a line per attack: where early stopping by parametric bootstrap ends forward steps, and the error of z_0 there.

    Each line also has the error after all steps, and after the best step of each image, which nobody can know. The
    criterion of `inversion.decoder.bootstrap_stopping` was chosen by these lines.
    """
    from treering_verify.generation.generator import generate
    from treering_verify.inversion.decoder import DEFAULTS, invert, unstopped

    made = list(generate(model, None, seeds=range(STOP_SEEDS, STOP_SEEDS + count), steps=15, batch_size=16))
    latents = torch.stack([one.latent for one in made])
    settings = DEFAULTS["forward-step"]
    for text, problem in _problems(model, [one.image for one in made], attacks):
        start = _decibels(model.encode(problem.image), latents)
        path: list[torch.Tensor] = []

        def watch(k: int, rows: torch.Tensor, points: torch.Tensor, path: list[torch.Tensor] = path) -> None:
            path.append(_decibels(points, latents))

        invert(replace(problem, watch=watch), "forward-step", unstopped(settings))
        found = invert(problem, "forward-step", settings)
        change, changes = _decibels(found.latent, latents) - start, torch.stack(path) - start
        yield (
            f"{text:22} {found.iterations.float().mean():.1f} steps kept; error {change.mean():+.2f} dB, worst "
            f"{change.max():+.2f}; all steps {changes[-1].mean():+.2f}, worst {changes[-1].max():+.2f}; best for "
            f"each {changes.min(dim=0).values.mean():+.2f} ({count} images)"
        )


@torch.inference_mode()
def learned_steps(model: LatentModel, attacks: Sequence[str], count: int) -> Iterator[str]:
    """Yield a line per attack: error and evidence after the encoder, one and two learned steps; residual of the true z_0.

    The limit on the residual of learned steps was chosen by that of the true latent, |E(D(z_0)) - E(x)| relative to the
    start's: a tighter limit would reject results that are close to the truth.
    """
    from treering_verify.detection.evidence import evidence_of
    from treering_verify.generation.generator import generate
    from treering_verify.inversion.decoder import DEFAULTS, invert, relative_residual
    from treering_verify.inversion.noise import invert as to_noise
    from treering_verify.watermark.keys.key import Key

    key = Key.generate(model.latent_shape, seed=LEARNED_SEEDS)
    made = list(generate(model, key, seeds=range(LEARNED_SEEDS, LEARNED_SEEDS + count), steps=15, batch_size=16))
    latents = torch.stack([one.latent for one in made])
    for text, problem in _problems(model, [one.image for one in made], attacks):
        start, texts, rejected = model.encode(problem.image), [], 0
        for steps in range(3):
            latent = start
            if steps:
                found = invert(problem, "learned", replace(DEFAULTS["learned"], iterations=steps))
                latent, rejected = found.latent, rejected + found.status.count("diverged")
            log10 = [e[0].log10_pvalue for e in evidence_of(to_noise(model, latent), [key])]
            texts.append(f"{_decibels(latent, latents).mean():.2f} dB, log10 p {sorted(log10)[count // 2]:.0f}")
        ratio = relative_residual(problem, latents) / relative_residual(problem, start)
        yield (
            f"{text:16} encoder {texts[0]}; 1 step {texts[1]}; 2 steps {texts[2]}; {rejected} rejected; "
            f"residual of the true latent {ratio.median():.1f} times the start's, up to {ratio.max():.1f} ({count} images)"
        )


def _relative(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


@torch.inference_mode()
def detection(model: LatentModel, count: int, steps: int) -> Iterator[str]:
    """Yield lines on images generated in some steps: evidence of their key, error of noise inversion, distance to scenes.

    Marked and unmarked images, `count` of each, under one key, at the default guidance, inverted in as many steps by every
    noise inversion without a network of its own. The error is measured on 16 images without guidance.
    """
    from treering_detectors import Rate

    from treering_verify.detection.evidence import evidence_of
    from treering_verify.generation.generator import generate
    from treering_verify.inversion.noise import invert
    from treering_verify.inversion.recovery import InversionOptions, recover_in_batches
    from treering_verify.media.conversion import to_tensor
    from treering_verify.models.sampling import denoise
    from treering_verify.watermark.keys.key import Key

    key = Key.generate(model.latent_shape, seed=LEARNED_SEEDS)
    seeds = range(LEARNED_SEEDS, LEARNED_SEEDS + count)
    made = {
        name: list(generate(model, k, seeds=seeds, steps=steps)) for name, k in (("marked", key), ("unmarked", None))
    }
    noise = torch.stack([one.noise for one in made["marked"]])[:16]
    classes = [model.classes[seed % len(model.classes)] for seed in seeds[:16]]
    latent = denoise(model, noise, steps=steps, conditions=classes)
    for method in ("naive", "heun", "exact"):
        for name, images in made.items():
            pixels = torch.cat([to_tensor(one.image) for one in images])
            noise_hat = recover_in_batches(model, InversionOptions(noise_method=method, steps=steps), pixels)
            log10 = sorted(e[0].log10_pvalue for e in evidence_of(noise_hat, [key]))
            yield (
                f"{steps} steps, {method}, {name}: p <= 1e-6 {Rate(sum(p <= -6 for p in log10), count)}, "
                f"p <= 0.01 {Rate(sum(p <= -2 for p in log10), count)}, median log10 p {log10[count // 2]:.1f}"
            )
        inverted = invert(model, latent, method, steps=steps, conditions=classes)
        error = _relative(inverted, noise)
        yield f"{steps} steps, {method}: relative error of the noise from the true latent and class {error:.4f}"
    scenes = torch.cat([render(40, stream="test", index=i)[0] for i in range(math.ceil(count / 40))])[:count] * 2 - 1
    samples = torch.cat([to_tensor(one.image) for one in made["unmarked"]])
    distance = sliced_wasserstein(samples, scenes)
    yield f"sliced Wasserstein distance of 7 x 7 patches, {count} samples to test scenes: {distance:.4f}"


VISIBLE_ATTACKS = (
    "centre_crop:share=0.7071",
    "random_crop:share=0.8367",
    "centre_crop:share=0.35",
    "mask:share=0.9",
    "centre_crop:share=0.7071+jpeg:quality=75",
    "centre_crop:share=0.7071+jpeg:quality=25",
    "rotate:degrees=5",
    "mask:share=0.5+jpeg:quality=75",
)


def visible(model: LatentModel, attacks: Sequence[str], count: int) -> Iterator[str]:
    """Yield lines on images that are cropped or covered: evidence of the key in all of the image and in its visible area.

    For the first attack also with other content around the crop, and with the evidence of all of noise_hat.
    """
    from treering_verify.attacks import parse
    from treering_verify.detection.evidence import evidence_of
    from treering_verify.generation.generator import generate
    from treering_verify.inversion.noise import invert
    from treering_verify.inversion.recovery import InversionOptions, recover_latent
    from treering_verify.media.blank_areas import fill_occluded, mask_occluded, visible_area
    from treering_verify.media.conversion import to_tensor
    from treering_verify.watermark.keys.key import Key

    seeds = range(LEARNED_SEEDS, LEARNED_SEEDS + count)
    keys = [Key.generate(model.latent_shape, seed=seed) for seed in seeds]
    images = [made.image for k, key in zip(seeds, keys, strict=True) for made in generate(model, key, seeds=[k])]
    whole = torch.cat([to_tensor(image) for image in images])

    def noise_of(pixels: torch.Tensor) -> torch.Tensor:
        parts = pixels.split(16)
        with torch.inference_mode():
            return torch.cat([invert(model, recover_latent(model, part, InversionOptions()).latent) for part in parts])

    def read(noise_hat: torch.Tensor) -> str:
        found = sorted(
            evidence_of(row[None], [key])[0][0].log10_pvalue for row, key in zip(noise_hat, keys, strict=True)
        )
        return f"median log10 p {found[count // 2]:.1f}, worst {found[-1]:.1f}"

    for number, attack in enumerate(attacks):
        pixels = torch.cat([to_tensor(parse(attack).apply(image, seed=i)) for i, image in enumerate(images)])
        mask = visible_area(pixels)
        as_it_is = noise_of(pixels)
        yield f"{attack}, {mask.mean():.2f} visible: as it is {read(as_it_is)}"
        if not number:
            mean = (pixels * mask).sum(dim=(-2, -1), keepdim=True) / mask.sum(dim=(-2, -1), keepdim=True)
            others = {"another image": whole.roll(1, 0), "mean colour": mean}
            tried = {name: noise_of(torch.where(mask > 0, pixels, other)) for name, other in others.items()}
            for name, noise_hat in {
                "black": as_it_is,
                **tried,
                "nearest": noise_of(fill_occluded(pixels, mask)),
            }.items():
                yield f"  around it {name}: all of it {read(noise_hat)}; visible area {read(mask_occluded(noise_hat, mask))}"
            clean = noise_of(whole)
            yield f"  the whole image: all of it {read(clean)}; area of the crop {read(mask_occluded(clean, mask))}"
        yield f"  in the visible area {read(mask_occluded(noise_of(fill_occluded(pixels, mask)), mask))}"


@torch.inference_mode()
def main(argv: list[str] | None = None) -> None:
    """Print PSNR, colours and stars of held-out scenes, patch distance of samples, and errors of noise inversion."""
    from treering_verify.generation.generator import initial_noise
    from treering_verify.inversion.noise import naive
    from treering_verify.models import load_model
    from treering_verify.models.sampling import denoise

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="landscape", help="landscape-tiny, or folder of other weights")
    parser.add_argument(
        "--count",
        type=int,
        default=200,
        help="scenes and samples, a multiple of 40 (any with the options below)",
    )
    parser.add_argument(
        "--early-stopping", action="store_true", help="measure the early stopping of forward steps only"
    )
    parser.add_argument("--learned-steps", action="store_true", help="measure learned steps only")
    parser.add_argument(
        "--detection", type=int, metavar="STEPS", help="measure detection of images made in so many steps"
    )
    parser.add_argument("--visible", action="store_true", help="measure cropped and covered images only")
    options = parser.parse_args(argv)
    count = options.count
    model = load_model(options.model)
    chosen: Iterator[str] | None = None
    if options.learned_steps:
        chosen = learned_steps(model, LEARNED_ATTACKS, count)
    elif options.early_stopping:
        chosen = early_stopping(model, STOP_ATTACKS, count)
    elif options.visible:
        chosen = visible(model, VISIBLE_ATTACKS, count)
    elif options.detection:
        chosen = detection(model, count, options.detection)
    if chosen is not None:
        for line in chosen:
            print(line, flush=True)
        return
    rendered = [render(40, stream="test", index=i) for i in range(count // 40)]
    scenes = torch.cat([image for image, _ in rendered]) * 2 - 1
    more = torch.cat([render(40, stream="test", index=1000 + i)[0] for i in range(count // 40)]) * 2 - 1
    decoded = torch.cat([model.decode(model.encode(part)).clamp(-1, 1) for part in scenes.split(20)])
    means = F.interpolate(F.avg_pool2d(scenes, 4), scale_factor=4, mode="bicubic").clamp(-1, 1)
    for name, images in (("autoencoder", decoded), ("interpolated 4 x 4 means, for comparison:", means)):
        psnr = -10 * torch.log10(((images - scenes) / 2).pow(2).mean(dim=(1, 2, 3)))
        print(
            f"{name} PSNR on {count} test scenes: mean {psnr.mean():.2f} dB, 5th percentile {psnr.quantile(0.05):.2f}"
        )
    night = torch.cat([label for _, label in rendered]) == CLASSES.index("night")
    print(f"error of an image's mean colour: {colour_error(decoded, scenes):.2f} grey levels (rms)")
    print(
        f"contrast of stars kept, {int(night.sum())} night scenes: {star_contrast(decoded[night], scenes[night]):.2f}"
    )
    noise = initial_noise(model.latent_shape, range(count))
    labels = [CLASSES[i % len(CLASSES)] for i in range(count)]
    latents = torch.cat(
        [
            denoise(model, n, steps=50, conditions=labels[20 * i : 20 * i + 20], guidance=2.0)
            for i, n in enumerate(noise.split(20))
        ]
    )
    drawn = [model.decode(part) for part in latents.split(20)]
    nmse = _decibels(torch.cat([model.encode(part) for part in drawn]), latents)
    print(f"E(D(z)) against z, {count} samples: NMSE mean {nmse.mean():.2f} dB, worst {nmse.max():.2f}")
    samples = torch.cat(drawn).clamp(-1, 1)
    print(f"sliced Wasserstein distance of 7 x 7 patches, {count} images: samples to test scenes", end=" ")
    print(f"{sliced_wasserstein(samples, scenes):.4f}; test scenes to other test scenes", end=" ")
    print(
        f"{sliced_wasserstein(more, scenes):.4f}; autoencoded to test scenes {sliced_wasserstein(decoded, scenes):.4f}"
    )
    for steps in (10, 50):
        for name, conditions in (("true class", labels[:40]), ("no condition", None)):
            inverted = naive(model, latents[:40], steps=steps, conditions=conditions)
            error = _relative(inverted, noise[:40])
            print(f"relative DDIM round-trip error from the true latent, {steps} steps, {name}: {error:.3f}")


if __name__ == "__main__":
    main()
