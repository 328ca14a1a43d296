"""Decide on one image: detected, no evidence, or inconclusive with its reason."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from treering_verify.media.images import CUT_SHORT
from treering_verify.results import DETECTED, INCONCLUSIVE, NO_EVIDENCE, KeyEvidence

FITTED_COSINE = 0.995
"""Cosine of image and key from which on the key was probably computed from the image.

Of 16 clean images of `landscape`, each under a key of the pattern `random`, the largest was 0.906. Other patterns and models
have not been measured: keys of few numbers, such as those of `rings`, have larger cosines.
"""


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
    """
    if evidence[0].log10_adjusted <= np.log10(alpha):
        return _fitted(evidence[0]) or Decision(DETECTED)
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


def _fitted(strongest: KeyEvidence) -> Decision | None:
    """Return the decision on a key that agrees better with an image than any inversion could, or None.

    Signs give at most log10(2) = 0.3 for each number compared, so the p-value tells that the statistic is a cosine.
    """
    near = strongest.statistic >= FITTED_COSINE
    if not near or strongest.log10_pvalue > -0.5 * strongest.degrees_of_freedom:
        return None
    reason = (
        f"cosine {strongest.statistic:.4f}: no inversion recovers a mark so well, so the key was probably computed from "
        "the image; derive the key again from its secret"
    )
    return Decision(INCONCLUSIVE, "fitted_key", reason)
