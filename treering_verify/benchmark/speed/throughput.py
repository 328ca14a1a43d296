"""Verification in batches compared with one image at a time, and the time spent outside the networks."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from treering_verify.benchmark.catalogue import BENCHMARKS
from treering_verify.benchmark.harness.scope import SEEDS, Scope
from treering_verify.detection.verification import verify_many
from treering_verify.generation.generator import generate
from treering_verify.inversion.recovery import InversionOptions
from treering_verify.models import LatentModel
from treering_verify.report.findings import Findings, Table
from treering_verify.watermark.keys.key import Key

if TYPE_CHECKING:
    import torch

    from treering_verify.models.protocol import NoiseEstimator

_SIZE = 16
_WHOLE = "treering verification"


def measure(model: LatentModel, scope: Scope) -> Findings:
    """Verify the same images in batches and one by one, in turns, and profile one batch."""
    import torch

    rounds, first = scope.images(2, 7), SEEDS["throughput"]
    key = Key.generate(model.latent_shape, seed=first)
    images = [r.image for r in generate(model, key, seeds=range(first, first + _SIZE), steps=20)]
    rows = scope.rows
    with scope.progress("Rounds", rounds) as advance:
        list(verify_many(images, key, model=model))  # warm-up
        for number in range(rounds):
            timing = {}
            for name, batch_size in (("batch", _SIZE), ("single", 1)):
                started = time.perf_counter()
                list(verify_many(images, key, model=model, inversion=InversionOptions(batch_size=batch_size)))
                timing[name] = (time.perf_counter() - started) / _SIZE
            rows.append({"round": number, **timing, "ratio": timing["single"] / timing["batch"]})
            advance()
    with (
        torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], acc_events=True) as profile,
        torch.profiler.record_function(_WHOLE),  # both times from the profile, whose start and end take seconds
    ):
        list(verify_many(images, key, model=_Timed(model)))
    spent = {event.key: event.cpu_time_total / 1e6 for event in profile.key_averages()}
    whole, inside = spent[_WHOLE], spent[_Timed.LABEL]
    ratios = [r["ratio"] for r in rows]
    table = Table(
        "Throughput of verification",
        ("quantity", "value"),
        (
            ("one by one, per image", f"{statistics.median(r['single'] for r in rows):.3f} s"),
            (f"batch of {_SIZE}, per image", f"{statistics.median(r['batch'] for r in rows):.3f} s"),
            (
                "ratio",
                f"{statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}] over {rounds} rounds"
                " (median, range)",
            ),
            ("outside the networks (torch profiler)", f"{100 * (1 - inside / whole):.1f} % of {whole:.1f} s"),
        ),
    )
    return Findings(
        "throughput",
        BENCHMARKS["throughput"].question,
        (*rows, {"round": None, "profiled_seconds": whole, "network_seconds": inside}),
        (table,),
        seeds=f"{first} onwards",
        count=f"{_SIZE}, {rounds} rounds",
    )


class _Timed:
    """A model whose network passes are labelled in the profile."""

    LABEL = "treering network pass"

    def __init__(self, model: LatentModel) -> None:
        self._model = model
        self.refine = model.refine and (lambda *args: self._labelled("refine", *args))
        self.estimate = model.estimate and _TimedEstimator(model.estimate, self._labelled)

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


class _TimedEstimator:
    """A model's noise estimator whose calls are labelled in the profile."""

    def __init__(self, estimator: NoiseEstimator, labelled: Callable[..., Any]) -> None:
        self.steps, self.points, self._labelled = estimator.steps, estimator.points, labelled

    def __call__(self, trajectory: Sequence[torch.Tensor]) -> torch.Tensor:
        estimate: torch.Tensor = self._labelled("estimate", trajectory)
        return estimate
