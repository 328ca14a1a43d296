"""Decoder inversion at the size that people use: time and peak memory of each method on Stable Diffusion's autoencoder.

Of one image, and of a video whose frames it decodes one by one, as LaVie's does.

Its weights are random: no others can be had where this is built, and neither time nor memory depends on what they are.
Errors do, and none are given. It runs on a GPU where there is one, which is what it is for; on a processor it takes hours.
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

from treering_verify.benchmark.harness.cache import kept
from treering_verify.benchmark.harness.memory import peak_of
from treering_verify.benchmark.harness.scope import Scope, hardware, versions
from treering_verify.benchmark.paper.published_figures import CLIP_SOURCE, PUBLISHED_COSTS, SOURCE
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
_DEAREST = ("gauss-newton",)
_CLIP_METHODS = ("encoder", "forward-step", "adam", "gradient")


@dataclass(frozen=True)
class Size:
    """An autoencoder, its images and videos: channels of its stages, blocks in each, latent channels, pixels on a side.

    A video: frames, height and width.
    """

    channels: tuple[int, ...]
    layers: int
    latent_channels: int
    pixels: int
    video: tuple[int, int, int]

    @property
    def tile(self) -> int:
        """Side of the tiles that are measured beside whole images."""
        return self.pixels // 2


STABLE_DIFFUSION = Size((128, 256, 512, 512), 2, 4, 512, (16, 320, 512))
_SMALL = Size((8, 8), 1, 4, 32, (2, 16, 32))


@dataclass(frozen=True)
class Case:
    """A method, the networks' precision, the side of tiles in pixels (0: whole images), and whether it is of a video."""

    method: str
    precision: str = "float32"
    tile: int = 0
    video: bool = False

    def settings(self, steps: int) -> Settings:
        """Return settings for exactly so many steps: random weights would stop a method anywhere."""
        return replace(unstopped(DEFAULTS[self.method]), iterations=steps)


def cases(size: Size, precisions: tuple[str, ...]) -> list[Case]:
    """Every method that needs nothing trained, in each precision; some on tiles, and some on a video, likewise.

    The dearest come last, for whoever has not the time for all.
    """
    methods = [method for method in METHODS if method not in (*REFINED, *_DEAREST)]
    whole = [Case(method, precision) for precision in precisions for method in methods]
    dearest = [Case(method, precision) for precision in precisions for method in _DEAREST]
    tiles = [Case(method, "float32", size.tile) for method in ("encoder", "forward-step", "gradient")]
    lowered = [p for p in precisions if p != "bfloat16"]  # on a GPU it costs what float16 does
    return whole + tiles + [Case(method, p, video=True) for p in lowered for method in _CLIP_METHODS] + dearest


def shape_of(size: Size, case: Case) -> tuple[int, int, int]:
    """Channels, height and width of what is inverted; a video's frames lie one after another along the channels."""
    frames, height, width = size.video if case.video else (1, size.pixels, size.pixels)
    return 3 * frames, height, width


@cache
def autoencoder_at(size: Size, device: str) -> Any:
    """Autoencoder of random weights, on a device; it stays there for the next case."""
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
    """Pose one image, or video, of noise; the networks' passes run on the device."""
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
    """Prepare a decoder inversion of so many steps, for a process that does nothing else."""
    problem = problem_at(size, case, device)
    return lambda: invert(problem, case.method, case.settings(steps))


def sizes(model: LatentModel, scope: Scope) -> Findings:
    """Time and measure each method on Stable Diffusion's autoencoder, images and a video; the model plays no part."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    size = _SMALL if scope.quick else STABLE_DIFFUSION
    repeats = scope.images(1, 3)
    sixteen = ("float16", "bfloat16") if device == "cuda" else ("bfloat16",)
    chosen = cases(size, ("float32",) if scope.quick else ("float32", *sixteen))
    rows: list[dict[str, Any]] = []
    with scope.progress("Methods", len(chosen)) as advance:
        for case in chosen:
            facts = (hardware(accelerated=device == "cuda"), versions(), size, case, repeats)
            times = kept(scope.folder, "sizes", facts, partial(_measured, size, case, device, repeats))
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
    header = ("frames", "method", "precision", "tiles", "s to start", "s a step", "s by default (steps)")
    frames, height, width = size.video
    table = Table(
        f"Decoder inversion of one image of {size.pixels} x {size.pixels} pixels, and of a video of {frames} frames of "
        f"{height} x {width}, {device}",
        (*header, f"s, {_BUDGET} steps", f"published s, {_BUDGET} steps", "peak (MiB)", "published peak (MiB)"),
        tuple(lines),
        "Random weights, so no errors; stops are off. Peak: above the loaded model, "
        f"{'by the allocator' if device == 'cuda' else 'live tensors in a process of its own'}; empty: out of memory. "
        f"Published: {SOURCE}; videos: {CLIP_SOURCE}; on other cards, and the peak as they count it.",
    )
    return Findings(
        "sizes",
        "What do the decoder inversions cost in time and memory on an autoencoder of Stable Diffusion's size? The model "
        "named below plays no part.",
        tuple(rows),
        (table,),
        seeds="0, weights and image",
        count=f"1, median of up to {repeats} runs",
        device=device,
    )


def _measured(size: Size, case: Case, device: str, repeats: int) -> dict[str, NDArray[np.float64]]:
    """Seconds of runs of each length, and the peak in MiB; NaN where memory does not do."""
    few = _budgets(case)
    seconds = _seconds(size, case, device, few, repeats)
    peak = _peak(size, case, device, few[-1])
    return {
        "seconds": np.array([seconds[steps] for steps in few]),
        "peak": np.array([np.nan if peak is None else peak]),
    }


def _budgets(case: Case) -> tuple[int, ...]:
    """Return the steps of two runs, whose difference in time is that of the steps between."""
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
    """Median seconds of runs of each length, in turns after a warm-up; NaN where memory does not do.

    Once they took `_LONG` seconds no more rounds are begun.
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
                )  # ends on the processor, so nothing is still under way
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
