"""Measure detection, inversion, throughput and image quality on a model; rows are written as JSON lines, summaries returned.

Seeds below 2**32 are left to users; each benchmark draws from a range of its own, so no two share an image.
"""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from treering_verify import attacks
from treering_verify.files import write_atomic
from treering_verify.generation import generate
from treering_verify.images import to_tensor
from treering_verify.key import Key
from treering_verify.models import LatentModel
from treering_verify.report import format_pvalue, table, to_json
from treering_verify.verification import Pipeline, recover_noise, verify_many, weigh

if TYPE_CHECKING:
    from PIL import Image

Progress = Callable[[str, int], Any]
_DETECTION_SEEDS, _THROUGHPUT_SEEDS, _QUALITY_SEEDS, _INVERSION_SEEDS = 1 << 32, 2 << 32, 3 << 32, 8 << 32
_CLEAN = "clean"
# Pattern and annulus; the last two hold the lowest frequencies, which the defaults leave alone.
_QUALITY_VARIANTS = (("random", 4, 9), ("random", 4, 12), ("rings", 3, 12), ("random", 1, 6), ("rings", 1, 8))
_WHOLE = "treering verification"


def detection(model: LatentModel, output: Path, quick: bool, progress: Progress) -> str:
    """Measure true and false positive rates at fixed alpha, by attack, for the default key and rings in all channels.

    Every image has a key of its own, so that no figure is a figure of one lucky key. Unmarked images are judged after the
    same attacks, each with a fresh key.
    """
    from detectors import Rate

    count = 8 if quick else 200
    plan = [
        ("random", (_CLEAN, "jpeg:quality=75", "jpeg:quality=25"), 1e-6),
        ("rings", (_CLEAN,), 1e-3),
    ]
    rows: list[dict[str, Any]] = []
    with progress("Images", 3 * count) as advance:
        controls = []
        for result in generate(model, None, seeds=range(_DETECTION_SEEDS, _DETECTION_SEEDS + count)):
            controls.append(result.image)
            advance()
        for pattern, names, alpha in plan:
            keys = [Key.generate(model.latent_shape, pattern=pattern, seed=_DETECTION_SEEDS + i) for i in range(count)]
            marked = []
            for i, key in enumerate(keys):
                seed = _DETECTION_SEEDS + (1 << 20) + i
                marked.append((key, seed))
            images = _generate_marked(model, marked, advance)
            for name in names:
                for truth, pictures in (("marked", images), ("unmarked", controls)):
                    attacked = pictures if name == _CLEAN else [attacks.parse(name).apply(p) for p in pictures]
                    for i, (log10, cosine) in enumerate(_scores(model, attacked, keys)):
                        rows.append(
                            {
                                "pattern": pattern,
                                "attack": name,
                                "truth": truth,
                                "image": i,
                                "log10_pvalue": log10,
                                "statistic": cosine,
                                "alpha": alpha,
                            }
                        )
    lines = []
    for pattern, names, alpha in plan:
        for name in names:
            chosen = [r for r in rows if r["pattern"] == pattern and r["attack"] == name]
            scores = {
                truth: np.array([r["log10_pvalue"] for r in chosen if r["truth"] == truth])
                for truth in ("marked", "unmarked")
            }
            hits, false = (Rate(int((scores[t] <= np.log10(alpha)).sum()), count) for t in ("marked", "unmarked"))
            median = float(np.median(scores["marked"]))
            reach = float(np.quantile(scores["marked"], 0.95, method="higher"))
            cosine = statistics.fmean(r["statistic"] for r in chosen if r["truth"] == "marked")
            lines.append(
                [
                    pattern,
                    name,
                    f"{alpha:g}",
                    str(hits),
                    str(false),
                    format_pvalue(median),
                    format_pvalue(reach),
                    f"{cosine:.2f}",
                ]
            )
    header = ["pattern", "attack", "alpha", "true positives", "false positives", "median p", "95 % reach p", "cosine"]
    return _finish("detection", output, rows, table(header, lines), model, quick)


def throughput(model: LatentModel, output: Path, quick: bool, progress: Progress) -> str:
    """Compare verifying in batches of 16 with one by one, and find the share of time outside the networks."""
    import torch

    rounds, size = (2, 16) if quick else (7, 16)
    key = Key.generate(model.latent_shape, seed=_THROUGHPUT_SEEDS)
    made = generate(model, key, seeds=range(_THROUGHPUT_SEEDS, _THROUGHPUT_SEEDS + size), steps=20)
    images = [result.image for result in made]
    rows: list[dict[str, Any]] = []
    with progress("Rounds", rounds) as advance:
        list(verify_many(images, key, model=model))  # warm-up
        for number in range(rounds):
            timing = {}
            for name, batch_size in (("batch", size), ("single", 1)):
                started = time.perf_counter()
                list(verify_many(images, key, model=model, pipeline=Pipeline(batch_size=batch_size)))
                timing[name] = (time.perf_counter() - started) / size
            rows.append({"round": number, **timing, "ratio": timing["single"] / timing["batch"]})
            advance()
    wrapped = _Timed(model)
    with (
        torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], acc_events=True) as profile,
        torch.profiler.record_function(_WHOLE),  # both from the profile: starting and closing it takes seconds
    ):
        list(verify_many(images, key, model=wrapped))
    spent = {event.key: event.cpu_time_total / 1e6 for event in profile.key_averages()}
    whole, inside = spent[_WHOLE], spent[_Timed.LABEL]
    rows.append({"round": None, "profiled_seconds": whole, "network_seconds": inside})
    ratios = [r["ratio"] for r in rows[:-1]]
    low, high = min(ratios), max(ratios)
    text = table(
        ["quantity", "value"],
        [
            ["one by one, per image", f"{statistics.median(r['single'] for r in rows[:-1]):.3f} s"],
            ["batch of 16, per image", f"{statistics.median(r['batch'] for r in rows[:-1]):.3f} s"],
            ["ratio", f"{statistics.median(ratios):.2f} [{low:.2f}, {high:.2f}] over {rounds} rounds (median, range)"],
            ["outside the networks (torch profiler)", f"{100 * (1 - inside / whole):.1f} % of {whole:.1f} s"],
        ],
    )
    return _finish("throughput", output, rows, text, model, quick)


def quality(model: LatentModel, output: Path, quick: bool, progress: Progress) -> str:
    """Compare marked images with their unmarked twins: paired difference, diversity within a key, distance of patches.

    Diversity is the mean distance between low-passed images (16 x 16 pixel means) of one class under one key; the distance
    between marked and unmarked images is sliced Wasserstein on 7 x 7 patches, to unmarked images of other seeds; the line
    of the unmarked twins is its floor.
    """
    import torch

    from treering_verify.models.landscape.measure import sliced_wasserstein

    count = 20 if quick else 200

    def render(key: Key | None, first: int) -> torch.Tensor:
        seeds = range(_QUALITY_SEEDS + first, _QUALITY_SEEDS + first + count)
        return torch.cat([to_tensor(r.image) for r in generate(model, key, seeds=seeds, steps=25)])

    def diversity(images: torch.Tensor) -> float:
        low = torch.nn.functional.avg_pool2d(images, 16).flatten(1)
        classes = max(1, len(model.classes))
        return statistics.fmean(float(torch.pdist(low[c::classes]).mean()) for c in range(classes))

    variants: list[tuple[str, Key | None]] = [("unmarked", None)]
    for pattern, inner, outer in _QUALITY_VARIANTS:
        made = Key.generate(
            model.latent_shape, pattern=pattern, inner_radius=inner, outer_radius=outer, seed=_QUALITY_SEEDS
        )
        variants.append((f"{pattern} {made.inner_radius}-{made.outer_radius}", made))
    rows, lines = [], []
    with progress("Variants", len(variants) + 1) as advance:
        twins, others = render(None, 0), render(None, count)
        advance()
        for name, key in variants:
            images = render(key, 0) if key else twins
            paired = float((images - twins).pow(2).mean(dim=(1, 2, 3)).sqrt().mean()) * 127.5
            distance = sliced_wasserstein(images if key else twins, others)
            row = {"variant": name, "paired_rms": paired, "diversity": diversity(images), "distance": distance}
            rows.append(row)
            lines.append([name, f"{paired:.1f}", f"{row['diversity']:.2f}", f"{distance:.4f}"])
            advance()
    header = ["key", "difference from twin (grey levels, rms)", "diversity", "patch distance to other unmarked"]
    text = f"{table(header, lines)}\n{count} images each; the line of the unmarked twins is the floor"
    return _finish("quality", output, rows, text, model, quick)


def inversion(model: LatentModel, output: Path, quick: bool, progress: Progress) -> str:
    """Compare decoder inversions on clean and attacked images: error of the latent, and p of the key behind it.

    The error is NMSE in dB, 10 log10(|z - z_0|^2 / |z_0|^2), mean and 95 % interval (normal) over the images.
    """
    import torch

    from treering_verify.decoder_inversion import DEFAULTS

    count = 8 if quick else 48
    forward = DEFAULTS["forward-step"]
    unstopped = replace(forward, misfit_fall=0.0, misfit_explained=0.0, stagnation=float("-inf"))
    variants = {
        "encoder": Pipeline(inversion="encoder"),
        "forward-step": Pipeline(inversion="forward-step"),
        "forward-step, no stop": Pipeline(inversion="forward-step", settings=unstopped),
        "forward-step, 8, no stop": Pipeline(inversion="forward-step", settings=replace(unstopped, iterations=8)),
        "inertial-km": Pipeline(inversion="inertial-km"),
    }
    names = (_CLEAN, "jpeg:quality=90", "jpeg:quality=75", "jpeg:quality=50", "jpeg:quality=25", "noise:sigma=0.05")
    key = Key.generate(model.latent_shape, seed=_INVERSION_SEEDS)
    made = list(generate(model, key, seeds=range(_INVERSION_SEEDS, _INVERSION_SEEDS + count)))
    truth = torch.stack([result.latent for result in made])
    rows: list[dict[str, Any]] = []
    lines = []
    with progress("Inversions", len(names) * len(variants)) as advance:
        for name in names:
            images = [r.image if name == _CLEAN else attacks.parse(name).apply(r.image) for r in made]
            pixels = torch.cat([to_tensor(image) for image in images])
            for variant, pipeline in variants.items():
                started = time.perf_counter()
                noise_hat, solution = recover_noise(model, pixels, pipeline)
                seconds = (time.perf_counter() - started) / count
                error = (solution.latent - truth).flatten(1).norm(dim=1) / truth.flatten(1).norm(dim=1)
                decibels = (20 * torch.log10(error)).tolist()
                log10 = [evidence[0].log10_pvalue for evidence in weigh(noise_hat, [key])]
                for i in range(count):
                    rows.append(
                        {
                            "attack": name,
                            "method": variant,
                            "image": i,
                            "nmse_db": decibels[i],
                            "log10_pvalue": log10[i],
                            "steps": int(solution.iterations[i]),
                        }
                    )
                half = 1.96 * statistics.stdev(decibels) / count**0.5
                steps = float(solution.iterations.float().mean())
                lines.append(
                    [
                        name,
                        variant,
                        f"{statistics.fmean(decibels):.2f} +- {half:.2f}",
                        f"{steps:.1f}",
                        f"{statistics.median(log10):.1f}",
                        f"{max(log10):.1f}",
                        f"{seconds:.2f}",
                    ]
                )
                advance()
    header = ["attack", "method", "NMSE of z_0 (dB)", "steps kept", "median log10 p", "largest log10 p", "s / image"]
    return _finish("inversion", output, rows, f"{table(header, lines)}\n{count} images", model, quick)


BENCHMARKS: dict[str, Callable[[LatentModel, Path, bool, Progress], str]] = {
    "detection": detection,
    "inversion": inversion,
    "throughput": throughput,
    "quality": quality,
}


class _Timed:
    """A model whose network passes carry a label in the profile."""

    LABEL = "treering network pass"

    def __init__(self, model: LatentModel) -> None:
        self._model = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def _labelled(self, name: str, *args: Any, **kwargs: Any) -> Any:
        import torch

        with torch.profiler.record_function(self.LABEL):
            return getattr(self._model, name)(*args, **kwargs)

    def encode(self, *args: Any) -> Any:
        return self._labelled("encode", *args)

    def decode(self, *args: Any) -> Any:
        return self._labelled("decode", *args)

    def denoise(self, *args: Any, **kwargs: Any) -> Any:
        return self._labelled("denoise", *args, **kwargs)


def _generate_marked(
    model: LatentModel, marked: list[tuple[Key, int]], advance: Callable[[], None], batch: int = 16
) -> list[Image.Image]:
    """One image per (key, seed), in batches although each has a key of its own."""
    import torch

    from treering_verify.generation import DEFAULT_GUIDANCE, DEFAULT_STEPS, initial_noise
    from treering_verify.images import to_pil
    from treering_verify.noise_inversion import denoise
    from treering_verify.watermark import embed

    images = []
    for first in range(0, len(marked), batch):
        part = marked[first : first + batch]
        noise = torch.cat([embed(initial_noise(model.latent_shape, [seed]), key) for key, seed in part])
        labels = [model.classes[seed % len(model.classes)] for _, seed in part]
        with torch.inference_mode():
            latents = denoise(model, noise, steps=DEFAULT_STEPS, conditions=labels, guidance=DEFAULT_GUIDANCE)
            decoded = model.decode(latents)
        for picture in decoded:
            images.append(to_pil(picture))
            advance()
    return images


def _scores(
    model: LatentModel, images: list[Image.Image], keys: list[Key], batch: int = 16
) -> list[tuple[float, float]]:
    """(log10 p, cosine) of image i under key i."""
    import torch

    scores = []
    for first in range(0, len(images), batch):
        pixels = torch.cat([to_tensor(image) for image in images[first : first + batch]])
        noise_hat, _ = recover_noise(model, pixels)
        for row, key in zip(noise_hat, keys[first : first + batch], strict=True):
            (evidence,) = weigh(row[None], [key])[0]
            scores.append((evidence.log10_pvalue, evidence.statistic))
    return scores


def _finish(name: str, output: Path, rows: list[dict[str, Any]], text: str, model: LatentModel, quick: bool) -> str:
    """Write rows and summary under their final names, and return the summary with where it was measured."""
    import diffusers
    import torch

    command = f"treering benchmark {name}{' --quick' if quick else ''} --output DIR"
    where = (
        f"model {model.name}; torch {torch.__version__}, diffusers {diffusers.__version__}; "
        f"{platform.machine()}, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"
    )
    summary = f"{text}\n\n{where}\nRepeat: {command}"
    output.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(to_json(row)) + "\n" for row in rows)
    write_atomic(output / f"{name}.jsonl", lines.encode())
    write_atomic(output / f"{name}.txt", (summary + "\n").encode())
    return summary
