"""Attacks: what each does to pixels, and that an attack is the same as its text."""

from __future__ import annotations

import io
import pickle

import numpy as np
import pytest
from PIL import Image

from treering_verify import attacks
from treering_verify.attacks import ATTACKS, RANGES, Attack, parse
from treering_verify.errors import UsageError


def picture(width: int = 53, height: int = 40) -> Image.Image:
    pixels = np.random.default_rng(3).integers(0, 256, (height // 4 + 1, width // 4 + 1, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)


def extremes() -> list[Attack]:
    """Return every attack by default and at both ends of each range."""
    ends = [Attack(a, {p: end}) for a, ranges in RANGES.items() for p, limits in ranges.items() for end in limits]
    return [Attack(name) for name in ATTACKS] + ends


@pytest.mark.parametrize("attack", extremes(), ids=str)
def test_attacks_keep_size_mode_and_original_and_repeat_exactly(attack: Attack) -> None:
    image = picture()
    before = image.tobytes()
    once, again = attack.apply(image, seed=5), attack.apply(image, seed=5)
    assert (once.size, once.mode) == (image.size, "RGB")
    assert once.tobytes() == again.tobytes()
    assert image.tobytes() == before
    assert attack.apply(Image.new("RGB", (8, 1), "red")).size == (8, 1)


@pytest.mark.parametrize("name", ATTACKS)
def test_defaults_change_the_image_and_only_noise_uses_the_seed(name: str) -> None:
    first, second = (Attack(name).apply(picture(), seed) for seed in (1, 2))
    assert first.tobytes() != picture().tobytes()
    assert (first.tobytes() != second.tobytes()) == (name == "noise")


@pytest.mark.parametrize(("name", "format_name"), [("jpeg", "JPEG"), ("webp", "WEBP")])
def test_compression_is_the_codecs_own_bytes_decoded(name: str, format_name: str) -> None:
    buffer = io.BytesIO()
    picture().save(buffer, format=format_name, quality=30)
    expected = Image.open(buffer).convert("RGB")
    assert Attack(name, {"quality": 30}).apply(picture()).tobytes() == expected.tobytes()


@pytest.mark.parametrize(("colour", "low", "high"), [("white", 160, 255), ("black", 0, 95)])
def test_noise_is_clipped_and_never_wraps(colour: str, low: int, high: int) -> None:
    noisy = np.asarray(attacks.noise(Image.new("RGB", (64, 64), colour), sigma=0.05))
    assert low <= noisy.min() <= noisy.max() <= high


def test_noise_has_the_standard_deviation_asked_for() -> None:
    noisy = np.asarray(attacks.noise(Image.new("RGB", (128, 128), (128, 128, 128)), sigma=0.05)) / 255
    assert abs(noisy.std() - 0.05) < 0.001
    assert abs(noisy.mean() - 128 / 255) < 0.001


def test_geometry_goes_the_documented_way() -> None:
    image = Image.new("RGB", (40, 40), "white")
    image.paste("red", (10, 10, 30, 30))
    assert (np.asarray(attacks.crop_scale(image, share=0.5)) == [255, 0, 0]).all()
    assert attacks.rotate(image, degrees=45).getpixel((0, 0)) == (0, 0, 0)
    corner = Image.new("RGB", (40, 40))
    corner.putpixel((39, 0), (255, 255, 255))
    assert attacks.rotate(corner, degrees=90).getpixel((0, 0)) == (255, 255, 255)
    assert attacks.flip(corner).getpixel((0, 0)) == (255, 255, 255)
    assert attacks.flip(attacks.flip(picture())).tobytes() == picture().tobytes()
    assert (np.asarray(attacks.brightness(Image.new("RGB", (8, 8), (100, 200, 0)), factor=1.5)) == [150, 255, 0]).all()


@pytest.mark.parametrize("name", ["blur", "resize"])
def test_blurring_attacks_remove_detail_and_keep_the_mean(name: str) -> None:
    image = Image.fromarray(np.random.default_rng(4).integers(64, 192, (48, 48, 3), dtype=np.uint8))
    before, after = (np.asarray(i).astype(float) for i in (image, Attack(name).apply(image)))
    assert abs(before.mean() - after.mean()) < 2
    assert np.abs(np.diff(after, axis=1)).mean() < np.abs(np.diff(before, axis=1)).mean() / 2


@pytest.mark.parametrize("attack", extremes(), ids=str)
def test_text_and_attack_are_the_same(attack: Attack) -> None:
    assert parse(str(attack)) == attack
    assert hash(parse(str(attack))) == hash(attack)
    assert pickle.loads(pickle.dumps(attack)) == attack


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("jpeg", "jpeg:quality=75"),
        (" jpeg: quality = 25 ", "jpeg:quality=25"),
        ("rotate:degrees=-9", "rotate:degrees=-9.0"),
        ("noise:sigma=5e-2", "noise:sigma=0.05"),
        ("flip:", "flip"),
    ],
)
def test_texts_become_canonical(text: str, canonical: str) -> None:
    assert str(parse(text)) == canonical


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("jpg", "choose from jpeg, webp, noise"),
        ("", "choose from jpeg"),
        ("jpeg:q=3", "quality .a whole number from 1 to 100, default 75"),
        ("jpeg:quality", "quality .a whole number from 1 to 100"),
        ("jpeg:quality=high", "quality .a whole number"),
        ("jpeg:quality=0", "from 1 to 100"),
        ("jpeg:quality=101", "from 1 to 100"),
        ("jpeg:quality=25.5", "whole number"),
        ("jpeg:quality=25,quality=30", "cannot read 'quality=30'"),
        ("noise:sigma=nan", "from 0 to 1"),
        ("noise:sigma=inf", "from 0 to 1"),
        ("flip:seed=3", "it takes no parameters"),
        ("noise:seed=3", "no parameter 'seed'"),
    ],
)
def test_wrong_texts_are_answered_with_what_exists(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse(text)


def test_every_attack_has_the_ranges_of_its_own_parameters() -> None:
    assert list(RANGES) == list(ATTACKS)
    for name in ATTACKS:
        assert set(Attack(name).parameters) == set(RANGES[name])
    with pytest.raises(UsageError, match="not allowed"):
        Attack("jpeg", {"quality": True})


def test_only_rgb_images_and_whole_seeds_are_taken() -> None:
    with pytest.raises(UsageError, match="open_image"):
        Attack("flip").apply(Image.new("L", (8, 8)))
    with pytest.raises(UsageError, match="seed"):
        Attack("noise").apply(picture(), seed=-1)
