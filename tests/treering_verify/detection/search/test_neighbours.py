"""What was done to an image is named only if it shows the key better than its neighbours do."""

from __future__ import annotations

import io

import numpy as np
import pytest
from helpers.places import SAMPLES
from PIL import Image, ImageOps

import treering_verify as tv
from treering_verify.detection.search.neighbours import MARGIN, beats
from treering_verify.detection.search.target import Target
from treering_verify.media.images import open_image

BICUBIC = Image.Resampling.BICUBIC


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def test_a_lead_that_chance_explains_singles_nothing_out() -> None:
    rng = np.random.default_rng(5)
    leads = 0
    for seed in range(400):
        key = tv.Key.generate((4, 32, 32), seed=seed)
        target = Target(key.name, key.fingerprint, key.family, key.numbers)
        common = 0.7 * key.numbers + rng.normal(size=len(key.numbers))  # both hypotheses show the key alike
        one, other = (common + 0.3 * rng.normal(size=len(common)) for _ in range(2))
        leads += beats(one, other, target, 1)
        assert beats(key.numbers, common, target, 17) and not beats(common, key.numbers, target, 1)
        assert not beats(one, one, target, 1)
    assert leads <= 400 * 10**-MARGIN + 3


@pytest.mark.parametrize(
    ("change", "said", "unsaid"),
    [
        (lambda image: ImageOps.expand(image, 2, "black"), "in the box 2, 2 to 130, 130", "scaled"),
        (lambda image: jpeg(ImageOps.expand(image, 8, "white"), 85), "in the box 8, 8 to 136, 136", "turned"),
        (lambda image: image.rotate(10, BICUBIC).crop((13, 13, 115, 115)).resize((128, 128)), "turned by 10", "near"),
        (ImageOps.mirror, "mirrored", "near"),
        (ImageOps.invert, "colours inverted", "near"),
        (lambda image: image.crop((13, 13, 115, 115)).resize((128, 128), BICUBIC), "scaled to 1.25", "turned"),
    ],
    ids=["border", "white border", "turned", "mirrored", "inverted", "cropped"],
)
def test_framed_turned_and_scaled_images_are_said_to_be_that(
    sample_key: tv.Key, change: object, said: str, unsaid: str
) -> None:
    page = change(open_image(SAMPLES / "marked-0.png"))  # type: ignore[operator]
    verdict = tv.verify(page, sample_key, model=tv.load_model("landscape"))
    assert verdict.verdict == "detected" and verdict.best is not None
    assert said in verdict.best.hypothesis and unsaid not in verdict.best.hypothesis, verdict.best.hypothesis
