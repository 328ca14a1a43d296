"""Peak memory of the decoder inversion of a video compared with the gradient baseline, by both kinds of autoencoder.

Memory does not depend on the values of weights and frames. So the causal autoencoder is a narrow one of the real class with
random weights, and the frames are noise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from treering_verify.benchmark.catalogue import BENCHMARKS
from treering_verify.benchmark.harness.memory import Peak, peak_of
from treering_verify.benchmark.harness.scope import Scope
from treering_verify.inversion.decoder import DEFAULTS, Problem, invert
from treering_verify.models import LatentModel
from treering_verify.models.diffusers.video import by_frame, decode_causally, encode_causally
from treering_verify.report.findings import Cell, Findings, Table

if TYPE_CHECKING:
    import torch

_METHODS = ("encoder", "forward-step", "adam", "gradient")
_APART = "gradient, a frame at a time"
_ITERATIONS = 2  # by then every method here has reached its peak
_GOAL = 1 / 5
_BY_FRAME, _CAUSAL = "by frame", "causal"


def measure(model: LatentModel, scope: Scope) -> Findings:
    """Invert one video by each method in a fresh process, and compare the peak memory."""
    frames, side = scope.images(16, 16), model.image_size
    methods = ("forward-step", "gradient") if scope.quick else _METHODS
    causal_frames, causal_side = (5, (32, 32)) if scope.quick else (17, (64, 64))
    plans: list[tuple[str, str, int, tuple[int, int], Peak]] = []
    with scope.progress("Methods", 2 * len(methods) + 1) as advance:
        for method in (*methods, _APART):
            peak = peak_of(_of_frames, (model.name, frames, side, method))
            plans.append((_BY_FRAME, method, frames, side, peak))
            advance()
        for method in methods:
            peak = peak_of(_of_causal, (causal_frames, causal_side, method))
            plans.append((_CAUSAL, method, causal_frames, causal_side, peak))
            advance()
    baseline = {kind: peak for kind, method, _, _, peak in plans if method == "gradient"}
    rows = scope.rows
    lines: list[tuple[Cell, ...]] = []
    for kind, method, count, (height, width), peak in plans:
        share = peak.tensors / baseline[kind].tensors
        rows.append(
            {
                "autoencoder": kind,
                "method": method,
                "frames": count,
                "height": height,
                "width": width,
                "tensors_mib": peak.tensors,
                "resident_mib": peak.resident,
                "share_of_gradient": share,
            }
        )
        size = f"{count} x {height} x {width}"
        lines.append((kind, method, size, f"{peak.tensors:.1f}", f"{peak.resident:.0f}", f"{share:.3f}"))
    return Findings(
        "videos",
        BENCHMARKS["videos"].question,
        tuple(rows),
        (
            Table(
                "Peak memory above the loaded autoencoder's",
                ("autoencoder", "method", "frames", "tensors (MiB)", "resident (MiB)", "share of gradient's tensors"),
                tuple(lines),
                f"Goal: at most {_GOAL} of the gradient baseline's, which stores the activations of all frames. "
                f"{_BY_FRAME}: the model's own autoencoder, in chunks of frames. {_CAUSAL}: AutoencoderKLWan, narrow, with "
                "random weights, in chunks of four frames; there the baseline cannot process frames one by one, since each "
                "depends on those before.",
            ),
        ),
        seeds="0",
        count=str(frames),
    )


def _of_frames(model_name: str, frames: int, size: tuple[int, int], method: str) -> Callable[[], object]:
    """Return the prepared inversion of a video by the image autoencoder of a model."""
    from treering_verify.models import load_model

    model, video = load_model(model_name), _noise(frames, size)
    if method == _APART:
        problems = [Problem(frame, model.encode, model.decode) for frame in video.split(3, dim=1)]
        return lambda: [_invert(problem, "gradient") for problem in problems]
    channels = model.latent_shape[0]
    problem = Problem(video, by_frame(model.encode, 3), by_frame(model.decode, channels))
    return lambda: _invert(problem, method)


def _of_causal(frames: int, size: tuple[int, int], method: str) -> Callable[[], object]:
    """Return the prepared inversion of a video by a narrow `AutoencoderKLWan`."""
    from functools import partial

    import torch
    from diffusers import AutoencoderKLWan

    torch.manual_seed(0)  # a process of its own
    vae = AutoencoderKLWan(base_dim=16, dim_mult=[1, 2, 4, 4]).eval().requires_grad_(False)
    problem = Problem(_noise(frames, size), partial(encode_causally, vae), partial(decode_causally, vae))
    return lambda: _invert(problem, method)


def _noise(frames: int, size: tuple[int, int]) -> torch.Tensor:
    import torch

    return torch.rand(1, 3 * frames, *size, generator=torch.Generator().manual_seed(0)) * 2 - 1


def _invert(problem: Problem, method: str) -> object:
    settings = DEFAULTS[method]
    return invert(problem, method, replace(settings, iterations=min(_ITERATIONS, settings.iterations)))
