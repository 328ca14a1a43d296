"""Segments of a JPEG that end early cost nothing, and codings that are not decoded are named."""

from __future__ import annotations

import pytest
from helpers.hostile.files import segment
from helpers.images import array, encoded, smooth

from treering_verify.errors import ImageError
from treering_verify.media.headers.png_chunks import without_ballast
from treering_verify.media.images import open_image

SHORT = {
    "JFIF": (0xE0, b"JFIF"),
    "JFIF of two bytes": (0xE0, b"JFIF\0\1"),
    "Adobe": (0xEE, b"Adobe"),
    "profile": (0xE2, b"ICC_PROFILE\0"),
    "profile without its count": (0xE2, b"ICC_PROFILE\0\1"),
}


@pytest.mark.parametrize("name", SHORT)
@pytest.mark.parametrize("place", [2, 20])
def test_a_segment_that_ends_early_costs_nothing(name: str, place: int) -> None:
    data = encoded(smooth(), "JPEG")
    broken = data[:place] + segment(*SHORT[name]) + data[place:]
    assert without_ballast(broken) == data
    assert (array(open_image(broken)) == array(open_image(data))).all()


def test_a_sound_file_stays_as_it_is() -> None:
    data = encoded(smooth(), "JPEG", icc_profile=bytes(70_000), exif=b"Exif\0\0II*\0\x08\0\0\0\0\0")
    assert without_ballast(data) is data


@pytest.mark.parametrize("junk", [b"\xff" * 4_000_000, b"\xff" * 4_000_000 + b"\0", bytes(4_000_000), bytes(1500)])
def test_long_junk_between_segments_costs_no_time_and_the_image_is_judged(junk: bytes) -> None:
    """Fill bytes before a zero had cost the square of their number: 36 s for 80 kB."""
    data = encoded(smooth(), "JPEG")
    scan = data.index(b"\xff\xda")
    for place in (2, 20, scan):
        assert without_ballast(data[:place] + junk + data[place:]) in (data, data[:place] + b"\xff" + data[place:])
        assert (array(open_image(data[:place] + junk + data[place:])) == array(open_image(data))).all()
    assert without_ballast(data[:2] + b"\xff" * 9 + data[2:]) == data[:2] + b"\xff" * 9 + data[2:]
    with pytest.raises(ImageError) as caught:
        open_image(data[:20] + junk)
    assert caught.value.code == "cut_short"


@pytest.mark.parametrize(("marker", "bits", "word"), [(0xF7, 8, "JPEG-LS"), (0xC1, 12, "12 bits")])
def test_codings_that_are_not_decoded_are_named(marker: int, bits: int, word: str) -> None:
    data = encoded(smooth(), "JPEG")
    place = data.index(b"\xff\xc0")
    other = data[: place + 1] + bytes([marker]) + data[place + 2 : place + 4] + bytes([bits]) + data[place + 5 :]
    with pytest.raises(ImageError, match=word) as caught:
        open_image(other)
    assert caught.value.code == "unread_format"
