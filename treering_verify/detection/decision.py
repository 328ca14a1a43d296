"""Decide on one image: detected, no evidence, or inconclusive with its reason."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from treering_verify.media.images import CUT_SHORT
from treering_verify.results import DETECTED, INCONCLUSIVE, NO_EVIDENCE, KeyEvidence

LITTLE_VISIBLE = 0.08
"""Share of the image that must be visible for 'no evidence': below it, too many marks are missed (docs/search.md)."""


@dataclass(frozen=True)
class Decision:
    """A verdict on one image; where it is inconclusive, the reason as a code and a sentence."""

    verdict: str
    code: str = ""
    reason: str = ""


def decide(
    evidence: tuple[KeyEvidence, ...],
    alpha: float,
    note: str,
    status: str,
    weakness: str = "",
    visible: float = 1.0,
    searched: bool = False,
    fitted: float | None = None,
) -> Decision:
    """Return the decision on one image. A p-value at or under alpha is a detection, unless the key was fitted.

    Parameters
    ----------
    evidence : tuple of KeyEvidence
        Strongest first, at least one.
    alpha : float
    note : str
        How the image was fitted to the model's size (`Verdict.note`), or "".
    status : str
        How the decoder inversion ended (`Solution.status`).
    weakness : str
        Why marks of this model would be missed (`Profile.weakness`), or "".
    visible : float
        Share of the image that is visible (`Solution.visible`).
    searched : bool
        Whether the page was searched at all sizes, so that its own size hides nothing.
    fitted : float, optional
        Statistic from which on the strongest key counts as fitted to the image; None if its numbers are derived, or its
        pattern has no such bound.
    """
    if evidence[0].log10_adjusted <= np.log10(alpha):
        if fitted is not None and evidence[0].statistic >= fitted:
            return _fitted(evidence[0])
        return Decision(DETECTED)
    if weakness:
        return Decision(INCONCLUSIVE, "weak_model", weakness)
    if status == "diverged":
        reason = "the decoder inversion found nothing better than its start; verify by the model that made the image"
        return Decision(INCONCLUSIVE, "not_converged", reason)
    if visible < LITTLE_VISIBLE:
        reason = f"{visible:.1%} of the image is visible, the rest is one colour: too little to tell; find the original"
        return Decision(INCONCLUSIVE, "little_visible", reason)
    if note.startswith(CUT_SHORT):
        return Decision(INCONCLUSIVE, "cut_short", f"{note}: a mark may be hidden by that; find the whole file")
    if note and not searched:
        what = "an image of another size, or a video of another length, was cut or scaled since"
        return Decision(INCONCLUSIVE, "size", f"{note}: {what}, which hides a mark; find the original")
    return Decision(NO_EVIDENCE)


def _fitted(strongest: KeyEvidence) -> Decision:
    """Return the decision on a key of free numbers that agrees better with an image than marks do."""
    reason = (
        f"key {strongest.key} {strongest.fingerprint} has free numbers and agrees with the image better than marks do "
        f"({strongest.statistic:.4f}): it may have been computed from the image; use a key that is derived from a secret"
    )
    return Decision(INCONCLUSIVE, "fitted_key", reason)
