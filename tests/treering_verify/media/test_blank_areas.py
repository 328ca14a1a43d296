"""Occluded areas: regions of one colour that were cropped or covered are found, filled, and masked in the noise estimate."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
from helpers.places import SAMPLES
from PIL import Image, ImageDraw, ImageFont

from treering_verify.attacks import parse
from treering_verify.detection.verification import verify, verify_many
from treering_verify.media.blank_areas import drawn_area, fill_occluded, mask_occluded, visible_area
from treering_verify.media.conversion import fit, to_tensor
from treering_verify.media.images import open_image
from treering_verify.models import LatentModel, load_model
from treering_verify.report.text import format_text
from treering_verify.training.landscape.measure import visible
from treering_verify.watermark.keys.key import Key


@pytest.fixture(scope="module")
def model() -> LatentModel:
    return load_model()


@pytest.fixture(scope="module")
def marked() -> list[Image.Image]:
    return [open_image(SAMPLES / f"marked-{i}.png") for i in range(3)]


def shares(images: list[Image.Image]) -> list[float]:
    return [float(visible_area(to_tensor(image)).mean()) for image in images]


def attacked(images: list[Image.Image], attack: str) -> list[Image.Image]:
    return [parse(attack).apply(image, seed) for seed, image in enumerate(images)]


@pytest.mark.parametrize(
    ("attack", "share"),
    [
        ("centre_crop:share=0.75", 0.5625),
        ("random_crop:share=0.9", 0.81),
        ("random_crop:share=0.25", 0.0625),
        ("mask:share=0.25", 0.75),
        ("mask:share=0.9", 0.1),
        ("rotate:degrees=30", 0.845),
        ("centre_crop:share=0.75+jpeg:quality=75", 0.5625),
        ("centre_crop:share=0.75+resize:share=0.5", 0.5625),
    ],
)
def test_what_was_cut_off_or_covered_is_found(attack: str, share: float, marked: list[Image.Image]) -> None:
    assert shares(attacked(marked, attack)) == pytest.approx([share] * 3, abs=0.05)


@pytest.mark.parametrize(
    "attack",
    [
        "jpeg:quality=10",
        "webp:quality=5",
        "quantise:levels=8",
        "quantise:levels=2",
        "brightness:factor=0.1",
        "brightness:factor=2",
        "contrast:factor=2",
        "blur:radius=4",
        "noise:sigma=0.05",
        "resize:share=0.5",
        "crop_scale:share=0.75",
    ],
)
def test_images_that_are_wholly_visible_are_left_alone(attack: str, marked: list[Image.Image]) -> None:
    assert min(shares(attacked(marked, attack))) > 0.9 and np.mean(shares(attacked(marked, attack))) > 0.97


def test_photographs_and_clean_images_are_left_alone(marked: list[Image.Image]) -> None:
    from skimage import data

    photographs = [data.astronaut(), data.coffee(), data.chelsea(), data.rocket(), data.retina(), data.grass()]
    places = [(left, top, left + 200, top + 200) for left in (0, 90, 180) for top in (0, 90)]
    crops = [fit(Image.fromarray(p).convert("RGB").crop(box), (128, 128))[0] for p in photographs for box in places]
    assert np.mean(shares(crops)) > 0.97
    assert shares(marked) == [1.0] * 3


def test_blank_pixels_take_the_nearest_colour_and_visible_ones_keep_theirs(marked: list[Image.Image]) -> None:
    whole = to_tensor(marked[0])
    image = to_tensor(attacked(marked[:1], "centre_crop:share=0.75")[0])
    visible = visible_area(image)
    found = fill_occluded(image, visible)
    inside = visible.bool().expand_as(image)
    assert torch.equal(found[inside], whole[inside])
    assert torch.equal(found[0, :, 0, 64], whole[0, :, 16, 64])  # above the window: its first row
    assert torch.equal(found[0, :, 127, 127], whole[0, :, 111, 111])  # a corner: the window's
    assert torch.equal(fill_occluded(whole, visible_area(whole)), whole)


def test_an_image_of_one_colour_is_occluded_and_left_as_it_is(model: LatentModel, sample_key: Key) -> None:
    blank = Image.new("RGB", (128, 128), (7, 90, 200))
    image = to_tensor(blank)
    assert visible_area(image).sum() == 0 and torch.equal(fill_occluded(image, visible_area(image)), image)
    verdict = verify(blank, sample_key, model=model)
    assert (verdict.verdict, verdict.code, verdict.visible) == ("inconclusive", "little_visible", 0.0)
    assert "original" in verdict.reason and 0 < verdict.pvalue <= 1


def test_noise_is_read_where_it_is_visible_without_its_mean_there() -> None:
    noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)) + 5
    visible = torch.ones(2, 1, 32, 32)
    visible[1, :, :, 16:] = 0
    read = mask_occluded(noise, visible)
    assert torch.equal(read[0], noise[0])
    assert not read[1, :, :, 4:].any() and read[1].mean().abs() < 1e-6
    torch.testing.assert_close(read[1, :, :, :4], noise[1, :, :, :4] - noise[1, :, :, :4].mean((-2, -1), keepdim=True))
    assert torch.equal(mask_occluded(noise, torch.zeros(2, 1, 32, 32)), noise)


@pytest.mark.parametrize("attack", ["centre_crop:share=0.7071", "random_crop:share=0.5", "mask:share=0.75"])
def test_marks_are_found_in_what_is_left(
    attack: str, model: LatentModel, sample_key: Key, marked: list[Image.Image]
) -> None:
    for verdict in verify_many(attacked(marked, attack), sample_key, model=model, search=None):
        assert verdict.verdict == "detected" and verdict.visible < 0.6
        assert f"{1 - verdict.visible:.0%} of it blank" in format_text(verdict)
        assert json.loads(json.dumps(verdict.record()))["visible"] == pytest.approx(verdict.visible, abs=1e-4)


def test_rotated_images_are_rotated_back_without_their_corners(
    model: LatentModel, sample_key: Key, marked: list[Image.Image]
) -> None:
    for verdict in verify_many(attacked(marked, "rotate:degrees=40"), sample_key, model=model, alpha=1e-60):
        assert verdict.verdict == "detected" and "turned by" in verdict.evidence[0].hypothesis


def test_what_the_measure_says_of_frames(model: LatentModel) -> None:
    first, black, *_, nearest, whole, read = visible(model, ["centre_crop:share=0.75"], 1)
    value = {line: float(re.findall(r"median log10 p (-[0-9.]+)", line)[-1]) for line in (black, nearest, whole, read)}
    assert "0.56 visible" in first and "black" in black and "nearest" in nearest
    assert value[nearest] == value[read] < -40 < value[black] and value[whole] < value[nearest]


def test_what_an_autoencoder_cannot_draw_is_told_by_its_own_scale() -> None:
    rng = torch.Generator().manual_seed(0)
    drawn = torch.rand(1, 3, 64, 64, generator=rng) - 0.5
    redrawn = drawn + 0.02 * torch.randn(1, 3, 64, 64, generator=rng)

    def redraw(image: torch.Tensor) -> torch.Tensor:
        return redrawn if image is drawn else drawn

    for loud in (0.02, 0.1):  # a clean file, and one that a codec has gone over
        plain = drawn + loud * torch.randn(1, 3, 64, 64, generator=rng)
        assert drawn_area(plain, redraw, 4).min() == 1, "an even misfit is no occlusion"
        covered = plain.clone()
        covered[..., 20:30, 10:50] += 2
        shown = drawn_area(covered, redraw, 4)[0, 0]
        assert shown[20:30, 10:50].max() == 0
        assert 1 - shown.mean() < 2.2 * 400 / 64**2, "and little around it"


def test_an_image_under_text_is_detected_without_what_covers_it(
    model: LatentModel, sample_key: Key, marked: list[Image.Image]
) -> None:
    image = marked[0].copy()
    draw = ImageDraw.Draw(image)
    for text, top in (("NOBODY EXPECTS", 4), ("THE LANDSCAPE", 106)):
        draw.text((3, top), text, font=ImageFont.load_default(14), fill="white", stroke_width=2, stroke_fill="black")
    plain = verify(image, sample_key, model=model, search=None)
    found = verify(image, sample_key, model=model)
    assert plain.verdict != "detected" and found.verdict == "detected"
    assert found.best is not None and "of it covered" in found.best.hypothesis
