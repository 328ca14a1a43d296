"""'No evidence' is said where marks were measured to be found, and 'inconclusive' elsewhere, with what would help."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from treering_verify.detection.decision import DOMAINS, Decision, decide
from treering_verify.detection.search.settings import LEVELS, OFF
from treering_verify.results import KeyEvidence

NOTHING = (KeyEvidence("key", "00", 0.01, -0.3, -0.3, 1024),)
DONE: dict[str, Any] = {"level": "quick", "fills_page": True, "occluded": None}


def decided(sides: tuple[float, float] = (1.0, 1.0), visible: float = 1.0, **search: Any) -> Decision:
    return decide(NOTHING, 1e-6, "", "tolerance", visible=visible, sides=sides, search={**DONE, **search} or None)


@pytest.mark.parametrize("sides", [(1, 1), (0.5, 0.5), (16, 16), (4, 3), (31.25, 23.4), (9, 16), (16, 9)])
def test_ordinary_photographs_are_no_evidence_once_they_were_searched(sides: tuple[float, float]) -> None:
    for level in LEVELS:
        assert decided(sides, level=level) == Decision("no evidence")


@pytest.mark.parametrize("sides", [(1, 1), (0.5, 0.5), (16, 16)])
def test_without_a_search_images_of_the_models_shape_are_no_evidence_at_any_size(sides: tuple[float, float]) -> None:
    assert decide(NOTHING, 1e-6, "resized", "tolerance", sides=sides) == Decision("no evidence")


def test_another_shape_is_inconclusive_without_a_search_and_the_reason_says_which_would_tell() -> None:
    found = decide(NOTHING, 1e-6, "cropped", "tolerance", sides=(4, 3))
    assert (found.verdict, found.code) == ("inconclusive", "size")
    assert "nothing was searched: try --search quick" in found.reason


@pytest.mark.parametrize(
    ("facts", "code", "words"),
    [
        ({"sides": (0.2, 0.2)}, "size", "larger copy"),
        ({"sides": (1, 9)}, "size", "find the original"),
        ({"fills_page": False}, "size", "--search fast"),
        ({"fills_page": False, "level": "5 s"}, "size", "--search thorough"),
        ({"visible": 0.7}, "little_visible", "--search fast"),
        ({"visible": 0.5}, "little_visible", "--search thorough"),
        ({"visible": 0.5, "level": "fast"}, "little_visible", "--search thorough"),
        ({"visible": 0.2}, "little_visible", "find the original"),
        ({"visible": 0.05}, "little_visible", "too little"),
        ({"level": "fast", "occluded": 0.6}, "covered", "60%"),
        ({"level": "quick", "occluded": 0.6}, "covered", "60%"),
        (
            {"unsearched_boxes": [0.9, 1.2]},
            "boxes",
            "of 0.90 to 1.20 of the model's size, that were not",
        ),
        (
            {"unsearched_boxes": [0.5]},
            "boxes",
            "try --search thorough",
        ),
        ({"unsearched_boxes": [0.9], "level": "5 s"}, "boxes", "--search thorough"),
        ({"unsearched_boxes": [0.37], "level": "thorough"}, "boxes", "cut each out"),
    ],
)
def test_what_lies_outside_of_the_measured_domain_is_inconclusive_with_a_reason(
    facts: dict[str, Any], code: str, words: str
) -> None:
    found = decided(**facts)
    assert (found.verdict, found.code) == ("inconclusive", code) and words in found.reason


def test_every_level_has_a_domain_and_deeper_levels_cover_no_less() -> None:
    assert list(DOMAINS) == [OFF, *LEVELS]
    listed = list(DOMAINS.values())
    for one, next_one in itertools.pairwise(listed):
        assert next_one.smallest <= one.smallest and next_one.shape <= one.shape and next_one.visible <= one.visible
