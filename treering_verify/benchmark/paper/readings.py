"""What a method reached at a number of iterations, and the best that a sweep of its step reaches."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from treering_detectors import Mean, mean

from treering_verify.benchmark.harness.inversion_methods import (
    ADDED,
    Variant,
    compared_precision,
    default,
    published,
    stages_of,
)
from treering_verify.benchmark.harness.laboratory import Judgement, Laboratory
from treering_verify.benchmark.harness.scope import CLEAN

if TYPE_CHECKING:
    import torch

    from treering_verify.benchmark.harness.inversion_paths import Path

PUBLISHED, BEST, DEFAULT = "published", "best step", "default"


@dataclass(frozen=True, eq=False)
class Reading:
    """A method at a number of iterations, on the laboratory's clean images.

    Attributes
    ----------
    lab : Laboratory
    variant : Variant
    iterations : int
    setting : {"published", "best step", "default"}
    path : Path
    """

    lab: Laboratory = field(repr=False)
    variant: Variant
    iterations: int
    setting: str
    path: Path = field(repr=False)

    @property
    def error(self) -> list[float]:
        """NMSE of z_0 of each image, in dB."""
        values: list[float] = self.path.error[min(self.iterations, len(self.path.error) - 1)].tolist()
        return values

    @property
    def nmse(self) -> float:
        """Mean of `error`."""
        return statistics.fmean(self.error)

    @property
    def latent(self) -> torch.Tensor:
        """The latents, (n, C, h, w); the iterations must be one of the variant's budgets."""
        return self.path.latents[self.iterations]

    @cached_property
    def judged(self) -> Judgement:
        """Evidence of the key in the latents."""
        return self.lab.evidence(self.latent)

    @property
    def log10(self) -> float:
        """Median log10 p of the key by the default noise inversion."""
        return statistics.median(self.judged.log10)

    @property
    def naive(self) -> float:
        """Median log10 p of the key by naive noise inversion."""
        return statistics.median(self.judged.naive)

    @cached_property
    def residual(self) -> float:
        """Mean of |E(D(z)) - E(x)|, relative to the start's."""
        return statistics.fmean(self.lab.residual(self.latent, CLEAN))

    def above(self, other: Reading) -> Mean:
        """Return the mean difference to another reading's error in dB, paired by image; negative where this one is lower."""
        return mean([a - b for a, b in zip(self.error, other.error, strict=True)])

    def rows(self, part: str) -> list[dict[str, Any]]:
        """Return the rows of this reading for a part of the page."""
        numbers = {
            "nmse_db": self.error,
            "log10_pvalue": self.judged.log10,
            "log10_pvalue_naive": self.judged.naive,
        }
        return [
            row(part, self.variant.label, self.setting, measure, value, iterations=self.iterations, image=i)
            for measure, values in numbers.items()
            for i, value in enumerate(values)
        ]


def row(
    part: str,
    method: str,
    setting: str,
    measure: str,
    value: float | None,
    *,
    iterations: int | None = None,
    image: int | None = None,
    condition: str = "",
    label: str = "",
) -> dict[str, Any]:
    """Return one row of the Parquet file: all parts of the page share the same fields."""
    return {
        "part": part,
        "method": method,
        "setting": setting,
        "condition": condition,
        "iterations": iterations,
        "image": image,
        "measure": measure,
        "value": value,
        "label": label,
    }


def read(lab: Laboratory, variant: Variant, iterations: int | None = None, setting: str = PUBLISHED) -> Reading:
    """Return a method's reading, by default at its largest budget."""
    return Reading(lab, variant, variant.budgets[-1] if iterations is None else iterations, setting, lab.path(variant))


def best(lab: Laboratory, variants: Iterable[Variant]) -> Reading:
    """Return the reading with the lowest mean error among all budgets of these variants.

    It is chosen on the images that it is reported on, which favours it.
    """
    readings = [read(lab, variant, n, BEST) for variant in variants for n in variant.budgets]
    return min(readings, key=lambda reading: reading.nmse)


def encoder_and_default(lab: Laboratory) -> tuple[Reading, Reading]:
    """Return the readings of the encoder and of the default of verification."""
    chosen = default(refined=lab.model.refine is not None, stages=stages_of(lab.model))
    return read(lab, published(1)[0]), read(lab, chosen, setting=DEFAULT)


def published_variants(lab: Laboratory, longest: int) -> list[Variant]:
    """Return the published methods, with table 1's 16-bit rows where these are compared."""
    return published(longest, compared_precision(lab.model, lab.scope))


_TIMED = ("encoder", "gradient .1 scheduled", "gradient .01 fixed", "adam .01 scheduled", "adam .01 scheduled, 16-bit")


def timed_variants(lab: Laboratory) -> list[Variant]:
    """Return the methods whose seconds the page shows: those of table 1, the default, and a user's own."""
    return [v for v in lab.variants() if v.label in _TIMED or v.is_default or v.family == ADDED]
