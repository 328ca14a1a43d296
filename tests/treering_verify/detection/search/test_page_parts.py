"""An image in a box of another shape than its own, stretched to it or cut to it, is found there."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.places import SAMPLES
from PIL import Image

import treering_verify as tv
from treering_verify.benchmark.harness.shared_images import in_article, overlap
from treering_verify.detection.exhibits import part_of
from treering_verify.detection.search.changed_windows import BOXES, WINDOWS
from treering_verify.detection.search.frames import drawn_parts
from treering_verify.detection.search.grid import DIRECT, IDENTITY, SHARES
from treering_verify.detection.search.page import Page
from treering_verify.detection.search.page_parts import PARTS, parts_of, passes_of_part
from treering_verify.detection.search.placement import Placement
from treering_verify.detection.search.settings import LEVELS
from treering_verify.detection.search.whole_image import OTHER_WAYS
from treering_verify.media.images import open_image

SIZE = (128, 128)
FAMILY = tv.Key.generate((4, 32, 32), seed=9).family


@pytest.fixture(scope="module")
def marked() -> Image.Image:
    return open_image(SAMPLES / "marked-0.png")


@pytest.mark.parametrize("level", ["quick", pytest.param("fast", marks=pytest.mark.slow)])
def test_an_image_that_was_stretched_into_an_article_is_found_in_its_box(
    sample_key: tv.Key, marked: Image.Image, level: str
) -> None:
    page, box = in_article([marked], 0, width=320 / 128, height=180 / 128)
    assert box is not None
    other = tv.Key.generate((4, 32, 32), seed=3)
    right_key, wrong = (
        tv.verify(page, key, model=tv.load_model("landscape"), search=level) for key in (sample_key, other)
    )
    assert right_key.verdict == "detected" and wrong.verdict != "detected"
    assert right_key.best is not None and right_key.best.placement is not None
    assert overlap(tuple(right_key.best.placement["box"]), box) > 0.95
    across, down = right_key.best.placement["scale"]
    assert across == pytest.approx(2.5, rel=0.02) and down == pytest.approx(1.41, rel=0.02)


def test_boxes_are_found_to_the_pixel_and_paper_under_text_is_none(marked: Image.Image) -> None:
    page, box = in_article([marked], 0, width=320 / 128, height=180 / 128)
    assert box is not None
    found = drawn_parts(Page((page,)), SIZE, 24)
    assert found[0] == box
    below = (box[0], box[3], box[2], page.height)
    assert all(overlap(one, below) < 0.7 for one in found)


def test_every_square_of_a_grid_is_a_part() -> None:
    page = Image.new("RGB", (3 * 100 + 4 * 5, 3 * 90 + 4 * 5), "white")
    boxes = [(5 + 105 * i, 5 + 95 * j, 105 + 105 * i, 95 + 95 * j) for i in range(3) for j in range(3)]
    for i, box in enumerate(boxes):
        page.paste(open_image(SAMPLES / f"marked-{i % 3}.png").crop((14, 19, 114, 109)), box)
    found = drawn_parts(Page((page,)), SIZE, 9)
    for box in boxes:  # the gap may be on either side of an edge
        assert max(overlap(one, box) for one in found) > 0.88


def test_images_and_photographs_have_no_parts(marked: Image.Image) -> None:
    for page in (marked, open_image(SAMPLES / "photograph.png")):
        assert not drawn_parts(Page((page.resize((384, 384), Image.Resampling.BICUBIC),)), SIZE, 24)


def test_parts_share_their_part_of_alpha(marked: Image.Image) -> None:
    page, _ = in_article([marked], 0, width=320 / 128, height=180 / 128)
    for level in LEVELS.values():
        parts = parts_of(Page((page,)), SIZE, level)
        weights = [
            guess.weight
            for part in parts
            for one in passes_of_part(part, SIZE, FAMILY, level, len(parts))
            for guess in one.guesses
        ]
        # Each refined window is tested without what covers it, too, in proportion to its weight.
        assert parts and 0.4 * PARTS < sum(weights) * (1 + WINDOWS / sum(SHARES.values())) <= PARTS * (1 + 1e-12)
    # The image as it is has no second estimate: changed images that were mirrored or turned have a half of that share.
    assert OTHER_WAYS + WINDOWS + PARTS + BOXES <= 2 * OTHER_WAYS <= DIRECT / 5 / 2
    assert sum(SHARES.values()) + DIRECT + IDENTITY == 1


def test_a_part_says_where_an_image_lies_on_the_whole_page(marked: Image.Image) -> None:
    page = Page((marked.resize((400, 300)),), reduced=2.0)
    part = page.cut((100, 50, 300, 200))
    assert part.size == (200, 150) and part.file_size == (800, 600)
    cut = Placement(100, 75, 200, 200)
    assert part.words(cut, SIZE) == (
        "scaled to 3.12 of its size, cropped to 1.00 x 0.75 of its sides, in the box 200, 100 to 600, 400"
    )
    record = part.record(cut, SIZE)
    assert record["box"] == [200, 100, 600, 400] and record["corners"][0] == [200.0, 50.0]


def test_what_is_shown_of_an_image_that_was_cut_is_nothing_else(marked: Image.Image) -> None:
    page, box = in_article([marked], 0, width=320 / 128, height=180 / 128, part=(0, 0.2, 1, 0.7625))
    assert box is not None
    whole = Placement(box[0] + 160, box[1] + 90 + (0.5 - 0.48125) * 320, 320, 320)
    record = Page((page,)).cut(box).record(whole.moved(-box[0], -box[1]), SIZE)
    shown = np.asarray(part_of(Page((page,)), record, SIZE), dtype=np.int16)
    original = np.asarray(marked, dtype=np.int16)
    assert np.abs(shown - original)[28:96].mean() < 8
    assert np.abs(np.diff(shown[:22], axis=0)).max() <= 1  # the edge goes on, and no text shows
