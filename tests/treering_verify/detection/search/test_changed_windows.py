"""An image that lies on a page, and that text or stickers cover or whose colours are inverted, is found there."""

from __future__ import annotations

import pytest
from helpers.places import SAMPLES
from PIL import Image, ImageOps

import treering_verify as tv
from treering_verify.benchmark.harness.shared_images import meme, overlap, screenshot
from treering_verify.detection.search import changed_windows
from treering_verify.detection.search.changed_windows import BOXES, changed_boxes
from treering_verify.detection.search.estimates import Estimates
from treering_verify.detection.search.grid import Guess
from treering_verify.detection.search.page import Page
from treering_verify.detection.search.placement import Placement
from treering_verify.detection.search.settings import LEVELS
from treering_verify.detection.search.target import Target
from treering_verify.detection.search.window import Candidate, refine
from treering_verify.media.images import open_image

BICUBIC = Image.Resampling.BICUBIC


@pytest.fixture(scope="module")
def marked() -> Image.Image:
    return open_image(SAMPLES / "marked-0.png")


@pytest.fixture(scope="module")
def on_a_page(marked: Image.Image) -> tuple[Image.Image, tuple[int, int, int, int]]:
    written, _ = meme([marked.resize((256, 256), BICUBIC)], 0, lines=2)
    page, box = screenshot([written], 0, page=(1.5, 1.7), width=1.0)
    assert box is not None
    return page, box


@pytest.mark.parametrize("level", ["quick", pytest.param("fast", marks=pytest.mark.slow)])
def test_a_meme_on_a_page_is_found_in_its_box(
    sample_key: tv.Key, on_a_page: tuple[Image.Image, tuple[int, int, int, int]], level: str
) -> None:
    page, box = on_a_page
    verdict = tv.verify(page, sample_key, model=tv.load_model("landscape"), search=level)
    assert verdict.verdict == "detected" and verdict.best is not None and verdict.best.placement is not None
    assert overlap(tuple(verdict.best.placement["box"]), box) > 0.97
    assert "in the box" in verdict.best.hypothesis and verdict.best.hypothesis.endswith("of it covered")
    other = tv.verify(page, tv.Key.generate((4, 32, 32), seed=3), model=tv.load_model("landscape"), search=level)
    assert other.verdict != "detected"


def test_an_image_on_a_page_of_inverted_colours_is_found_in_its_box(sample_key: tv.Key, marked: Image.Image) -> None:
    page, box = screenshot([marked.resize((200, 200), BICUBIC)], 0, page=(1.6, 1.4), width=1.0)
    assert box is not None
    verdict = tv.verify(ImageOps.invert(page), sample_key, model=tv.load_model("landscape"), search="fast")
    assert verdict.verdict == "detected" and verdict.best is not None and verdict.best.placement is not None
    assert overlap(tuple(verdict.best.placement["box"]), box) > 0.97
    assert verdict.best.hypothesis.endswith("colours inverted")


def test_a_guess_under_text_is_moved_and_tested_without_it(
    sample_key: tv.Key, on_a_page: tuple[Image.Image, tuple[int, int, int, int]]
) -> None:
    page, (left, top, right, bottom) = on_a_page
    model = tv.load_model("landscape")
    estimates = Estimates(model, Estimates(model, lambda images: images).by_screen)
    near = Placement((left + right) / 2 + 4, (top + bottom) / 2 - 3, 1.02 * (right - left), 1.02 * (bottom - top))
    guess = Guess(near.width, near.height, 0.0, False, "upright", weight=1e-3)
    candidate = Candidate(0.4, 0.0, near, guess, weight=1e-7, noise_map=None)
    keys = sample_key, tv.Key.generate((4, 32, 32), seed=3)
    targets = [Target("", key.fingerprint, key.family, key.numbers) for key in keys]
    right_key, other = (
        refine(estimates, Page((page,)), target, candidate, 1e-300, LEVELS["fast"]) for target in targets
    )
    assert right_key.log10_pvalue < -20 and right_key.hypothesis.endswith("of it covered") and right_key.record
    assert overlap(tuple(right_key.record["box"]), (left, top, right, bottom)) > 0.95
    assert other.log10_pvalue > -2


def test_boxes_share_their_part_of_alpha(
    on_a_page: tuple[Image.Image, tuple[int, int, int, int]],
) -> None:
    estimates = Estimates(tv.load_model("landscape"), lambda images: images)
    for level in LEVELS.values():
        tests = list(changed_boxes(estimates, Page((on_a_page[0],)), level))
        assert tests and sum(one.weight * (2 if one.full else 1) for one in tests) <= BOXES * (1 + 1e-12)


def test_no_box_is_cut_out_where_none_is_drawn(marked: Image.Image, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changed_windows, "looks", pytest.fail)
    estimates = Estimates(tv.load_model("landscape"), lambda images: images)
    for page in (marked, open_image(SAMPLES / "photograph.png")):
        assert not list(changed_boxes(estimates, Page((page,)), LEVELS["thorough"]))
