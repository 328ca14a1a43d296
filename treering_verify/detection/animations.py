"""Animated images: the frame with the strongest evidence counts, corrected for all frames that were judged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from treering_verify.detection.two_pass import Finding


def best_frame(findings: Sequence[Finding], frames: Sequence[int], total: int) -> Finding:
    """Return the finding of the frame with the strongest evidence, corrected for the number of frames that were judged.

    Parameters
    ----------
    findings : sequence of Finding
        One for each frame that was judged; of an image that is not animated the only one, which is returned as it is.
    frames : sequence of int
        Their numbers, from 1; empty for an image that is not animated.
    total : int
        Frames of the animation.
    """
    if not frames:
        return findings[0]
    penalty = math.log10(len(findings))  # Bonferroni: valid however the frames depend on each other
    corrected = [
        replace(
            finding,
            evidence=tuple(
                replace(
                    e,
                    log10_pvalue=min(0.0, e.log10_pvalue + penalty),
                    log10_adjusted=min(0.0, e.log10_adjusted + penalty),
                    hypothesis=", ".join(filter(None, (f"frame {number} of {total}", e.hypothesis))),
                )
                for e in finding.evidence
            ),
        )
        for finding, number in zip(findings, frames, strict=True)
    ]
    best = min(corrected, key=lambda finding: finding.evidence[0].log10_adjusted)
    return replace(best, seconds=sum(finding.seconds for finding in findings))
