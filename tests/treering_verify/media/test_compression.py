"""The bits of a file that code its pixels, whatever else the file holds."""

from __future__ import annotations

import io
import struct

import pytest
from PIL import Image
from skimage import data

from tests.helpers.images import encoded
from treering_verify.media.compression import compression_of
from treering_verify.media.formats import register

PHOTOGRAPH = Image.fromarray(data.astronaut()).resize((160, 120))
LOSSY = ("JPEG", "WEBP", "AVIF", "HEIF", "JXL")


def bits(file: bytes, name: str) -> int:
    found = compression_of(file)
    assert found is not None and found.format == name
    return found.bits


@pytest.mark.parametrize("name", LOSSY)
def test_a_coarser_quality_has_fewer_bits_and_the_file_has_room_for_them(name: str) -> None:
    register()
    files = [encoded(PHOTOGRAPH, name, quality=quality) for quality in (2, 20, 80)]
    counts = [bits(file, name) for file in files]
    assert counts == sorted(counts) and counts[2] > 4 * counts[0]
    assert all(8 * len(file) >= count > 8 * (len(file) - 1000) for file, count in zip(files, counts, strict=True))


@pytest.mark.parametrize("name", ["JPEG", "WEBP", "AVIF", "HEIF"])
def test_metadata_and_what_was_appended_are_not_counted(name: str) -> None:
    register()
    exif = Image.Exif()
    exif[0x010E] = "words " * 2000
    bare, told = encoded(PHOTOGRAPH, name, quality=5), encoded(PHOTOGRAPH, name, quality=5, exif=exif)
    assert len(told) > len(bare) + 10_000
    assert abs(bits(told, name) - bits(bare, name)) < 200
    if name in ("JPEG", "WEBP"):  # a motion photo's video; one file of these tests is cut into boxes all through
        assert bits(bare + b"\0\0\0\x18ftypmp42" + bytes(5000), name) == bits(bare, name)


def test_a_thumbnail_is_not_counted() -> None:
    register()
    plain, thumbnailed = (encoded(PHOTOGRAPH, "HEIF", quality=10, **options) for options in ({}, {"thumbnails": [64]}))
    assert len(thumbnailed) > len(plain)
    assert bits(thumbnailed, "HEIF") == bits(plain, "HEIF")


@pytest.mark.parametrize("subsampling", [0, 2])
@pytest.mark.parametrize("quality", [5, 20, 60])
def test_a_jpeg_counts_alike_however_it_is_stored(quality: int, subsampling: int) -> None:
    ways = [{}, {"optimize": True}, {"progressive": True}, {"restart_marker_rows": 4}]
    counts = [
        bits(encoded(PHOTOGRAPH, "JPEG", quality=quality, subsampling=subsampling, **way), "JPEG") for way in ways
    ]
    assert max(counts) < 1.35 * min(counts)


@pytest.mark.parametrize("way", [{}, {"optimize": True}, {"progressive": True}, {"subsampling": 0}])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_jpeg_in_which_nothing_changes_has_next_to_none(mode: str, way: dict[str, object]) -> None:
    flat = encoded(Image.new("RGB", (512, 300), (90, 140, 33)).convert(mode), "JPEG", quality=30, **way)
    assert 8 * len(flat) > 6000 and bits(flat, "JPEG") < 300


def test_a_cut_file_has_the_bits_that_are_left() -> None:
    whole = encoded(PHOTOGRAPH, "JPEG", quality=60)
    assert 0 < bits(whole[: len(whole) // 2], "JPEG") < bits(whole, "JPEG")


def test_files_without_loss_animations_and_damaged_files_have_none() -> None:
    moving = io.BytesIO()
    PHOTOGRAPH.save(moving, "WEBP", save_all=True, append_images=[PHOTOGRAPH.rotate(90)], duration=100)
    files = [encoded(PHOTOGRAPH, name) for name in ("PNG", "GIF", "BMP")]
    files += [moving.getvalue(), encoded(PHOTOGRAPH, "WEBP", lossless=True)]
    files += [encoded(PHOTOGRAPH, "AVIF")[:40], b"\xff\xd8\xff", b"", b"RIFF", b"\0\0\0\x0cjP  "]
    assert [compression_of(file) for file in files] == [None] * len(files)


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", 8 + len(content)) + kind + content


@pytest.mark.parametrize("sizes", [b"\x00\x00", b"\x04\x00", b"\x40\x00"])
def test_a_list_of_billions_of_empty_extents_is_not_walked(sizes: bytes) -> None:
    items = b"".join(struct.pack(">HHH", number, 0, 0xFFFF) for number in range(40_000))
    iloc = box(b"iloc", b"\0\0\0\0" + sizes + struct.pack(">H", 40_000) + items)
    infe = box(b"infe", b"\2\0\0\0\0\1\0\0av01\0")
    iinf = box(b"iinf", b"\0\0\0\0\0\1" + infe)
    file = box(b"ftyp", b"avif\0\0\0\0") + box(b"meta", b"\0\0\0\0" + iinf + iloc)
    assert compression_of(file) is None


def test_the_step_is_that_of_the_luminance_table() -> None:
    steps = []
    for quality in (10, 50, 90):
        found = compression_of(encoded(PHOTOGRAPH, "JPEG", quality=quality))
        assert found is not None
        steps.append(found.step)
    assert steps == [59, 11.8, pytest.approx(2.4, abs=0.21)]
    tables = [[7] * 64, [99] * 64]
    swapped = compression_of(encoded(PHOTOGRAPH, "JPEG", qtables=tables))
    other = compression_of(encoded(PHOTOGRAPH, "WEBP", quality=5))
    assert swapped is not None and swapped.step == 7 and other is not None and other.step == 0
