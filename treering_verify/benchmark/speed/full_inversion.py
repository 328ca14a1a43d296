"""Both inversions, image to noise, by the precision of autoencoder and network, with and without torch.compile.

Measured on marked and unmarked images, since a precision must not change verdicts. The network's passes run under autocast,
which multiplies in 16 bits, as 16-bit weights would, and computes norms in 32.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from treering_detectors import mean

from treering_verify.benchmark.harness.inversion_methods import sixteen_bits
from treering_verify.benchmark.harness.inversion_paths import decibels
from treering_verify.benchmark.harness.scope import SEEDS, Scope, Truth, truth
from treering_verify.detection.evidence import evidence_of
from treering_verify.errors import UsageError
from treering_verify.inversion.recovery import InversionOptions, recover_noise
from treering_verify.models import Condition, LatentModel, Timestep, device_of
from treering_verify.models.compiling import compile_networks
from treering_verify.models.precision import autocasting, precision_of
from treering_verify.report.findings import Cell, Table
from treering_verify.watermark.keys.key import Key

if TYPE_CHECKING:
    import torch

_BATCH = 8
_LEVEL = -6.0  # log10 of the alpha at which verdicts are compared


@dataclass(frozen=True)
class Precisions:
    """Precision of the autoencoder's and of the network's passes, and whether both are compiled."""

    autoencoder: str = "float32"
    network: str = "float32"
    compiled: bool = False


def precisions_to_compare(sixteen: Sequence[str], *, compiled: bool) -> list[Precisions]:
    """Return float32 first, then each part in 16 bits, then both, and last the compiled ones."""
    found = [Precisions()]
    for kind in sixteen:
        found += [Precisions(kind, "float32"), Precisions("float32", kind), Precisions(kind, kind)]
    return found + (
        [Precisions(compiled=True), *(Precisions(kind, kind, True) for kind in sixteen[:1])] if compiled else []
    )


def measure_full_inversion(
    model: LatentModel, key: Key, known: Truth, scope: Scope
) -> tuple[list[dict[str, Any]], Table]:
    """Invert marked and as many unmarked images in every precision, and compare each result with that of float32.

    Parameters
    ----------
    model : LatentModel
    key : Key
        Key that marks the images of `known`.
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
    chosen = precisions_to_compare(sixteen, compiled=compiled is not None)
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
    header = (
        "autoencoder",
        "network",
        "compiled",
        "difference of the noise estimate from float32 (dB)",
        "NMSE above float32 (dB)",
    )
    return rows, Table(
        "Both inversions by precision, default methods",
        (
            *header,
            "log10 p above float32, marked",
            "largest change of log10 p, unmarked",
            "verdicts changed",
            "s / image",
            "first batch (s)",
        ),
        tuple(lines),
        f"{count} marked and {count} unmarked images, paired by image; verdicts at 1e-6. 16-bit networks run under "
        "autocast. The first batch includes the time of compiling; --quick, or a missing C++ compiler, skips torch.compile.",
    )


def _recovered(model: LatentModel, pixels: torch.Tensor, way: Precisions) -> tuple[torch.Tensor, float, float]:
    """Return the noise estimates, seconds per image after the warm-up, and seconds of the first batch."""
    import torch

    chosen, inversion = _lowered(model, way.network), InversionOptions(precision=precision_of(way.autoencoder))
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
    """Return a copy of the model whose network runs in a precision; the given model is not changed."""
    other = copy.copy(model)

    def denoise(
        z: torch.Tensor, at: Timestep, conditions: Sequence[Condition], guidance: float = 1.0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        with autocasting(precision):
            clean, noise = model.denoise(z, at, conditions, guidance)
        return clean.float(), noise.float()

    other.denoise = denoise  # type: ignore[method-assign]
    return other
