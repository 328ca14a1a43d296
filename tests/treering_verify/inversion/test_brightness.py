"""By which factor an image was brightened, from the image alone."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from treering_verify.attacks import ATTACKS
from treering_verify.inversion.brightness import LEAST_CLIPPED, brightness_factors, clipped_values, divided
from treering_verify.media.conversion import to_tensor

SAMPLES = Path(__file__).parents[3] / "samples"
IMAGES = ("marked-0.png", "marked-1.png", "unmarked-0.png")


def levels(image: torch.Tensor) -> torch.Tensor:
    return ((image + 1) * 127.5).round()


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("factor", [1.47, 2.0, 2.83, 3.7])
def test_what_is_not_clipped_is_restored_exactly(name: str, factor: float) -> None:
    image = Image.open(SAMPLES / name).convert("RGB")
    bright = to_tensor(ATTACKS["brightness"](image, factor=factor))
    clipped = clipped_values(bright)
    if clipped.any(dim=1).float().mean() < LEAST_CLIPPED:
        assert brightness_factors(bright) == [1.0]
        return
    (told,) = brightness_factors(bright)
    assert told == pytest.approx(factor, rel=5e-3)
    restored = levels(divided(bright, torch.tensor([told]), clipped))
    before = levels(to_tensor(image))
    assert torch.equal(restored[~clipped], before[~clipped])
    # Of what is clipped it is known how bright it was at least; within the error of the factor.
    assert (before[clipped] >= restored[clipped] - 1).all()


def test_a_factor_that_rounds_to_the_nearest_is_found_too() -> None:
    pixels = np.asarray(Image.open(SAMPLES / "marked-0.png").convert("RGB")) * 2.57
    bright = to_tensor(Image.fromarray(np.rint(pixels).clip(0, 255).astype(np.uint8)))
    assert brightness_factors(bright)[0] == pytest.approx(2.57, rel=5e-3)


@pytest.mark.parametrize("name", [*IMAGES, "marked-2.png", "unmarked-1.png", "photograph.png"])
def test_images_that_were_not_brightened_have_no_factor(name: str) -> None:
    image = Image.open(SAMPLES / name).convert("RGB")
    darker = ATTACKS["brightness"](image, factor=0.5)
    steeper = ATTACKS["contrast"](image, factor=4.0)  # has gaps too, and values that pile up at black
    fewer = [ATTACKS["quantise"](image, levels=levels) for levels in (8, 16, 32)]
    assert brightness_factors(torch.cat([to_tensor(one) for one in (image, darker, steeper, *fewer)])) == [1.0] * 6


def test_a_codec_hides_the_factor_and_a_white_image_has_none() -> None:
    bright = ATTACKS["brightness"](Image.open(SAMPLES / "marked-0.png").convert("RGB"), factor=3.0)
    coded = io.BytesIO()
    bright.save(coded, "JPEG", quality=90)
    white = Image.new("RGB", bright.size, "white")
    assert brightness_factors(torch.cat([to_tensor(Image.open(coded)), to_tensor(white)])) == [1.0, 1.0]
