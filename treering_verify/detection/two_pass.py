"""Invert and test a batch of images, in one pass or in two: a cheap screening pass, then the full one for what it leaves."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from treering_verify.detection.screening import SCREENS, Screening, spent
from treering_verify.inversion.decoder.solution import Solution
from treering_verify.inversion.recovery import InversionOptions, recover_noise
from treering_verify.models import LatentModel
from treering_verify.results import KeyEvidence

if TYPE_CHECKING:
    import torch

    FindEvidence = Callable[[torch.Tensor, torch.Tensor], Sequence[tuple[KeyEvidence, ...]]]
    Recover = Callable[[torch.Tensor], tuple[torch.Tensor, Solution]]

FIRST, FULL = "first", "full"


@dataclass(frozen=True)
class Finding:
    """What was found in one image.

    Attributes
    ----------
    evidence : tuple of KeyEvidence
        Strongest first; the adjusted p-value of the first is what alpha is compared with.
    residual : float
        NaN where the method computes none.
    status : str
        How the decoder inversion ended (`Solution.status`).
    converged : bool
    visible : float
        Share of the image that is visible.
    seconds : float
        This image's share of the time of every pass that it went through.
    decided_by : {"first", "full"} or None
        Which of two passes decided; None where there was one.
    log10_first : float or None
        Log10 p of the screening pass, of its strongest key alone, divided by no share; None where there was none.
    """

    evidence: tuple[KeyEvidence, ...]
    residual: float
    status: str
    converged: bool
    visible: float
    seconds: float
    decided_by: str | None = None
    log10_first: float | None = None


def find(
    model: LatentModel,
    images: torch.Tensor,
    evidence: FindEvidence,
    inversion: InversionOptions,
    screening: Screening | None,
    alpha: float,
) -> list[Finding]:
    """Test images (B, 3, H, W), in one pass, or in two as `screening` says (`Screening.of` the model)."""

    def in_full(batch: torch.Tensor) -> tuple[torch.Tensor, Solution]:
        return recover_noise(model, batch, inversion)

    if screening is None:
        return _one_pass(images, evidence, in_full)
    screen = SCREENS[screening.method]
    screened = _one_pass(images, evidence, lambda batch: screen(model, batch))
    findings = [
        replace(
            finding,
            evidence=spent(finding.evidence, screening.share),
            decided_by=FIRST,
            log10_first=finding.evidence[0].log10_pvalue,
        )
        for finding in screened
    ]
    unclear = [i for i, one in enumerate(screened) if not screening.settles(one.evidence[0].log10_adjusted, alpha)]
    if unclear:
        for i, finding in zip(unclear, _one_pass(images[unclear], evidence, in_full), strict=True):
            findings[i] = replace(
                finding,
                evidence=spent(finding.evidence, 1 - screening.share),
                seconds=finding.seconds + screened[i].seconds,
                decided_by=FULL,
                log10_first=findings[i].log10_first,
            )
    return findings


def _one_pass(images: torch.Tensor, evidence: FindEvidence, recover: Recover) -> list[Finding]:
    started = time.perf_counter()
    noise_hat, solution = recover(images)
    found = evidence(noise_hat.cpu(), images)
    seconds = (time.perf_counter() - started) / len(images)
    return [
        Finding(
            evidence=evidence_of_image,
            residual=float(solution.residual[i]),
            status=solution.status[i],
            converged=solution.converged[i],
            visible=solution.visible[i],
            seconds=seconds,
        )
        for i, evidence_of_image in enumerate(found)
    ]
