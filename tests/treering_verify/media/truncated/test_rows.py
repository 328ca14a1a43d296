"""Files that were cut short are judged by what is left, with the share that is missing."""

from __future__ import annotations

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
