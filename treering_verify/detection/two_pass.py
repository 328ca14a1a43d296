"""One batch of images, inverted and tested in one pass, or in two: a screening pass, then the full one where needed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from treering_verify.detection.screening import SCREENS, Screening, corrected_for_share
from treering_verify.inversion.decoder.solution import Solution
from treering_verify.inversion.recovery import InversionOptions, recover_noise, restored_factors
from treering_verify.models import LatentModel
from treering_verify.results import KeyEvidence

if TYPE_CHECKING:
    import torch

    FindEvidence = Callable[[torch.Tensor], Sequence[tuple[KeyEvidence, ...]]]
    Recover = Callable[[torch.Tensor], tuple[torch.Tensor, Solution]]

FIRST, FULL = "first", "full"
RESTORED = "over-exposed, restored from brightness"


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
        This image's share of the time of all its passes.
    decided_by : {"first", "full"} or None
        The pass that decided: "first" is the screening pass. None where there was one pass.
    log10_first : float or None
        Log10 p of the strongest key in the screening pass, neither corrected for other keys nor divided by its share of
        alpha; None where there was one pass.
    noise_hat : (C, h, w) float32
        Noise estimate of the pass that decided.
    shown_noise : (C, h, w) float32, optional
        Noise estimate that the strongest evidence is of: `noise_hat`, or that of the part of the page that the search found;
        None where that was found on a map of the whole page.
    share : float
        Part of alpha that this pass had; the adjusted p-values are divided by it already.
    search : dict, optional
        What was searched for in the page, JSON-ready; None where nothing was.
    """

    evidence: tuple[KeyEvidence, ...]
    residual: float
    status: str
    converged: bool
    visible: float
    seconds: float
    decided_by: str | None = None
    log10_first: float | None = None
    noise_hat: torch.Tensor = field(repr=False, kw_only=True)
    share: float = 1.0
    search: dict[str, Any] | None = None
    shown_noise: torch.Tensor | None = field(default=None, repr=False)


def find(
    model: LatentModel,
    images: torch.Tensor,
    evidence: FindEvidence,
    inversion: InversionOptions,
    screening: Screening | None,
    alpha: float,
) -> list[Finding]:
    """Invert and test images (B, 3, H, W): in two passes as `screening` says, or in one where it is None.

    Parameters
    ----------
    model : LatentModel
    images : (B, 3, H, W)
    evidence : callable
        Noise estimates -> per image the evidence, strongest first.
    inversion : InversionOptions
        Inversion of the full pass.
    screening : Screening, optional
        The screening pass, as `Screening.of` returned it for the model.
    alpha : float

    Returns
    -------
    list of Finding
        One for each image, in order.
    """

    def recover_fully(batch: torch.Tensor) -> tuple[torch.Tensor, Solution]:
        return recover_noise(model, batch, inversion)

    factors = restored_factors(model, images, inversion)
    if screening is None:
        return [_of_restored(*one) for one in zip(_one_pass(images, evidence, recover_fully), factors, strict=True)]
    screen = SCREENS[screening.method]
    screened = _one_pass(images, evidence, lambda batch: screen(model, batch))
    findings = [
        replace(
            finding,
            evidence=corrected_for_share(finding.evidence, screening.share),
            decided_by=FIRST,
            share=screening.share,
            log10_first=finding.evidence[0].log10_pvalue,
        )
        for finding in screened
    ]
    undecided = [
        i
        for i, one in enumerate(screened)
        if not screening.settles(one.evidence[0].log10_adjusted, alpha, gated=factors[i] == 1)
    ]
    if undecided:
        for i, found in zip(undecided, _one_pass(images[undecided], evidence, recover_fully), strict=True):
            finding = _of_restored(found, factors[i])
            findings[i] = replace(
                finding,
                evidence=corrected_for_share(finding.evidence, 1 - screening.share),
                seconds=finding.seconds + screened[i].seconds,
                decided_by=FULL,
                share=1 - screening.share,
                log10_first=findings[i].log10_first,
            )
    return findings


def _of_restored(finding: Finding, factor: float) -> Finding:
    """Return a finding that says in words that the image's brightness was restored, where it was."""
    if factor == 1:
        return finding
    words = f"{RESTORED} {factor:.2f}"
    return replace(finding, evidence=tuple(replace(e, hypothesis=words) for e in finding.evidence))


def _one_pass(images: torch.Tensor, evidence: FindEvidence, recover: Recover) -> list[Finding]:
    started = time.perf_counter()
    noise_hat, solution = recover(images)
    noise_hat = noise_hat.cpu()
    found = evidence(noise_hat)
    seconds = (time.perf_counter() - started) / len(images)
    return [
        Finding(
            evidence=evidence_of_image,
            residual=float(solution.residual[i]),
            status=solution.status[i],
            converged=solution.converged[i],
            visible=solution.visible[i],
            seconds=seconds,
            noise_hat=noise_hat[i],
            shown_noise=noise_hat[i],
        )
        for i, evidence_of_image in enumerate(found)
    ]
