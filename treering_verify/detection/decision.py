"""Decide on one image: detected, no evidence, or inconclusive with its reason.

'No evidence' is said where a mark would have been found: of files for which the search that was made was measured to find at
least 95 % of marks, whole or cropped (`DOMAINS`; docs/search.md has the table). Everything else is inconclusive.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from treering_verify.detection.search.settings import LEVELS, MOST_KEYS, OFF
from treering_verify.errors import UsageError
from treering_verify.media.truncated.notes import CUT_SHORT
from treering_verify.results import DETECTED, INCONCLUSIVE, NO_EVIDENCE, KeyEvidence

LITTLE_VISIBLE = 0.08
"""Share of the image that must be visible for 'no evidence': below it, too many marks are missed (docs/search.md)."""


@dataclass(frozen=True)
class Domain:
    """Files of which a search was measured to find at least 95 % of marks (`treering benchmark coverage`).

    Attributes
    ----------
    smallest : float
        Shorter side of the file's image, in sides of the model's.
    shape : float
        Shorter over longer side, relative to the model's: what is thinner is left out.
    visible : float
        Share that must be visible: the rest, of one colour, may be a frame in which the image was shrunk, moved or turned.
    covered : float
        Share that may be covered by what no autoencoder draws, such as text, where the search looked for that.
    """

    smallest: float
    shape: float
    visible: float
    covered: float = 1.0


DOMAINS = {
    OFF: Domain(smallest=0.35, shape=0.97, visible=0.97),
    "quick": Domain(smallest=0.35, shape=0.56, visible=0.81, covered=0.5),
    "fast": Domain(smallest=0.35, shape=0.56, visible=0.64, covered=0.5),
    "thorough": Domain(smallest=0.35, shape=0.56, visible=0.36, covered=0.5),
}
"""By the level of the search: the extremes at which at least 95 % of marks of `landscape` were found.

Repeat: `treering benchmark coverage --output DIR` (docs/search.md#what-no-evidence-covers). Without a search, what
covers an image is not looked for, and has no bound.
"""


FEWEST_BITS = {"JPEG": 1.1, "WEBP": 2.0, "AVIF": 1.9, "HEIF": 1.2, "JXL": 2.1, "JPEG2000": 2.0}
"""Bits for each cell of the latent that a file must have, by its format: with fewer, too many marks are missed.

`media.compression` counts them; docs/search.md says how they were found.
"""

_COARSEST, _GROWTH, _MOST = 61.0, 1.2, 76.0
"""Largest step of a JPEG at the model's size, in levels; how it grows with the file's side; and where that ends."""

_FEWER = f"look for {MOST_KEYS} keys or fewer, for which all of it is searched"


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
    sides: tuple[float, float] | None = None,
    search: Mapping[str, Any] | None = None,
    fitted: float | None = None,
    compressed: tuple[str, float, float] | None = None,
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
    sides : (float, float), optional
        Width and height of the file's image over those of the model's; None for videos.
    search : mapping, optional
        What was searched (`Searched.record`); None where nothing was.
    fitted : float, optional
        Statistic from which on the strongest key counts as fitted to the image; None if its numbers are derived, or its
        pattern has no such bound.
    compressed : (str, float, float), optional
        Lossy format of the file, the bits that it has for each cell of the model's latent, and the step of a JPEG; None of
        other files.
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
    if sides is None:
        if note and not (search and search["fills_page"]):
            what = "a video of another size or length was cut or scaled since"
            return Decision(INCONCLUSIVE, "size", f"{note}: {what}, which hides a mark; find the original")
        return Decision(NO_EVIDENCE)
    return _outside(sides, visible, search, compressed) or Decision(NO_EVIDENCE)


def _outside(
    sides: tuple[float, float],
    visible: float,
    search: Mapping[str, Any] | None,
    compressed: tuple[str, float, float] | None,
) -> Decision | None:
    """Return why a file lies outside of what was measured, and what would help; None if it does not."""
    some_places = search is not None and search.get("candidates") is not None  # a search for the keys of an index
    level = OFF if search is None or some_places else str(search["level"])
    known = level in DOMAINS  # seconds name no level
    domain, shape = DOMAINS[level if known else "quick"], min(sides) / max(sides)
    advice = _FEWER if some_places else _advice(level, min(sides), shape, visible)
    if min(sides) < domain.smallest:
        reason = f"its shorter side is {min(sides):.2f} of the model's: too small to tell; find a larger copy"
        return Decision(INCONCLUSIVE, "size", reason)
    if compressed and (reason := _too_strong(*compressed, min(sides), shape)):
        return Decision(INCONCLUSIVE, "quality", f"{reason}: it was compressed too strongly; find a better copy")
    if shape < domain.shape:
        reason = f"it has another shape than the model's images, so it was cut or stretched, or contains more; {advice}"
        return Decision(INCONCLUSIVE, "size", reason)
    if search is not None and not some_places and not search["fills_page"]:
        reason = f"not all sizes were searched at which an image fills this one; {advice}"
        return Decision(INCONCLUSIVE, "size", reason)
    if boxes := (search or {}).get("unsearched_boxes"):
        sizes = " to ".join(dict.fromkeys(f"{size:.2f}" for size in (boxes[0], boxes[-1])))
        reason = (
            f"boxes are drawn on it, of {sizes} of the model's size, that were not searched; {_larger(level, boxes)}"
        )
        return Decision(INCONCLUSIVE, "boxes", reason)
    if visible < domain.visible:
        reason = f"{1 - visible:.0%} of it is of one colour, so an image may lie in it smaller or turned; {advice}"
        return Decision(INCONCLUSIVE, "little_visible", reason)
    covered = float((search or {}).get("occluded") or 0.0)
    if covered > domain.covered:
        reason = f"{covered:.0%} of it seems to be covered, by text or the like; find the original"
        return Decision(INCONCLUSIVE, "covered", reason)
    return None


def _too_strong(codec: str, bits: float, step: float, side: float, shape: float) -> str:
    """Say why a mark may be lost by compression; "" if it is not.

    A JPEG of calm content has few bits, and one of busy content has many however coarse its steps are: both have a bound.
    """
    bits *= shape  # as many lie within the model's shape
    if bits < FEWEST_BITS.get(codec, 0.0):
        return (
            f"{codec} left {bits:.1f} bits for each cell of the latent, and a mark needs {FEWEST_BITS[codec]:g} or more"
        )
    coarsest = min(_MOST, _COARSEST * side**_GROWTH)
    return f"{codec} has steps of {step:.0f} levels, and a mark needs {coarsest:.0f} or less" if step > coarsest else ""


def _advice(level: str, side: float, shape: float, visible: float) -> str:
    """Say which more thorough search would tell, if one would."""
    names = list(DOMAINS)
    for name in names[names.index(level) + 1 :] if level in names else ["thorough"]:
        domain = DOMAINS[name]
        if side >= domain.smallest and shape >= domain.shape and visible >= domain.visible:
            if level == OFF:  # as asked, or since there is none: for messages, decoys and some patterns
                return f"nothing was searched: try --search {name} where pattern and options allow it"
            return f"try --search {name}"
    return "find the original"


def _larger(level: str, boxes: Sequence[float]) -> str:
    """Say which more thorough search would look for images in boxes of these sizes."""
    names = [name for name in DOMAINS if name in LEVELS]
    for name in names[names.index(level) + 1 :] if level in names else ["thorough"]:
        if boxes[0] >= LEVELS[name].smallest:
            return f"try --search {name}"
    return "cut each out, and verify it by itself"


def _fitted(strongest: KeyEvidence) -> Decision:
    """Return the decision on a key of free numbers that agrees better with an image than marks do."""
    reason = (
        f"key {strongest.key} {strongest.fingerprint} has free numbers and agrees with the image better than marks do "
        f"({strongest.statistic:.4f}): it may have been computed from the image; use a key that is derived from a secret"
    )
    return Decision(INCONCLUSIVE, "fitted_key", reason)


def check_alpha(alpha: float) -> None:
    """Raise UsageError unless alpha lies between 0 and 1."""
    if not 0 < alpha < 1:
        raise UsageError(f"alpha is {alpha}: choose a false-positive rate between 0 and 1, such as 1e-6")
