"""Time and peak memory of decoder inversion on an autoencoder of Stable Diffusion's size.

Measured on one image, and on a video whose frames are decoded one by one, as LaVie does.

The weights are random, since time and memory do not depend on them; errors do, so none are reported. The benchmark uses a
GPU if there is one; on a processor it takes hours.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from treering_verify.benchmark.catalogue import BENCHMARKS
from treering_verify.benchmark.harness.cache import cached
from treering_verify.benchmark.harness.memory import peak_of
from treering_verify.benchmark.harness.scope import Scope, hardware, versions
from treering_verify.benchmark.published_figures import PUBLISHED_COSTS, SOURCE, VIDEO_SOURCE
from treering_verify.inversion.decoder import (
    DEFAULTS,
    METHODS,
    REFINED,
    Problem,
    Settings,
    in_precision,
    invert,
    unstopped,
)
from treering_verify.models import LatentModel
from treering_verify.models.autoencoder import decode, encode
from treering_verify.models.diffusers.video import by_frame
from treering_verify.report.findings import Cell, Findings, Table

if TYPE_CHECKING:
    import torch

_BUDGET = 50  # steps at which the published table is read
_LONG = 5.0  # seconds
_SLOWEST = ("gauss-newton",)
_VIDEO_METHODS = ("encoder", "forward-step", "adam", "gradient")


@dataclass(frozen=True)
class Size:
    """An autoencoder and its inputs: channels of each stage, blocks per stage, latent channels, side of images in pixels.

    `video` is frames, height and width.
    """

    channels: tuple[int, ...]
    layers: int
    latent_channels: int
    pixels: int
    video: tuple[int, int, int]

    @property
    def tile(self) -> int:
        """Side in pixels of the tiles that are measured beside whole images."""
        return self.pixels // 2


STABLE_DIFFUSION = Size((128, 256, 512, 512), 2, 4, 512, (16, 320, 512))
_SMALL = Size((8, 8), 1, 4, 32, (2, 16, 32))


@dataclass(frozen=True)
class Case:
    """A method, the networks' precision, the side of tiles in pixels (0: whole images), and whether the input is a video."""

    method: str
    precision: str = "float32"
    tile: int = 0
    video: bool = False

    def settings(self, steps: int) -> Settings:
        """Return settings for exactly this many steps, since early stopping is arbitrary with random weights."""
        return replace(unstopped(DEFAULTS[self.method]), iterations=steps)


def cases(size: Size, precisions: tuple[str, ...]) -> list[Case]:
    """Return every method without trained parts in each precision, and some of them on tiles and on a video.

    The slowest come last, so that an interrupted run has the others.
    """
    methods = [method for method in METHODS if method not in (*REFINED, *_SLOWEST)]
    whole = [Case(method, precision) for precision in precisions for method in methods]
    slowest = [Case(method, precision) for precision in precisions for method in _SLOWEST]
    tiles = [Case(method, "float32", size.tile) for method in ("encoder", "forward-step", "gradient")]
    lowered = [p for p in precisions if p != "bfloat16"]  # on a GPU it costs what float16 does
    return whole + tiles + [Case(method, p, video=True) for p in lowered for method in _VIDEO_METHODS] + slowest


def shape_of(size: Size, case: Case) -> tuple[int, int, int]:
    """Return channels, height and width of the input; the frames of a video are stacked along the channels."""
    frames, height, width = size.video if case.video else (1, size.pixels, size.pixels)
    return 3 * frames, height, width


@cache
def autoencoder_at(size: Size, device: str) -> Any:
    """Return an autoencoder of random weights on a device; it is cached for the next case."""
    import torch
    from diffusers import AutoencoderKL

    stages = len(size.channels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * stages,
            up_block_types=("UpDecoderBlock2D",) * stages,
            block_out_channels=size.channels,
            layers_per_block=size.layers,
            latent_channels=size.latent_channels,
            norm_num_groups=min(32, *size.channels),
            sample_size=size.pixels,
        )
    return vae.eval().requires_grad_(False).to(device)


def problem_at(size: Size, case: Case, device: str) -> Problem:
    """Return the inversion problem of one random image or video; the networks run on the device."""
    import torch

    vae = autoencoder_at(size, device)
    image = torch.rand(1, *shape_of(size, case), generator=torch.Generator().manual_seed(0)) * 2 - 1

    def lower(x: torch.Tensor) -> torch.Tensor:
        return encode(vae, x.to(device), case.tile).to(x.device)

    def raise_(z: torch.Tensor) -> torch.Tensor:
        return decode(vae, z.to(device), case.tile).to(z.device)

    if not case.video:
        return in_precision(Problem(image, lower, raise_), case.precision)
    frames = Problem(image, by_frame(lower, 3), by_frame(raise_, size.latent_channels))
    return in_precision(frames, case.precision)


def work(size: Size, case: Case, device: str, steps: int) -> Callable[[], object]:
    """Return a decoder inversion of so many steps, prepared for a process that does nothing else."""
    problem = problem_at(size, case, device)
    return lambda: invert(problem, case.method, case.settings(steps))


def measure(model: LatentModel, scope: Scope) -> Findings:
    """Measure time and memory of each method on Stable Diffusion's autoencoder; the given model is not used."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    size = _SMALL if scope.quick else STABLE_DIFFUSION
    repeats = scope.images(1, 3)
    sixteen = ("float16", "bfloat16") if device == "cuda" else ("bfloat16",)
    chosen = cases(size, ("float32",) if scope.quick else ("float32", *sixteen))
    rows = scope.rows
    with scope.progress("Methods", len(chosen)) as advance:
        for case in chosen:
            facts = (hardware(accelerated=device == "cuda"), versions(), size, case, repeats)
            times = cached(scope.folder, "sizes", facts, partial(_measured, size, case, device, repeats))
            rows.append(_row(size, case, device, times))
            advance()
    lines: list[tuple[Cell, ...]] = [
        (
            row["frames"],
            row["method"],
            row["precision"],
            row["tile"] or "whole",
            row["seconds_start"],
            row["seconds_step"],
            f"{row['seconds_default']:.3g} ({row['steps_default']})",
            row["seconds_budget"],
            row["published_seconds"],
            row["peak_mib"],
            row["published_peak_mib"],
        )
        for row in rows
    ]
    header = ("frames", "method", "precision", "tiles", "start (s)", "step (s)", "default (s, steps)")
    frames, height, width = size.video
    table = Table(
        f"Decoder inversion of one image of {size.pixels} x {size.pixels} pixels, and of a video of {frames} frames of "
        f"{height} x {width}, {device}",
        (*header, f"{_BUDGET} steps (s)", f"published, {_BUDGET} steps (s)", "peak (MiB)", "published peak (MiB)"),
        tuple(lines),
        "The model named below is not used. Random weights, so no errors; no early stopping. Peak: above the loaded model, "
        f"{'by the allocator' if device == 'cuda' else 'live tensors in a separate process'}; empty: out of memory. "
        f"Published: {SOURCE}; videos: {VIDEO_SOURCE}; on other cards, with the peak as they measured it.",
    )
    return Findings(
        "sizes",
        BENCHMARKS["sizes"].question,
        tuple(rows),
        (table,),
        seeds="0, weights and image",
        count=f"1, median of up to {repeats} runs",
        device=device,
    )


def _measured(size: Size, case: Case, device: str, repeats: int) -> dict[str, NDArray[np.float64]]:
    """Return the seconds of runs of each length, and the peak in MiB; NaN where memory is too small."""
    few = _budgets(case)
    seconds = _seconds(size, case, device, few, repeats)
    peak = _peak(size, case, device, few[-1])
    return {
        "seconds": np.array([seconds[steps] for steps in few]),
        "peak": np.array([np.nan if peak is None else peak]),
    }


def _budgets(case: Case) -> tuple[int, ...]:
    """Return the lengths of two runs; their difference in time is that of the steps between."""
    if case.method == "encoder":
        return (0,)
    return (1, 3) if DEFAULTS[case.method].iterations > 2 else (1, 2)


def _row(size: Size, case: Case, device: str, measured: dict[str, NDArray[np.float64]]) -> dict[str, Any]:
    default, few = DEFAULTS[case.method].iterations, _budgets(case)
    seconds, peak = measured["seconds"].tolist(), float(measured["peak"][0])
    start, step = seconds[0], 0.0
    if len(few) > 1:
        step = max(0.0, (seconds[1] - seconds[0]) / (few[1] - few[0]))
        start = max(0.0, start - few[0] * step)
    theirs = size is STABLE_DIFFUSION and not case.tile
    published = PUBLISHED_COSTS.get((case.video, case.method, case.precision)) if theirs else None
    channels, height, width = shape_of(size, case)
    return {
        "frames": channels // 3,
        "method": case.method,
        "precision": case.precision,
        "tile": case.tile,
        "height": height,
        "width": width,
        "device": device,
        "seconds_start": start,
        "seconds_step": step,
        "steps_default": default,
        "seconds_default": start + default * step,
        "seconds_budget": start + _BUDGET * step if len(few) > 1 else None,
        "published_seconds": published[0] if published else None,
        "peak_mib": None if np.isnan(peak) else peak,
        "published_peak_mib": published[1] if published else None,
    }


def _seconds(size: Size, case: Case, device: str, budgets: tuple[int, ...], repeats: int) -> dict[int, float]:
    """Return the median seconds of runs of each length, in turns after a warm-up; NaN where memory is too small.

    No further round is started after `_LONG` seconds.
    """
    import torch

    times: dict[int, list[float]] = {steps: [] for steps in budgets}
    try:
        problem, begun = problem_at(size, case, device), time.perf_counter()
        for number in range(repeats + 1):
            if number > 1 and time.perf_counter() - begun > _LONG:
                break
            for steps in budgets:
                started = time.perf_counter()
                invert(
                    problem, case.method, case.settings(steps)
                )  # the result is on the processor, so all work is done
                if number:
                    times[steps].append(time.perf_counter() - started)
    except torch.OutOfMemoryError:
        return dict.fromkeys(budgets, float("nan"))
    finally:
        if device == "cuda":
            torch.cuda.empty_cache()
    return {steps: statistics.median(found) for steps, found in times.items()}


def _peak(size: Size, case: Case, device: str, steps: int) -> float | None:
    import torch

    try:
        return peak_of(work, (size, case, device, steps), device).tensors
    except torch.OutOfMemoryError:
        return None
