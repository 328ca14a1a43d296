"""Which frames of an animation are judged."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.images import array, encoded, smooth
from PIL import Image

from treering_verify.audit.folder import audit_folder
from treering_verify.detection.animations import best_frame
from treering_verify.detection.two_pass import Finding
from treering_verify.detection.verification import verify
from treering_verify.generation.generator import generate
from treering_verify.media.animations import MOST_FRAMES, distinct_frames
from treering_verify.media.conversion import fit
from treering_verify.media.headers.isobmff import count_images
from treering_verify.media.isolation.decoding import decode_frames
from treering_verify.models import load_model
from treering_verify.results import KeyEvidence
from treering_verify.watermark.keys.key import Key

SIZE = (64, 48)


def noise(seed: int) -> Image.Image:
    """Return an image of coarse noise, different for each seed."""
    cells = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return Image.fromarray(cells).resize(SIZE, Image.Resampling.BICUBIC)


def animation(frames: list[Image.Image], kind: str = "WEBP", **options: object) -> bytes:
    """Return an animated file."""
    buffer = io.BytesIO()
    lossless = {"lossless": True} if kind == "WEBP" else {}
    frames[0].save(buffer, kind, save_all=True, append_images=frames[1:], duration=100, **lossless, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "AVIF"])
def test_frames_that_differ_are_found_in_order(kind: str) -> None:
    title, shown = noise(1), noise(2)
    found = distinct_frames(animation([title, title, shown, shown], kind))
    assert found is not None and found.total >= 2
    first, last = found.frames
    assert first.number < last.number
    for frame, wanted in ((first, title), (last, shown)):
        assert abs(array(frame.image).astype(int) - array(wanted)).mean() < 12, "palettes and codecs cost a little"


def test_of_an_image_that_fades_in_the_last_frame_is_among_those_chosen() -> None:
    white = Image.new("RGB", SIZE, "white")
    faded = [Image.blend(white, noise(3), step / 19) for step in range(20)]
    found = distinct_frames(animation(faded))
    assert found is not None and found.total == 20 and len(found.frames) == MOST_FRAMES
    assert found.frames[-1].number == 20 and (array(found.frames[-1].image) == array(noise(3))).all()


def test_many_frames_are_a_few() -> None:
    found = distinct_frames(animation([noise(i) for i in range(30)]))
    assert found is not None and len(found.frames) == MOST_FRAMES and found.total == 30
    assert len({frame.number for frame in found.frames}) == MOST_FRAMES


def test_an_image_that_browsers_never_show_is_no_frame() -> None:
    data = animation([noise(1), noise(2), noise(3)], "PNG", default_image=True)
    found = distinct_frames(data)
    assert found is not None and found.total == 2
    numbers = {frame.number: array(frame.image) for frame in found.frames}
    assert (numbers[1] == array(noise(2))).all() and (numbers[2] == array(noise(3))).all()


def test_the_choice_is_the_same_again() -> None:
    data = animation([noise(i) for i in range(9)])
    one, two = distinct_frames(data), distinct_frames(data)
    assert one is not None and two is not None
    assert [frame.number for frame in one.frames] == [frame.number for frame in two.frames]


@pytest.mark.parametrize("data", [encoded(smooth(), "PNG"), encoded(smooth(), "GIF"), b"", b"GIF89a", b"text"])
def test_what_has_one_frame_is_no_animation(data: bytes) -> None:
    assert distinct_frames(data) is None


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_damage_raises_nothing(kind: str) -> None:
    data = animation([noise(1), noise(2), noise(3)], kind)
    generator = np.random.default_rng(0)
    for _ in range(30):
        damaged = bytearray(data[: generator.integers(20, len(data))])
        for place in generator.integers(0, len(damaged), 3):
            damaged[place] = generator.integers(0, 256)
        found = distinct_frames(bytes(damaged))
        assert found is None or 1 <= len(found.frames) <= MOST_FRAMES


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "AVIF"])
def test_of_an_animation_that_was_cut_short_the_whole_frames_are_judged(kind: str) -> None:
    data = animation([noise(i) for i in range(8)], kind)
    whole = distinct_frames(data)
    assert whole is not None and "file_note" not in whole.frames[0].image.info
    cut = data[: int(0.7 * len(data))]
    for found in (distinct_frames(cut), decode_frames(cut)):
        assert found is not None and 2 <= len(found.frames) <= MOST_FRAMES
        assert max(frame.number for frame in found.frames) < 8
        for frame in found.frames:
            assert abs(array(frame.image) - array(noise(frame.number - 1))).mean() < 14, (
                "palettes and codecs cost a little"
            )
            note = fit(frame.image, SIZE[::-1])[1]
            assert re.fullmatch(
                r"cut short or damaged: its first [2-7] frames are whole, and no other can be read", note
            )


def test_of_an_animation_with_one_whole_frame_that_is_judged() -> None:
    for kind in ("GIF", "PNG", "WEBP"):
        data = animation([noise(i) for i in range(8)], kind)
        (frame,) = decode_frames(data[: len(data) // 5]).frames
        assert abs(array(frame.image) - array(noise(0))).mean() < 14
        assert fit(frame.image, SIZE[::-1])[1].startswith("cut short or damaged: its first frame is whole"), kind


def heic(count: int, primary: int, last: Image.Image | None = None) -> bytes:
    """Return a HEIC with several still images."""
    pillow_heif = pytest.importorskip("pillow_heif")
    file = pillow_heif.HeifFile()
    for seed in range(count):
        file.add_from_pillow(noise(seed))
    if last:
        file.add_from_pillow(last)
    buffer = io.BytesIO()
    file.save(buffer, quality=95, primary_index=primary)
    return buffer.getvalue()


def test_several_images_of_a_heic_are_judged_and_the_one_that_viewers_show_is_among_them() -> None:
    for primary in (0, 4):
        found = distinct_frames(heic(9, primary))
        assert found is not None and found.total == 9 and len(found.frames) == MOST_FRAMES
        assert primary + 1 in [frame.number for frame in found.frames]
        for frame in found.frames:
            assert abs(array(frame.image) - array(noise(frame.number - 1))).mean() < 8
    assert distinct_frames(heic(1, 0)) is None


def test_images_of_an_avif_beside_the_one_that_viewers_show_are_counted() -> None:
    image = noise(1).convert("RGBA")
    image.putalpha(200)
    data = encoded(image, "AVIF")
    assert distinct_frames(data) is None and count_images(data) == 1  # the other one is its alpha
    (frame,) = decode_frames(data.replace(b"auxl", b"cdsc")).frames
    assert frame.image.size == SIZE
    assert fit(frame.image, SIZE[::-1])[1] == "the file has 2 images, and only the one that viewers show was judged"
    assert count_images(heic(3, 0)) == 3 and count_images(b"") == 0 and count_images(data[:150]) == 0


@pytest.fixture(scope="module")
def marked() -> tuple[Image.Image, Key]:
    key = Key.generate((4, 32, 32), name="mark", seed=1)
    (made,) = generate(load_model("landscape"), key, seeds=[3])
    return made.image, key


def titled(image: Image.Image) -> bytes:
    """Return a WebP that shows a title for a moment, and then an image."""
    return animation([Image.new("RGB", image.size, "navy"), image, image])


def test_a_mark_behind_a_title_is_found_by_verify_and_by_audits_alike(
    marked: tuple[Image.Image, Key], tmp_path: Path
) -> None:
    image, key = marked
    (tmp_path / "titled.webp").write_bytes(titled(image))
    image.save(tmp_path / "still.png")
    model = load_model("landscape")
    alone, behind = (verify(tmp_path / name, key, model=model) for name in ("still.png", "titled.webp"))
    assert behind.verdict == "detected" and behind.best and alone.best
    assert behind.best.hypothesis.startswith("frame ") and " of " in behind.best.hypothesis
    frames = int(behind.note.split(" of ")[0])
    assert behind.best.log10_adjusted == pytest.approx(alone.best.log10_adjusted + np.log10(frames), abs=1e-3)
    rows = {Path(row.path).name: row for row in audit_folder(str(tmp_path), key, model=model)}
    assert {row.verdict for row in rows.values()} == {"detected"}
    assert rows["titled.webp"].hypothesis and rows["titled.webp"].hypothesis.startswith("frame ")


def test_a_mark_in_the_second_image_of_a_heic_and_in_an_animation_that_was_cut_short_is_found(
    marked: tuple[Image.Image, Key], tmp_path: Path
) -> None:
    image, key = marked
    (tmp_path / "two.heic").write_bytes(heic(1, 0, image))
    frames = [Image.new("RGB", image.size, "navy"), image, Image.new("RGB", image.size), *[image.rotate(90)] * 2]
    data = animation(frames, "PNG")
    (tmp_path / "cut.png").write_bytes(data[: int(0.75 * len(data))])
    model = load_model("landscape")
    for name, words in (("two.heic", "2 of 2 frames judged"), ("cut.png", "cut short or damaged: its first ")):
        verdict = verify(tmp_path / name, key, model=model)
        assert verdict.verdict == "detected" and verdict.best and words in verdict.note, verdict
        assert verdict.best.hypothesis.startswith("frame 2 of "), verdict
    rows = {Path(row.path).name: row for row in audit_folder(str(tmp_path), key, model=model)}
    assert {row.verdict for row in rows.values()} == {"detected"}


def test_p_of_an_animation_without_a_key_is_corrected_for_its_frames() -> None:
    findings = [
        Finding(
            (KeyEvidence("k", "0", 0.1, log10, log10, 9),),
            0.0,
            "tolerance",
            True,
            1.0,
            1.0,
            noise_hat=torch.zeros(1, 1, 1),
        )
        for log10 in (-3.0, -0.1, -1.0, -2.0)
    ]
    found = best_frame(findings, (2, 3, 5, 7), 9)
    assert found.evidence[0].log10_adjusted == pytest.approx(-3 + np.log10(4))
    assert found.evidence[0].hypothesis == "frame 2 of 9" and found.seconds == 4.0
    assert best_frame(findings[1:2], (), 0) is findings[1]
