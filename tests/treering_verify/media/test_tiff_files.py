"""TIFF files that Pillow reads wrongly: planes of 16 bits, thumbnails that come first, numbers that it does not decode."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from helpers.images import array, encoded, smooth

from treering_verify.errors import ImageError
from treering_verify.media.conversion import fit
from treering_verify.media.images import open_image
from treering_verify.media.isolation.decoding import decode_frames

WHOLE = smooth(48, 40)
SHORT, LONG = 3, 4


def directory(order: str, start: int, pixels: np.ndarray, following: int = 0, **more: int) -> bytes:
    """Return a directory at `start`, with its values and its pixels, which are planes one after another."""
    planes, height, width = pixels.shape
    tags = {
        "subfile": 0,
        "format": 1,
        "compression": 1,
        "sub": 0,
        "photometric": 2,
    } | more
    size = pixels.dtype.itemsize
    lists = start + 2 + 12 * 13 + 4
    place = lists + 6 + 6 + 12 + 12
    entries = [
        (254, LONG, 1, tags["subfile"]),
        (256, LONG, 1, width),
        (257, LONG, 1, height),
        (258, SHORT, 3, lists),
        (259, SHORT, 1, tags["compression"]),
        (262, SHORT, 1, tags["photometric"]),
        (273, LONG, 3, lists + 12),
        (277, SHORT, 1, planes),
        (278, LONG, 1, height),
        (279, LONG, 3, lists + 24),
        (284, SHORT, 1, 2),
        (330 if tags["sub"] else 65000, LONG, 1, tags["sub"]),
        (339, SHORT, 3, lists + 6),
    ]
    entries.sort()
    packed = b"".join(
        struct.pack(f"{order}HHL", *entry[:3])
        + (struct.pack(f"{order}HH", entry[3], 0) if entry[1:3] == (SHORT, 1) else struct.pack(f"{order}L", entry[3]))
        for entry in entries
    )
    step = width * height * size
    values = struct.pack(f"{order}3H", *[8 * size] * 3) + struct.pack(f"{order}3H", *[tags["format"]] * 3)
    values += struct.pack(f"{order}3L", *(place + i * step for i in range(3))) + struct.pack(f"{order}3L", *[step] * 3)
    head = struct.pack(f"{order}H", len(entries)) + packed + struct.pack(f"{order}L", following)
    return head + values + pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()


def planes(kind: str = "u1", step: int = 1) -> np.ndarray:
    pixels = np.moveaxis(np.asarray(WHOLE)[::step, ::step], -1, 0)
    return pixels.astype(kind) * (257 if kind == "u2" else 1)


def tiff(order: str, *parts: bytes) -> bytes:
    return (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}L", 8) + b"".join(parts)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["u1", "u2"])
def test_planes_of_any_depth_are_the_image(order: str, kind: str) -> None:
    assert (array(open_image(tiff(order, directory(order, 8, planes(kind))))) == array(WHOLE)).all()


def test_a_thumbnail_that_comes_first_is_passed_over() -> None:
    small = directory("<", 8, planes(step=4), subfile=1)
    following = 8 + len(small)
    small = directory("<", 8, planes(step=4), following=following, subfile=1)
    image = open_image(tiff("<", small, directory("<", following, planes())))
    assert (array(image) == array(WHOLE)).all()
    assert open_image(tiff("<", directory("<", 8, planes(), subfile=1))).size == WHOLE.size  # there is no other


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (directory("<", 8, planes(step=4), subfile=1, sub=8), "camera"),
        (directory("<", 8, planes("f4"), format=3), "floating-point"),
        (directory("<", 8, planes("u4")), "32 bits in colour"),
        (directory("<", 8, planes(), compression=34713), "compression 34713"),
        (directory("<", 8, planes(), photometric=32803), "camera"),
    ],
)
def test_what_is_not_decoded_is_named(data: bytes, word: str) -> None:
    with pytest.raises(ImageError, match=word) as caught:
        open_image(tiff("<", data))
    assert caught.value.code == "unread_format"


def test_a_tag_whose_text_lies_beyond_the_file_costs_nothing() -> None:
    data = bytearray(tiff("<", directory("<", 8, planes())))
    place = data.index(struct.pack("<HHL", 65000, LONG, 1))
    data[place : place + 12] = struct.pack("<HHLL", 65000, 2, 0x7FFFFFFF, 8)
    assert (array(open_image(bytes(data))) == array(WHOLE)).all()


def test_pieces_and_pixels_behind_a_thumbnail_are_counted() -> None:
    following = 8 + len(directory("<", 8, planes(step=4), subfile=1))
    small = directory("<", 8, planes(step=4), following=following, subfile=1)
    large = bytearray(directory("<", following, planes()))
    for tag in (257, 278):  # height, and rows in a strip
        place = large.index(struct.pack("<HHLL", tag, LONG, 1, WHOLE.height))
        large[place + 8 : place + 12] = struct.pack("<L", 10_000_000)
    with pytest.raises(ImageError) as caught:
        open_image(tiff("<", small, bytes(large)))
    assert caught.value.code == "too_many_pixels"
    place = large.index(struct.pack("<HHLL", 278, LONG, 1, 10_000_000))
    large[place + 8 : place + 12] = struct.pack("<L", 1)
    with pytest.raises(ImageError) as caught:
        open_image(tiff("<", small, bytes(large)))
    assert caught.value.code == "too_many_parts"


@pytest.mark.parametrize(
    ("count", "words"), [(1, ""), (2, "the file has 2 pages"), (120, "the file has 100 or more pages")]
)
def test_pages_behind_the_first_are_counted(count: int, words: str) -> None:
    pages = [WHOLE, *[smooth(40, 48)] * (count - 1)]
    data = encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    (frame,) = decode_frames(data).frames
    assert (array(frame.image) == array(WHOLE)).all()
    assert fit(frame.image, (40, 48))[1].startswith(words) and bool(words) == bool(fit(frame.image, (40, 48))[1])


def test_thumbnails_are_no_pages() -> None:
    first = directory("<", 8, planes(step=2), subfile=1)
    data = b"II*\0" + struct.pack("<L", 8) + directory("<", 8, planes(step=2), 8 + len(first), subfile=1)
    data += directory("<", 8 + len(first), planes())
    (frame,) = decode_frames(data).frames
    assert frame.image.size == WHOLE.size and "file_note" not in frame.image.info
