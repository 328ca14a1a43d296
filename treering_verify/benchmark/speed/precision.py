"""16-bit compared with 32-bit precision, in decoder inversion and in both inversions: error, evidence, time and memory."""

from __future__ import annotations

import statistics
import time

from treering_detectors import mean

from treering_verify.benchmark.catalogue import BENCHMARKS
from treering_verify.benchmark.harness.inversion_methods import sixteen_bits
from treering_verify.benchmark.harness.inversion_paths import decibels
from treering_verify.benchmark.harness.laboratory import judge
from treering_verify.benchmark.harness.memory import peak_memory
from treering_verify.benchmark.harness.scope import SEEDS, Scope, truth
from treering_verify.benchmark.speed.full_inversion import measure_full_inversion
from treering_verify.inversion.decoder import DEFAULTS, in_precision, invert
from treering_verify.inversion.recovery import problem_of
from treering_verify.models import LatentModel, device_of
from treering_verify.report.findings import Cell, Findings, Table
from treering_verify.watermark.keys.key import Key

_METHODS = ("encoder", "forward-step", "anderson", "learned")


def measure(model: LatentModel, scope: Scope) -> Findings:
    """Invert the same clean images in each precision, in turns, and compare the results image by image."""
    count, first = scope.images(4, 16), SEEDS["precision"]
    key = Key.generate(model.latent_shape, seed=first)
    known = truth(model, key, range(first, first + count))
    pixels = known.pixels()
    tried = (_METHODS[0], _METHODS[-1]) if scope.quick else _METHODS
    precisions = ("float32", *sixteen_bits(device_of(model)))
    methods = [m for m in tried if m != "learned" or model.refine is not None]
    methods += [name for name in scope.methods if name not in methods]
    rows = scope.rows
    lines: list[tuple[Cell, ...]] = []
    with scope.progress("Methods", len(methods) * len(precisions)) as advance:
        for method in methods:
            base: dict[str, list[float]] = {}
            for kind in precisions:
                problem = in_precision(problem_of(model, pixels), kind)
                invert(in_precision(problem_of(model, pixels[:1]), kind), method)  # warm-up
                started = time.perf_counter()
                latent = invert(problem, method).latent
                seconds = (time.perf_counter() - started) / count
                error = decibels(latent, known.latent).tolist()
                judged = judge(model, key, latent)
                base = base or {"error": error, "log10": judged.log10}
                peak = peak_memory(model.name, pixels[:1], method, DEFAULTS[method], kind, device_of(model))
                rows += [
                    {
                        "part": "decoder",
                        "method": method,
                        "precision": kind,
                        "network": "",
                        "compiled": False,
                        "marked": True,
                        "image": i,
                        "nmse_db": error[i],
                        "log10_pvalue": judged.log10[i],
                        "cosine": judged.cosine[i],
                        "agreement_db": None,
                        "seconds": seconds,
                        "seconds_first": None,
                    }
                    for i in range(count)
                ]
                lines.append(
                    (
                        method,
                        kind,
                        mean(error),
                        mean([a - b for a, b in zip(error, base["error"], strict=True)]),
                        mean([a - b for a, b in zip(judged.log10, base["log10"], strict=True)]),
                        f"{statistics.fmean(judged.cosine):.3f}",
                        f"{seconds:.3f}",
                        f"{peak.tensors:.1f}",
                    )
                )
                advance()
    whole_rows, whole_table = measure_full_inversion(model, key, known, scope)
    return Findings(
        "precision",
        BENCHMARKS["precision"].question,
        (*rows, *whole_rows),
        (
            whole_table,
            Table(
                "Decoder inversion by precision, latents always float32",
                (
                    "method",
                    "precision",
                    "NMSE (dB)",
                    "above float32 (dB)",
                    "log10 p above float32",
                    "cosine",
                    "s / image",
                    "peak tensors (MiB)",
                ),
                tuple(lines),
                "Differences: paired by image, mean and 95 % interval. A processor without bfloat16 units emulates them, "
                "which is slower.",
            ),
        ),
        seeds=f"{first} onwards, one key",
        count=str(count),
    )
