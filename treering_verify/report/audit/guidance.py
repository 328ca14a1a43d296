"""What a page says of its groups of files and of its numbers, in place."""

from __future__ import annotations

from typing import NamedTuple

from treering_verify.report.audit.digest import ERROR, SKIPPED
from treering_verify.results import DETECTED, INCONCLUSIVE, NO_EVIDENCE


class Guidance(NamedTuple):
    """What a group of files means, and what to do about it."""

    meaning: str
    advice: str


GROUPS = {
    DETECTED: Guidance(
        "The key is in the image's noise. That happens by chance, too, with the probability alpha.",
        "look at the image and at its evidence. Whoever has one marked image can copy its mark, so a mark alone does not "
        "say who published the image. Where p is close to alpha, judge the file again: treering verify --search thorough.",
    ),
    INCONCLUSIVE: Guidance(
        "Too little is left to tell. The reason of each file says what is missing.",
        "ask for the original or a larger copy, and judge it again with treering verify --search thorough.",
    ),
    ERROR: Guidance(
        "The file could not be read, or judging it failed. Nothing is known of it.",
        "see the codes below. Where the cause is gone, the same command with --retry-errors judges these files again.",
    ),
    NO_EVIDENCE: Guidance(
        "None of the keys that were tried is found. That does not mean authentic: marks can be removed, and other "
        "generators have other keys.",
        "nothing, for most. Where a file matters, and for screenshots and collages, try treering verify --search thorough, "
        "and keys that are not listed here.",
    ),
    SKIPPED: Guidance(
        "These are no images that are read here: other files, links, folders, formats that are not read.",
        "see the codes below. An image in a format that is not read can be converted; a link's target can be named.",
    ),
}
"""By label."""

TERMS = {
    "p": "The chance that an image without the mark does at least as well, corrected for all keys and for all that was "
    "searched. Below alpha it is detected. 1e-30 is a 1 after 29 zeros behind the point.",
    "q": "The share of files with a q this small, or smaller, that are expected to be there by chance (Benjamini-Hochberg).",
    "cosine": "How well the image's noise agrees with the key: 1 fully, 0 not at all. What is needed depends on how many "
    "numbers are compared, which p takes into account.",
    "residual": "How far the model is from reproducing the image, relative to it: 0 exactly. It is large where the image "
    "was changed, or another model made it.",
}
"""By the head of a column."""

SCREENED = "screening pass"
FURTHER_TERMS = {
    "key": "Name and fingerprint of the key that was found. A file without a detection has none.",
    SCREENED: "A cheap first test that decides the clear files. The others are inverted in full, and "
    "only they have a residual.",
    "search": "How much was searched for a mark that was moved, scaled, turned or mirrored; docs/search.md.",
}
