"""The chains of `treering benchmark shared` give pages and say where the image lies on them."""

from __future__ import annotations

import io

from PIL import Image, ImageStat

from treering_verify.benchmark.harness.shared_chains import CHAINS
from treering_verify.benchmark.harness.shared_images import contact_sheet, overlap

IMAGES = [Image.effect_mandelbrot((96, 96), (-2, -1.5, 1, 1.5), 40 + 5 * i).convert("RGB") for i in range(3)]


def test_every_chain_gives_a_page_and_a_box_on_it() -> None:
    assert len(CHAINS) >= 60 and len({chain.name for chain in CHAINS}) == len(CHAINS)
    groups = {"size", "aspect", "frame", "screenshot", "social", "look", "geometry", "composite", "text"}
    assert {chain.group for chain in CHAINS} == groups
    for chain in CHAINS:
        page, box = chain.apply(IMAGES, 1)
        assert page.mode == "RGB" and chain.apply(IMAGES, 1)[0] == page, "the same each time"
        if box is not None:
            assert 0 <= box[0] < box[2] <= page.width and 0 <= box[1] < box[3] <= page.height


SHOWN = {"nine squares of .8, JPEG 85": (10, 10, 86, 86), "cut to 16:9 in an article, JPEG 85": (0, 19, 96, 73)}
"""What of an image some chains show, of 96 pixels each way."""


def test_boxes_hold_the_image() -> None:
    for chain in CHAINS:
        if chain.group not in ("screenshot", "composite") or "over a corner" in chain.name:
            continue
        page, box = chain.apply(IMAGES, 1)
        assert box is not None
        shown, image = page.crop(box), IMAGES[1].crop(SHOWN.get(chain.name, (0, 0, 96, 96)))
        difference = [abs(a - b) for a, b in zip(ImageStat.Stat(shown).mean, ImageStat.Stat(image).mean, strict=True)]
        assert max(difference) < 3, chain.name


def test_the_overlap_of_boxes_is_intersection_over_union() -> None:
    assert overlap((0, 0, 10, 10), (0, 0, 10, 10)) == 1
    assert overlap((0, 0, 10, 10), (5, 0, 15, 10)) == 1 / 3
    assert overlap((0, 0, 10, 10), (20, 0, 30, 10)) == 0


def test_a_contact_sheet_shows_every_page() -> None:
    sheet = Image.open(io.BytesIO(contact_sheet({str(i): image for i, image in enumerate(IMAGES)}, columns=2)))
    assert sheet.size == (2 * 136, 2 * 168)
    assert sheet.crop((4, 204, 100, 300)) == IMAGES[2]
