"""Time and memory of the gradient baseline, as released and implemented without waste.

The released code of Hong et al. (NeurIPS 2024) copies the whole autoencoder on every call and computes the gradients of its
weights in every backward pass. Ours freezes the weights and copies nothing. This benchmark runs both.
"""

from __future__ import annotations

import copy
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from treering_detectors import mean

from treering_verify.benchmark.catalogue import BENCHMARKS
from treering_verify.benchmark.harness.cache import cached
from treering_verify.benchmark.harness.memory import Peak, peak_memory, peak_of
from treering_verify.benchmark.harness.scope import SEEDS, Scope, truth
from treering_verify.inversion.decoder import DEFAULTS, invert, scheduled_step, unstopped
from treering_verify.inversion.recovery import problem_of
from treering_verify.models import LatentModel, device_of
from treering_verify.models.weights import fingerprint
from treering_verify.report.findings import Cell, Findings, Table
from treering_verify.version import __version__

if TYPE_CHECKING:
    import torch

    from treering_verify.models.source import Device


def measure(model: LatentModel, scope: Scope) -> Findings:
    """Time both implementations of the gradient baseline, and Adam without gradients, in turns on one image."""
    rounds, first = scope.images(4, 7), SEEDS["baseline"]
    iterations = 3 if scope.quick else 20
    pixels = truth(model, None, [first], steps=10).pixels()
    plans = {
        name: replace(unstopped(DEFAULTS[method]), iterations=iterations)
        for name, method in (("gradient, fair", "gradient"), ("gradient, as released", "gradient"), ("adam", "adam"))
    }

    def run(name: str) -> torch.Tensor:
        if name == "gradient, as released":
            return released_gradient(model, pixels, iterations, plans[name].step)
        method = "adam" if name == "adam" else "gradient"
        return invert(problem_of(model, pixels), method, plans[name]).latent

    weights = fingerprint(model)

    def time_round(number: int) -> dict[str, Any]:
        spent = {}
        for again in (False, True) if not number else (True,):  # the first round is preceded by a warm-up
            for name in plans:
                started = time.perf_counter()
                run(name)
                if again:
                    spent[name] = np.array(time.perf_counter() - started)
        return spent

    where, step = device_of(model), plans["gradient, as released"].step

    def measure_peak(name: str) -> dict[str, Any]:
        if name == "gradient, as released":
            peak = peak_of(_released, (model.name, pixels.numpy(), step, where), where)
        else:
            peak = peak_memory(model.name, pixels, "adam" if name == "adam" else "gradient", plans[name], device=where)
        return {"peak": np.array([peak.tensors, peak.resident])}

    facts = (weights, __version__, iterations)
    rows: list[dict[str, Any]] = []
    with scope.progress("Rounds", rounds + len(plans)) as advance:
        for number in range(rounds):
            spent = cached(scope.folder, "baseline", (*facts, number), partial(time_round, number))
            rows += [{"round": number, "method": name, "seconds": float(spent[name])} for name in plans]
            advance()
        peaks = {}
        for name in plans:
            kept = cached(scope.folder, "baseline-memory", (*facts, name, model.name), partial(measure_peak, name))
            peaks[name] = Peak(*kept["peak"].tolist())
            advance()
    seconds = {name: [r["seconds"] for r in rows if r["method"] == name] for name in plans}
    lines: list[tuple[Cell, ...]] = []
    for name in plans:
        ratios = [a / b for a, b in zip(seconds[name], seconds["gradient, fair"], strict=True)]
        peak = peaks[name]
        lines.append((name, mean(seconds[name]), mean(ratios), f"{peak.tensors:.1f}", f"{peak.resident:.0f}"))
    return Findings(
        "baseline",
        BENCHMARKS["baseline"].question,
        tuple(rows),
        (
            Table(
                f"{iterations} iterations on one image",
                ("method", "seconds", "ratio to the fair gradient", "peak tensors (MiB)", "peak resident (MiB)"),
                tuple(lines),
                "Mean and 95 % interval over rounds in turns. 'as released': copies the autoencoder on every call and "
                "computes the gradients of its weights. adam: the published gradient-free method, which also evaluates our "
                "residual.",
            ),
        ),
        seeds=str(first),
        count=f"1, {rounds} rounds",
    )


def released_gradient(model: LatentModel, image: torch.Tensor, iterations: int, peak: float) -> torch.Tensor:
    """Run the gradient baseline as released: on a copy of the model, with gradients of its weights."""
    import torch

    duplicate = copy.deepcopy(model)
    for part in vars(duplicate).values():
        if isinstance(part, torch.nn.Module):
            part.requires_grad_(True)
    with torch.no_grad():
        z = duplicate.encode(image).clone()
    z.requires_grad_(True)
    optimiser = torch.optim.Adam([z], lr=peak)
    for k in range(iterations):
        optimiser.param_groups[0]["lr"] = scheduled_step(k, iterations, peak)
        optimiser.zero_grad()
        (duplicate.decode(z) - image).square().sum().backward()
        optimiser.step()
    return z.detach()


def _released(model_name: str, pixels: Any, peak: float, device: str) -> Any:
    """Load the model, and return the call that is to be measured."""
    import torch

    from treering_verify.models import load_model

    model = load_model(model_name, device=cast("Device", device))
    return lambda: released_gradient(model, torch.from_numpy(pixels), 3, peak)
