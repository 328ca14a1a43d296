"""Attacks: what each does to pixels, and that an attack is the same as its text."""

from __future__ import annotations

import io
import pickle
from itertools import pairwise

import numpy as np
import pytest
from helpers.places import ROOT
from PIL import Image

from treering_verify import attacks
from treering_verify.attacks import ATTACKS, GRIDS, MODEL_ATTACKS, RANGES, Attack, Chain, compression, parse
from treering_verify.errors import ImageError, UsageError

SEEDED = {"noise", "random_crop", "random_crop_scale", "colour_jitter", "mask", "overlay"}
NEUTRAL = [
    "noise:sigma=0",
    "blur:radius=0",
    "crop_scale:share=1",
    "random_crop_scale:share=1",
    "centre_crop:share=1",
    "random_crop:share=1",
    "rotate:degrees=0",
    "resize:share=1",
    "brightness:factor=1",
    "contrast:factor=1",
    "colour_jitter:strength=0",
    "quantise:levels=256",
    "mask:share=0",
    "overlay:opacity=0",
    "screenshot:rounds=0",
    "flip+flip",
]


def sample_image(width: int = 53, height: int = 40) -> Image.Image:
    pixels = np.random.default_rng(3).integers(0, 256, (height // 4 + 1, width // 4 + 1, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)


def scene(width: int = 64, height: int = 64) -> Image.Image:
    """Return an image with large and small structure, as photographs have, and no value near black or white."""
    generator = np.random.default_rng(8)
    pixels = np.zeros((height, width, 3))
    for side in (4, 16, 64):
        coarse = Image.fromarray(generator.integers(0, 256, (side, side, 3), dtype=np.uint8))
        pixels += np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)) / side
    pixels = 60 + 130 * (pixels - pixels.min()) / (pixels.max() - pixels.min())
    return Image.fromarray(pixels.astype(np.uint8))


def distance(first: Image.Image, second: Image.Image) -> float:
    return float(np.sqrt(((np.asarray(first).astype(float) - np.asarray(second)) ** 2).mean()))


def extremes() -> list[Attack]:
    """Return every attack by default and at both ends of each range; those that need a model come last."""
    ends = [Attack(a, {p: end}) for a, ranges in RANGES.items() for p, limits in ranges.items() for end in limits]
    return sorted([Attack(name) for name in RANGES] + ends, key=lambda attack: attack.name in MODEL_ATTACKS)


def extremes_without_model() -> list[Attack]:
    return [attack for attack in extremes() if not attack.needs_model]


@pytest.mark.parametrize("attack", extremes_without_model(), ids=str)
def test_attacks_keep_size_mode_and_original_and_repeat_exactly(attack: Attack) -> None:
    image = sample_image()
    before = image.tobytes()
    once, again = attack.apply(image, seed=5), attack.apply(image, seed=5)
    assert (once.size, once.mode) == (image.size, "RGB")
    assert once.tobytes() == again.tobytes()
    assert image.tobytes() == before
    assert attack.apply(Image.new("RGB", (8, 1), "red")).size == (8, 1)


@pytest.mark.parametrize("name", ATTACKS)
def test_defaults_change_the_image_and_only_some_use_the_seed(name: str) -> None:
    first, second = (Attack(name).apply(sample_image(), seed) for seed in (1, 2))
    assert first.tobytes() != sample_image().tobytes()
    assert (first.tobytes() != second.tobytes()) == (name in SEEDED)


@pytest.mark.parametrize("text", NEUTRAL)
def test_the_neutral_parameter_changes_nothing(text: str) -> None:
    assert parse(text).apply(sample_image(), seed=4).tobytes() == sample_image().tobytes()


# Beyond these an image has nothing in common with itself any more, and pixels cannot tell how far it was moved.
NEAR = {"rotate": 15.0, "crop_scale": 0.9, "random_crop_scale": 0.9}


@pytest.mark.parametrize("curve", [c for c, grid in GRIDS.items() if len(grid) > 1 and not grid[0].needs_model])
def test_distortion_grows_along_the_grid(curve: str) -> None:
    grid = list(GRIDS[curve])
    if curve in NEAR:
        grid = grid[: 1 + [NEAR[curve] in attack.parameters.values() for attack in grid].index(True)]
    distances = [distance(scene(), attack.apply(scene(), seed=11)) for attack in grid]
    tolerance = 0.25  # JPEG 1 and 2 use the same tables; a codec may round a little better at a lower quality
    assert all(b > a - tolerance for a, b in pairwise(distances)), distances
    assert distances[-1] > 2 * distances[0]


def test_grids_name_every_attack_at_different_strengths() -> None:
    assert {attack.name for grid in GRIDS.values() for attack in grid} == set(RANGES)
    assert all(len(set(grid)) == len(grid) and len({a.name for a in grid}) == 1 for grid in GRIDS.values())


@pytest.mark.parametrize(("name", "format_name"), [("jpeg", "JPEG"), ("webp", "WEBP"), ("avif", "AVIF")])
def test_compression_is_the_codecs_own_bytes_decoded(name: str, format_name: str) -> None:
    buffer = io.BytesIO()
    sample_image().save(buffer, format=format_name, quality=30)
    expected = Image.open(buffer).convert("RGB")
    attack = Attack(name, {"quality": 30})
    assert attack.apply(sample_image()).tobytes() == expected.tobytes()
    data, suffix = attack.codec_bytes(sample_image())
    with Image.open(io.BytesIO(data)) as decoded:
        assert decoded.format == format_name and suffix in Image.registered_extensions()
        assert decoded.convert("RGB").tobytes() == expected.tobytes()


def test_a_chain_gives_the_bytes_of_its_last_codec_and_other_attacks_give_none() -> None:
    chain = parse("noise:sigma=0.1+resize:share=0.5+webp:quality=40")
    data, suffix = chain.codec_bytes(sample_image(), seed=3)
    with Image.open(io.BytesIO(data)) as decoded:
        assert decoded.convert("RGB").tobytes() == chain.apply(sample_image(), seed=3).tobytes()
    assert suffix == ".webp"
    assert parse("jpeg+flip").codec_bytes(sample_image()) == (b"", "")


def test_a_missing_codec_is_refused_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("PIL.features.check", lambda name: name != "avif")
    for text in ("avif", "flip+avif:quality=3"):
        with pytest.raises(UsageError, match="no AVIF codec"):
            parse(text).apply(sample_image())
    assert parse("webp").apply(sample_image()).size == sample_image().size


def test_an_image_that_a_codec_cannot_hold_is_an_image_error() -> None:
    with pytest.raises(ImageError) as caught:
        compression.encode(Image.new("RGB", (16384, 8)), "webp", 50)
    assert caught.value.code == "not_encodable"


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
    assert attacks.flip(attacks.flip(sample_image())).tobytes() == sample_image().tobytes()
    assert (np.asarray(attacks.brightness(Image.new("RGB", (8, 8), (100, 200, 0)), factor=1.5)) == [150, 255, 0]).all()


def test_crops_leave_their_content_in_its_place() -> None:
    image, kept = sample_image(40, 40), np.asarray(sample_image(40, 40))
    centre = np.asarray(attacks.centre_crop(image, share=0.5))
    assert (centre[10:30, 10:30] == kept[10:30, 10:30]).all()
    assert centre.astype(bool).any(axis=2).sum() <= 400
    for seed in range(5):
        drawn = np.asarray(attacks.random_crop(image, share=0.5, seed=seed))
        shown = drawn.any(axis=2)
        assert (drawn[shown] == kept[shown]).all()
        rows, columns = np.flatnonzero(shown.any(axis=1)), np.flatnonzero(shown.any(axis=0))
        assert np.ptp(rows) < 20 and np.ptp(columns) < 20


def test_quantising_leaves_that_many_levels_from_black_to_white() -> None:
    ramp = np.tile(np.arange(256, dtype=np.uint8)[None, :, None], (8, 1, 3))
    for levels in (2, 3, 16):
        values = np.unique(np.asarray(attacks.quantise(Image.fromarray(ramp), levels=levels)))
        assert len(values) == levels and values[0] == 0 and values[-1] == 255


def test_a_mask_covers_its_share_in_one_colour_and_a_larger_one_covers_more() -> None:
    white = Image.new("RGB", (100, 80), "white")
    covered = []
    for share in (0.1, 0.25, 0.5):
        changed = (np.asarray(attacks.mask(white, share=share, seed=2)) != 255).any(axis=2)
        assert abs(changed.mean() - share) < 0.02
        covered.append(changed)
    assert (covered[0] <= covered[1]).all() and (covered[1] <= covered[2]).all()
    many = np.asarray(attacks.mask(white, share=0.3, count=5, seed=2)).reshape(-1, 3)
    assert 3 <= len(np.unique(many, axis=0)) <= 6


def test_the_overlay_is_text_as_wide_as_asked_for() -> None:
    drawn = np.asarray(attacks.overlay(Image.new("RGB", (350, 200)), opacity=1.0, share=0.1, seed=0))
    assert set(np.unique(drawn)) == {0, 255}
    assert 0.2 < (drawn == 255).mean() < 0.45
    half = np.asarray(attacks.overlay(Image.new("RGB", (350, 200)), opacity=0.5, share=0.1, seed=0))
    assert ((half > 0) == (drawn > 0)).all() and half.max() == 128


def test_contrast_and_jitter_keep_grey_grey() -> None:
    grey = Image.new("RGB", (16, 16), (90, 90, 90))
    assert attacks.contrast(grey, factor=3.0).tobytes() == grey.tobytes()
    for seed in range(4):
        pixels = np.asarray(attacks.colour_jitter(grey, strength=0.5, seed=seed)).astype(int)
        assert np.ptp(pixels) <= 1 and 44 <= pixels.mean() <= 136


def test_a_screenshot_is_its_documented_steps() -> None:
    white = Image.new("RGB", (50, 50), "white")
    white.paste("black", (1, 1, 49, 49))
    framed = attacks.screenshot(white, scale=1.0, gamma=1.0, crop=0.02, quality=100)
    assert np.asarray(framed).max() < 30  # the white edge was cut off
    mid = Image.new("RGB", (48, 48), (128, 128, 128))
    darker = attacks.screenshot(mid, gamma=2.0, crop=0.0)
    assert abs(np.asarray(darker).mean() - 255 * (128 / 255) ** 2) < 1.5
    twice = attacks.screenshot(attacks.screenshot(scene()))
    assert attacks.screenshot(scene(), rounds=2).tobytes() == twice.tobytes()


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
        ("blur:radius=1e+1", "blur:radius=10.0"),
        (" resize + jpeg : quality=9", "resize:share=0.5+jpeg:quality=9"),
        ("adversarial:budget=2", "adversarial:budget=2,steps=20"),
    ],
)
def test_texts_become_canonical(text: str, canonical: str) -> None:
    assert str(parse(text)) == canonical


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("jpg", "Choose one of jpeg, webp, avif, noise"),
        ("", "choose one of jpeg"),
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
        ("jpeg+", "no attack ''"),
        ("flip+jpg", "no attack 'jpg': did you mean jpeg"),
        ("regenerate_vae:model=1", "no parameter 'model'"),
        ("adversarial:budget=1.5", "whole number"),
    ],
)
def test_wrong_texts_are_answered_with_what_exists(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse(text)


def test_every_attack_has_the_ranges_of_its_own_parameters() -> None:
    assert list(RANGES) == [*ATTACKS, *MODEL_ATTACKS]
    for name in RANGES:
        assert set(Attack(name).parameters) == set(RANGES[name])
    with pytest.raises(UsageError, match="not allowed"):
        Attack("jpeg", {"quality": True})


def test_only_rgb_images_and_whole_seeds_are_taken() -> None:
    with pytest.raises(UsageError, match="open_image"):
        Attack("flip").apply(Image.new("L", (8, 8)))
    with pytest.raises(UsageError, match="seed"):
        Attack("noise").apply(sample_image(), seed=-1)


def test_the_documents_name_every_attack_and_count_them_right() -> None:
    root = ROOT
    described = (root / "docs" / "attacks.md").read_text()
    assert [name for name in RANGES if f"`{name}`" not in described] == []
    assert f"{len(ATTACKS)} distortions of the image alone" in described.replace("\n", " ")
    assert len(MODEL_ATTACKS) == 3  # "three attacks by whoever has the model"


def test_a_chain_is_its_stages_one_after_the_other_and_the_same_as_its_text() -> None:
    chain = parse("noise:sigma=0.1+jpeg:quality=20+noise:sigma=0.1")
    assert isinstance(chain, Chain)
    assert parse(str(chain)) == chain and hash(parse(str(chain))) == hash(chain)
    assert pickle.loads(pickle.dumps(chain)) == chain
    first = Chain(chain.stages[:2])
    expected = chain.stages[1].apply(chain.stages[0].apply(sample_image(), seed=6))
    assert first.apply(sample_image(), seed=6).tobytes() == expected.tobytes()
    assert chain.apply(sample_image(), seed=6).tobytes() == chain.apply(sample_image(), seed=6).tobytes()
    assert chain.apply(sample_image(), seed=6).tobytes() != chain.apply(sample_image(), seed=7).tobytes()
    # A second stage of noise is other noise: the two together are sqrt 2 as strong, not twice.
    grey = Image.new("RGB", (64, 64), (128, 128, 128))
    twice = np.asarray(parse("noise:sigma=0.05+noise:sigma=0.05").apply(grey, seed=1)) / 255
    assert abs(twice.std() - 0.05 * 2**0.5) < 0.003
    with pytest.raises(UsageError, match="at least one"):
        Chain(())


def test_many_images_are_attacked_as_one_by_one() -> None:
    images = [sample_image(), sample_image(16, 16), scene()]
    together = Attack("noise").apply_many(images, [1, 2, 3])
    assert [t.tobytes() for t in together] == [
        Attack("noise").apply(p, s).tobytes() for p, s in zip(images, [1, 2, 3], strict=True)
    ]
    with pytest.raises(UsageError, match="one seed per image"):
        Attack("noise").apply_many(images, [1, 2])
