"""The whole way back, image to noise, by the precision of autoencoder and network, and compiled.

On marked images and on unmarked ones: what a precision must not do is change verdicts. The network's passes are lowered by
autocast, which multiplies in 16 bits as weights in 16 bits would, and sums norms in 32.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from treering_detectors import mean

from treering_verify.benchmark.harness.inversion_paths import decibels
from treering_verify.benchmark.harness.scope import SEEDS, Scope, Truth, truth
from treering_verify.detection.evidence import evidence_of
from treering_verify.errors import UsageError
from treering_verify.inversion.recovery import InversionOptions, recover_noise
from treering_verify.models import Condition, LatentModel, Timestep, device_of
from treering_verify.models.compiling import compile_networks
from treering_verify.models.precision import autocasting
from treering_verify.report.findings import Cell, Table
from treering_verify.watermark.keys.key import Key

if TYPE_CHECKING:
    import torch

_BATCH = 8
_LEVEL = -6.0  # log10 of the alpha at which verdicts are compared


@dataclass(frozen=True)
class Way:
    """Precision of the autoencoder's passes in the decoder inversion and of the network's, and whether both are compiled."""

    autoencoder: str = "float32"
    network: str = "float32"
    compiled: bool = False


def sixteen_bits(device: str) -> tuple[str, ...]:
    """Precisions of 16 bits that are worth a try on a device; processors have no units for float16."""
    return ("bfloat16",) if device == "cpu" else ("bfloat16", "float16")


def ways(sixteen: Sequence[str], *, compiled: bool) -> list[Way]:
    """Float32 first, then each half in 16 bits, then both, and last what is compiled."""
    found = [Way()]
    for kind in sixteen:
        found += [Way(kind, "float32"), Way("float32", kind), Way(kind, kind)]
    return found + ([Way(compiled=True), *(Way(kind, kind, True) for kind in sixteen[:1])] if compiled else [])


def whole_way(model: LatentModel, key: Key, known: Truth, scope: Scope) -> tuple[list[dict[str, Any]], Table]:
    """Take marked images, and as many unmarked ones, back in every way, and compare each with float32's.

    Parameters
    ----------
    model : LatentModel
    key : Key
        In the images of `known`.
    known : Truth
    scope : Scope
        Quick: without torch.compile, which takes minutes.
    """
    import torch

    count = len(known.images)
    others = SEEDS["precision"] + (1 << 20)
    plain = truth(model, None, range(others, others + count))
    pixels = torch.cat([known.pixels(), plain.pixels()])
    noise = torch.cat([known.noise, plain.noise])
    sixteen = sixteen_bits(device_of(model))
    compiled = None if scope.quick else _compiled(model)
    chosen = ways(sixteen, compiled=compiled is not None)
    rows: list[dict[str, Any]] = []
    lines: list[tuple[Cell, ...]] = []
    first: tuple[torch.Tensor, list[float], list[float]] | None = None
    with scope.progress("Precisions", len(chosen)) as advance:
        for way in chosen:
            found, seconds, seconds_first = _recovered(compiled if way.compiled and compiled else model, pixels, way)
            evidence = [e[0] for e in evidence_of(found, [key])]
            log10, error = [e.log10_pvalue for e in evidence], decibels(found, noise).tolist()
            first = first or (found, log10, error)
            agreement = decibels(found, first[0]).tolist() if found is not first[0] else []
            rows += [
                {
                    "part": "whole",
                    "method": "auto",
                    "precision": way.autoencoder,
                    "network": way.network,
                    "compiled": way.compiled,
                    "marked": i < count,
                    "image": i,
                    "nmse_db": error[i],
                    "log10_pvalue": log10[i],
                    "cosine": evidence[i].statistic,
                    "agreement_db": agreement[i] if agreement else None,
                    "seconds": seconds,
                    "seconds_first": seconds_first,
                }
                for i in range(len(pixels))
            ]
            shifts = [a - b for a, b in zip(log10, first[1], strict=True)]
            changed = sum((a <= _LEVEL) != (b <= _LEVEL) for a, b in zip(log10, first[1], strict=True))
            lines.append(
                (
                    way.autoencoder,
                    way.network,
                    "yes" if way.compiled else "no",
                    mean(agreement) if agreement else None,
                    mean([a - b for a, b in zip(error, first[2], strict=True)]),
                    mean(shifts[:count]),
                    max(map(abs, shifts[count:])),
                    f"{changed} of {len(log10)}",
                    f"{seconds:.3f}",
                    f"{seconds_first:.2f}",
                )
            )
            advance()
    header = ("autoencoder", "network", "compiled", "noise_hat from float32's (dB)", "NMSE above float32 (dB)")
    return rows, Table(
        "The whole way back by precision, default methods",
        (
            *header,
            "log10 p above float32, marked",
            "largest change of log10 p, unmarked",
            "verdicts changed",
            "s / image",
            "first batch (s)",
        ),
        tuple(lines),
        f"{count} marked and {count} unmarked images, paired by image; verdicts at 1e-6. The network's 16 bits are "
        "autocast's. The first batch holds what compiling takes; --quick, or no C++ compiler, leaves torch.compile out.",
    )


def _recovered(model: LatentModel, pixels: torch.Tensor, way: Way) -> tuple[torch.Tensor, float, float]:
    """noise_hat, seconds an image when warm, and seconds of the first batch."""
    import torch

    chosen, inversion = _lowered(model, way.network), InversionOptions(precision=way.autoencoder)
    parts, times = pixels.split(min(_BATCH, len(pixels))), []
    found = []
    for part in (parts[0], *parts):  # the first twice, as warm-up
        started = time.perf_counter()
        found.append(recover_noise(chosen, part, inversion)[0])
        times.append(time.perf_counter() - started)
    return torch.cat(found[1:]), sum(times[1:]) / len(pixels), times[0]


def _compiled(model: LatentModel) -> LatentModel | None:
    """Return a compiled copy of the model; None where there is no compiler."""
    try:
        return compile_networks(copy.deepcopy(model))
    except UsageError:
        return None


def _lowered(model: LatentModel, precision: str) -> LatentModel:
    """Return the model with its network's passes in a precision; the given one stays as it is."""
    other = copy.copy(model)

    def denoise(
        z: torch.Tensor, at: Timestep, conditions: Sequence[Condition], guidance: float = 1.0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        with autocasting(precision):
            clean, noise = model.denoise(z, at, conditions, guidance)
        return clean.float(), noise.float()

    other.denoise = denoise  # type: ignore[method-assign]
    return other
