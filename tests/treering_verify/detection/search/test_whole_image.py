"""What may have been done to the whole image is undone, by a share of alpha that was set beforehand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from helpers.places import SAMPLES
from PIL import Image, ImageOps

import treering_verify as tv
from treering_verify.benchmark.harness.shared_images import meme
from treering_verify.detection.search.changed_windows import BOXES, OF_A_WINDOW
from treering_verify.detection.search.estimates import Estimates
from treering_verify.detection.search.grid import DIRECT, SHARES, STAGES
from treering_verify.detection.search.noise_map import NoiseMap
from treering_verify.detection.search.settings import LEVELS
from treering_verify.detection.search.whole_image import looks, looks_for_covers
from treering_verify.media.conversion import to_tensor
from treering_verify.media.images import open_image
from treering_verify.models import LatentModel

SHAPE = (4, 32, 32)
BICUBIC = Image.Resampling.BICUBIC


@pytest.fixture(scope="module")
def marked() -> Image.Image:
    return open_image(SAMPLES / "marked-0.png")


def test_the_weights_of_all_looks_sum_to_their_share(tiny_model: LatentModel) -> None:
    image = to_tensor(open_image(SAMPLES / "marked-0.png").convert("1").convert("RGB"))
    image[..., 40:80, 20:100] = torch.rand(1, 3, 40, 80, generator=torch.Generator().manual_seed(1)).round() * 2 - 1
    own = NoiseMap(torch.zeros(SHAPE), torch.ones(32, 32), (0.25, 0.25))
    for model in (tv.load_model("landscape"), tiny_model):
        tests = looks(Estimates(model, lambda images: images), image, LEVELS["fast"], own)
        total = sum(one.weight * (2 if one.full else 1) for one in tests)
        # What covers windows of the page has the rest: its boxes, and each guess in proportion to its weight.
        of_guesses = 2 * OF_A_WINDOW / STAGES * sum(SHARES.values())
        assert total + BOXES + of_guesses <= DIRECT * (1 + 1e-12)
        words = [one.words for one in tests if one.words]
        upright = [one for one in words if not one.endswith(("mirrored", "degrees"))]
        assert len(upright) >= 3 and len(set(words)) == len(words) == 8 * len(upright), "each in all eight ways"


SLOW = pytest.mark.slow  # one is tested beside its neighbours, and the next two by the case that has all three


@pytest.mark.parametrize(
    ("words", "change"),
    [
        ("its dots smoothed", lambda image: image.convert("1").convert("RGB")),
        pytest.param("colours inverted", ImageOps.invert, marks=SLOW),
        pytest.param("colours inverted, mirrored", lambda image: ImageOps.mirror(ImageOps.invert(image)), marks=SLOW),
        pytest.param(
            "colours inverted, turned by 90 degrees", lambda image: ImageOps.invert(image).rotate(90), marks=SLOW
        ),
        (
            "colours inverted, mirrored, turned by 90 degrees",
            lambda image: ImageOps.mirror(ImageOps.invert(image)).rotate(90),
        ),
        ("red and blue swapped, mirrored", lambda image: ImageOps.mirror(Image.merge("RGB", image.split()[::-1]))),
        ("turned by", lambda image: image.rotate(10, BICUBIC, True, fillcolor="white")),
    ],
)
def test_a_changed_sample_is_detected_and_the_change_is_named(
    sample_key: tv.Key, marked: Image.Image, words: str, change: Callable[[Image.Image], Image.Image]
) -> None:
    verdict = tv.verify(change(marked), sample_key, model=tv.load_model("landscape"))
    assert verdict.verdict == "detected" and verdict.best is not None and words in verdict.best.hypothesis


@pytest.mark.parametrize(("quarters", "mirrored"), [(1, False), (3, True)])
def test_what_was_only_turned_is_not_said_to_have_other_colours(
    sample_key: tv.Key, marked: Image.Image, quarters: int, mirrored: bool
) -> None:
    page = (ImageOps.mirror(marked) if mirrored else marked).rotate(90 * quarters)
    verdict = tv.verify(page, sample_key, model=tv.load_model("landscape"))
    words = ["mirrored"] * mirrored + [f"turned by {90 * quarters} degrees"]
    assert verdict.best is not None and verdict.best.hypothesis == ", ".join(words)


def test_text_is_looked_for_at_quick_where_hard_edges_suggest_it(sample_key: tv.Key, marked: Image.Image) -> None:
    model, quick = tv.load_model("landscape"), LEVELS["quick"]
    written, _ = meme([marked], 0, lines=3)
    assert looks_for_covers(to_tensor(written), quick, model)
    assert not looks_for_covers(to_tensor(marked), quick, model)
    found = tv.verify(written, sample_key, model=model, search="quick")
    assert found.verdict == "detected" and found.best is not None and found.best.hypothesis.endswith("of it covered")
    other = tv.Key.generate(SHAPE, seed=3)
    missed = {
        name: tv.verify(image, other, model=model, search="quick") for name, image in (("text", written), ("", marked))
    }
    left_out = {name: verdict.search["left_out"] for name, verdict in missed.items() if verdict.search}
    assert "other colours" in left_out["text"] and "other colours, and what covers the image" in left_out[""]
    assert missed["text"].search and missed["text"].search["occluded"] > 0.2 and missed[""].search["occluded"] is None
