"""Editing repaints the inside of a mask and leaves the latent outside it alone."""

from __future__ import annotations

import pytest
import torch
from PIL import Image, ImageDraw

from treering_verify.errors import ImageError, UsageError
from treering_verify.generation.editing import cells, edit, edit_latent
from treering_verify.inversion import decoder as decoder_inversion
from treering_verify.inversion.recovery import problem_of
from treering_verify.models import LatentModel


def disc(size: int = 128) -> Image.Image:
    mask = Image.new("L", (size, size))
    ImageDraw.Draw(mask).ellipse((40, 40, 90, 90), fill=255)
    return mask


def images(model: LatentModel, count: int = 2) -> torch.Tensor:
    latent = torch.randn(count, *model.latent_shape, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        return model.decode(latent).clamp(-1, 1)


def test_the_latent_outside_the_mask_is_the_inverted_one_to_the_last_bit(tiny_model: LatentModel) -> None:
    image = images(tiny_model)
    inside = cells(disc().convert("RGB"), tiny_model)
    edited = edit_latent(tiny_model, image, inside, ["dusk", "dawn"], steps=4)
    latent = decoder_inversion.invert(problem_of(tiny_model, image)).latent
    outside = ~inside.expand_as(edited)
    assert torch.equal(edited[outside], latent[outside])
    assert ((edited - latent)[~outside].abs() > 1e-3).float().mean() > 0.9


def test_a_cell_is_inside_when_any_of_its_pixels_is() -> None:
    class Shape:
        latent_shape = (4, 32, 32)

    mask = Image.new("RGB", (128, 128))
    mask.putpixel((5, 9), (255, 255, 255))  # x, y
    mask.putpixel((100, 60), (90, 90, 90))  # darker than mid-grey
    inside = cells(mask, Shape())  # type: ignore[arg-type]
    assert inside.nonzero().tolist() == [[0, 0, 2, 1]]


def test_the_prompt_and_the_strength_matter(tiny_model: LatentModel) -> None:
    image, inside = images(tiny_model, 1), cells(disc().convert("RGB"), tiny_model)
    base = edit_latent(tiny_model, image, inside, ["dusk"], steps=6)
    other = edit_latent(tiny_model, image, inside, ["dawn"], steps=6)
    weak = edit_latent(tiny_model, image, inside, ["dusk"], steps=6, strength=0.2)
    latent = decoder_inversion.invert(problem_of(tiny_model, image)).latent
    assert not torch.equal(base, other)
    assert (weak - latent).norm() < (base - latent).norm()


def test_an_image_of_any_mode_and_size_is_fitted_to_the_models(tiny_model: LatentModel) -> None:
    image = Image.new("RGBA", (300, 200), (200, 120, 30, 128))
    mask = Image.new("1", (300, 200))
    ImageDraw.Draw(mask).rectangle((100, 50, 180, 120), fill=1)
    result = edit(tiny_model, image, mask, None, steps=2)
    assert (result.mode, result.size) == ("RGB", (128, 128))


def test_bad_input_is_refused_with_a_reason(tiny_model: LatentModel) -> None:
    image = Image.new("RGB", (128, 128), "teal")
    with pytest.raises(UsageError, match="make them equal"):
        edit(tiny_model, image, disc(100), "dusk")
    with pytest.raises(UsageError, match="mark a region"):
        edit(tiny_model, image, Image.new("L", (128, 128)), "dusk")
    for changes in ({"strength": 0.0}, {"strength": 1.5}, {"steps": 0}):
        with pytest.raises(UsageError, match="strength"):
            edit(tiny_model, image, disc(), "dusk", **changes)
    with pytest.raises(UsageError, match="no class"):
        edit(tiny_model, image, disc(), "noonish")
    with pytest.raises(ImageError):
        edit(tiny_model, b"not an image", disc(), "dusk")
