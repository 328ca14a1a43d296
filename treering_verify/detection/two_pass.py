"""What one or two passes over a batch of images say of each: the evidence, and which pass decided."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from treering_verify.detection.identification import search
from treering_verify.detection.screening import SCREENS, Screening, spent
from treering_verify.inversion.decoder.solution import Solution
from treering_verify.inversion.recovery import InversionOptions, recover_noise
from treering_verify.models import LatentModel
from treering_verify.results import KeyEvidence
from treering_verify.watermark.keys.index import KeyIndex

if TYPE_CHECKING:
    import torch

FIRST, FULL = "first", "full"


@dataclass(frozen=True)
class Answer:
    """What was found in one image.

    Attributes
    ----------
    evidence : tuple of KeyEvidence
        The strongest key's; its adjusted p-value is what alpha is compared with.
    residual : float
        NaN where the method computes none.
    status : str
        How the decoder inversion ended (`Solution.status`).
    converged : bool
    shown : float
        Share of the image that shows anything.
    seconds : float
        This image's share of the time of every pass that it went through.
    decided_by : {"first", "full"} or None
        Which of two passes decided; None where there was one.
    log10_first : float or None
        Log10 p of the first of two passes, of its strongest key alone, divided by no share; None where there was one.
    """

    evidence: tuple[KeyEvidence, ...]
    residual: float
    status: str
    converged: bool
    visible: float
    seconds: float
    decided_by: str | None = None
    log10_first: float | None = None


def answer(
    model: LatentModel,
    images: torch.Tensor,
    indexes: Sequence[KeyIndex],
    pipeline: InversionOptions,
    screening: Screening | None,
    alpha: float,
) -> list[Answer]:
    """Look for all keys in images (B, 3, H, W), in one pass, or in two as `screening` says (`Screening.of` the model)."""

    def in_full(batch: torch.Tensor) -> tuple[torch.Tensor, Solution]:
        return recover_noise(model, batch, pipeline)

    if screening is None:
        return _look(images, indexes, in_full)
    look = SCREENS[screening.look]
    found = _look(images, indexes, lambda batch: look(model, batch))
    unclear = [i for i, one in enumerate(found) if not screening.settles(one.evidence[0].log10_adjusted, alpha)]
    answers = [
        replace(
            one,
            evidence=spent(one.evidence, screening.share),
            decided_by=FIRST,
            log10_first=one.evidence[0].log10_pvalue,
        )
        for one in found
    ]
    for i, one in zip(unclear, _look(images[unclear], indexes, in_full) if unclear else [], strict=True):
        evidence, seconds = spent(one.evidence, 1 - screening.share), one.seconds + found[i].seconds
        answers[i] = replace(
            one, evidence=evidence, seconds=seconds, decided_by=FULL, log10_first=answers[i].log10_first
        )
    return answers


def _look(
    images: torch.Tensor,
    indexes: Sequence[KeyIndex],
    recover: Callable[[torch.Tensor], tuple[torch.Tensor, Solution]],
) -> list[Answer]:
    started = time.perf_counter()
    noise_hat, solution = recover(images)
    evidence = search(noise_hat.cpu(), indexes, 1)
    seconds = (time.perf_counter() - started) / len(images)
    return [
        Answer(
            found, float(solution.residual[i]), solution.status[i], solution.converged[i], solution.visible[i], seconds
        )
        for i, found in enumerate(evidence)
    ]
