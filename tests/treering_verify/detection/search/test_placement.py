"""A placement says where an image lies on a page, and a window is cut out of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.mixed_folder import screenshot
from helpers.places import SAMPLES
from PIL import Image, ImageOps

from treering_verify.detection.search.page import Page
from treering_verify.detection.search.placement import Placement, whole
from treering_verify.detection.search.refinement import composed
from treering_verify.media.conversion import to_tensor
from treering_verify.media.images import open_image

SIZE = (128, 128)
BICUBIC = Image.Resampling.BICUBIC


@pytest.fixture(scope="module")
def marked() -> Image.Image:
    return open_image(SAMPLES / "marked-0.png")


def test_a_placement_says_where_it_is_in_words_and_numbers() -> None:
    assert whole((128, 96)).words((128, 96), (96, 128)) == ""
    inside = Placement(95, 107, 128, 128)
    assert inside.box((0, 0, 260, 220)) == (31, 43, 159, 171)
    assert inside.words((260, 220), SIZE) == "in the box 31, 43 to 159, 171"
    turned = Placement(64, 64, 160, 160, 10.0, True)
    words = turned.words((128, 128), SIZE)
    assert words == "mirrored, turned by 10 degrees, scaled to 1.25 of its size, cropped to 0.80 x 0.80 of its sides"
    grown = Placement(71.5, 71.5, 128, 128, 7.0)  # on a page that grew with the turn: nothing was cropped
    assert grown.words((143, 143), SIZE) == "turned by 7 degrees"
    record = turned.record((128, 128), SIZE)
    assert record["scale"] == [1.25, 1.25] and record["mirrored"] and record["degrees"] == 10
    assert inside.enlarged(2).box((0, 0, 520, 440)) == (62, 86, 318, 342)


def test_a_window_at_one_to_one_is_cut_out_exactly_and_says_what_lies_outside(marked: Image.Image) -> None:
    page = Page((screenshot(marked),))
    image, visible = page.window(Placement(95, 107, 128, 128), SIZE)
    assert torch.equal(image, to_tensor(marked)) and bool(visible.all())
    beyond, visible = page.window(Placement(0, 107, 128, 128), SIZE)
    assert visible[..., :64].sum() == 0 and bool(visible[..., 64:].all())
    assert torch.equal(beyond[..., :64], beyond[..., 64:65].expand(-1, -1, -1, 64)), "the edge goes on"


@pytest.mark.parametrize(
    ("degrees", "mirrored"), [(0, True), (90, False), (180, True), (270, True), (10, False), (21, True)]
)
def test_a_window_undoes_what_was_done_to_the_image(marked: Image.Image, degrees: int, mirrored: bool) -> None:
    changed = ImageOps.mirror(marked) if mirrored else marked
    page = Page((changed.rotate(degrees, BICUBIC, expand=True),))
    image, _ = page.window(Placement(page.size[0] / 2, page.size[1] / 2, 128, 128, degrees, mirrored), SIZE)
    error = (image - to_tensor(marked))[..., 8:-8, 8:-8].abs().mean() * 127.5
    assert error < (1e-4 if degrees % 90 == 0 else 3)


def test_placements_on_a_window_are_composed_with_the_windows_own() -> None:
    outer = Placement(70, 50, 100, 80, 33.0, True)
    inner = Placement(60, 70, 120, 110, 12.0)
    both = composed(outer, inner, SIZE)
    u, v = np.array([0.0, 0.3]), np.array([0.0, -0.2])
    x, y = inner.to_page(u, v)
    there = outer.to_page(x / 128 - 0.5, y / 128 - 0.5)
    here = both.to_page(u, v)
    assert both.degrees == pytest.approx(21)
    assert np.abs(np.array(there) - np.array(here))[:, 0].max() < 1e-9
    assert np.abs(np.array(there) - np.array(here)).max() < 3, "up to the shear of a box that is not square"
