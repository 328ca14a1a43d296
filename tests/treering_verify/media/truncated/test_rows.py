"""Files that were cut short are judged by what is left, with the share that is missing."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from helpers.hostile.files import chunk
from helpers.images import array, encoded, smooth
from PIL import Image

from treering_verify.errors import ImageError
from treering_verify.media.conversion import fit
from treering_verify.media.images import open_image
from treering_verify.media.truncated.early_end import ends_too_early
from treering_verify.media.truncated.notes import MOST_MISSING

WHOLE = smooth(64, 48)
PASSES = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))


def interlaced_png(image: Image.Image) -> bytes:
    """Return a PNG in the seven passes of Adam7 (PNG specification, section 8.2): first row and column, and steps."""
    pixels = np.asarray(image)
    rows = b"".join(
        b"\0" + row.tobytes() for top, left, down, right in PASSES for row in pixels[top::down, left::right]
    )
    header = struct.pack(">IIBBBBB", image.width, image.height, 8, 2, 0, 0, 1)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


FILES = {
    "bmp": encoded(WHOLE, "BMP"),
    "ppm": encoded(WHOLE, "PPM"),
    "tga": encoded(WHOLE, "TGA"),
    "tiff": encoded(WHOLE, "TIFF"),
    "palette bmp": encoded(WHOLE.quantize(32), "BMP"),
    "gif": encoded(WHOLE.quantize(32), "GIF", interlace=0),
    "interlaced gif": encoded(WHOLE.quantize(32), "GIF", interlace=1),
    "interlaced png": interlaced_png(WHOLE),
}


@pytest.mark.parametrize("kind", FILES)
def test_rows_that_are_there_are_read_and_the_others_are_counted(kind: str) -> None:
    data = FILES[kind]
    whole = array(open_image(data))
    assert abs(whole - array(WHOLE)).mean() < 12 and "cut_short" not in open_image(data).info
    cut = data[: int(0.8 * len(data))]
    image = open_image(cut)
    missing = image.info["cut_short"]
    assert 0.05 < missing < 0.4 and image.size == WHOLE.size
    same = (array(image) == whole).all(axis=(1, 2)).mean()
    assert same >= (0.3 if "interlaced" in kind else 1 - missing - 0.05)
    if "interlaced" in kind:  # the others are those before them
        assert abs(array(image) - whole).mean() < 6


@pytest.mark.parametrize("kind", FILES)
def test_with_less_than_half_of_it_a_file_is_damaged(kind: str) -> None:
    data = FILES[kind]
    for share in (0.2, 0.35):
        with pytest.raises(ImageError) as caught:
            image = open_image(data[: int(share * len(data))])
            assert image.info["cut_short"] > MOST_MISSING  # never
        assert caught.value.code == "cut_short"


def test_a_header_alone_makes_no_rows() -> None:
    for kind in ("bmp", "ppm", "tiff"):
        with pytest.raises(ImageError):
            open_image(FILES[kind][:200])


def test_a_png_whose_only_fault_is_a_checksum_has_all_of_its_rows() -> None:
    data = encoded(WHOLE, "PNG")
    head, pixels = data[:33], data[data.index(b"IDAT") + 4 : data.rindex(b"IEND") - 8]
    wrong = head + chunk(b"IDAT", pixels[:-1] + bytes([pixels[-1] ^ 1])) + chunk(b"IEND", b"")  # that of zlib's stream
    image = open_image(wrong)
    assert (array(image) == array(WHOLE)).all() and "cut_short" not in image.info
    assert fit(image, (48, 64)) == (image, "a checksum in the file is wrong, and all rows are there")


def test_rows_of_one_colour_at_the_end_of_a_png_do_not_count_as_missing() -> None:
    image = WHOLE.copy()
    image.paste((0, 0, 0), (0, 20, 64, 48))
    noise = np.random.default_rng(0).integers(0, 256, (20, 64, 3), np.uint8)
    image.paste(Image.fromarray(noise), (0, 0))
    data = encoded(image, "PNG")
    assert open_image(data[: data.rindex(b"IEND") - 6]).info.get("cut_short", 0.0) < 0.6


def test_a_progressive_jpeg_without_its_last_scans_is_less_sharp() -> None:
    data = encoded(WHOLE, "JPEG", progressive=True)
    image = open_image(data[: int(0.8 * len(data))])
    assert fit(image, (48, 64))[1] == "cut short: the last scans are missing, so the image is less sharp"


@pytest.mark.parametrize("turned", [1, 3, 6, 8])
def test_the_share_that_a_turned_jpeg_lacks_is_that_of_its_file(turned: int) -> None:
    exif = Image.Exif()
    exif[0x112] = turned
    data = encoded(smooth(128, 96), "JPEG", exif=exif.tobytes(), quality=95)
    assert open_image(data[: int(0.75 * len(data))]).info["cut_short"] == pytest.approx(0.25, abs=0.1)
    with pytest.raises(ImageError) as caught:
        open_image(data[: int(0.4 * len(data))])
    assert caught.value.code == "cut_short"


def textured(mode: str, size: tuple[int, int]) -> Image.Image:
    pixels = np.random.default_rng(0).normal(128, 40, (size[1], size[0], 3)).clip(0, 255).astype(np.uint8)
    return Image.fromarray(pixels).convert(mode)


EARLY = {
    "usual": ("RGB", {"subsampling": 2}),
    "restarts": ("RGB", {"restart_marker_rows": 1}),
    "each block restarts": ("RGB", {"restart_marker_blocks": 1, "subsampling": 0}),
    "grey": ("L", {"quality": 95}),
    "cmyk": ("CMYK", {"optimize": True}),
    "progressive": ("RGB", {"progressive": True}),
}


@pytest.mark.parametrize("kind", EARLY)
@pytest.mark.parametrize("size", [(160, 128), (153, 121)])
def test_an_end_marker_within_the_scan_of_a_jpeg_is_told(kind: str, size: tuple[int, int]) -> None:
    mode, options = EARLY[kind]
    data = encoded(textured(mode, size), "JPEG", **options)
    assert not open_image(data).info and not open_image(data + b"appended").info and not open_image(data + data).info
    sharp = "cut short: the last scans are missing, so the image is less sharp"
    for share in (0.65, 0.8):
        place = data.rindex(b"\xff\xda") if kind == "progressive" else int(share * len(data))
        for early in (data[:place] + b"\xff\xd9" + data[place + 2 :], data[:place] + b"\xff\xd9"):
            image = open_image(early)
            if kind == "progressive":
                assert image.info["file_note"] == sharp
                continue
            assert image.info["cut_short"] == pytest.approx(1 - share, abs=0.15)
            assert fit(image, size[::-1])[1].startswith("cut short: ")
            assert array(image)[-1].std() < 1
    if kind == "progressive":  # an end that damage made within the last scan
        damaged = data[:-300] + b"\xff\xd9" + data[-298:]
        assert open_image(damaged).info["file_note"] == sharp
    with pytest.raises(ImageError) as caught:
        place = data.index(b"\xff\xda") + 20
        open_image(data[:place] + b"\xff\xd9" + data[place + 2 :])
    assert caught.value.code == "cut_short" and "too little" in caught.value.reason


def test_a_jpeg_that_is_grey_below_is_whole() -> None:
    image = textured("RGB", (96, 96))
    image.paste((128, 128, 128), (0, 40, 96, 96))
    for options in ({}, {"progressive": True}, {"restart_marker_rows": 1}, {"optimize": True}):
        assert not open_image(encoded(image, "JPEG", **options)).info


def test_a_jpeg_whose_markers_say_nonsense_is_shown_as_decoders_show_it() -> None:
    data = encoded(WHOLE, "JPEG", progressive=True)
    image = Image.open(io.BytesIO(data))
    image.load()
    for place in range(2, len(data), 5):
        for broken in (data[:place] + b"\xff\xd9", data[:place] + b"\xff\xda\0\x09\x03" + data[place:], data[:place]):
            assert ends_too_early(image, broken) in (True, False)  # and no error
