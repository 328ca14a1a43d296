"""What a PNG's ancillary chunks may hold without costing the image."""

from __future__ import annotations

import struct
import zlib

import pytest
from helpers.hostile.files import chunk
from helpers.images import array, encoded, png, smooth

from treering_verify.errors import ImageError
from treering_verify.media.headers.png_chunks import MAX_PROFILE, without_ballast
from treering_verify.media.images import open_image

HEADER_END = 8 + 25  # signature and IHDR


def with_chunk(data: bytes, extra: bytes) -> bytes:
    """Return a PNG with a chunk after its header."""
    return data[:HEADER_END] + extra + data[HEADER_END:]


def wrong_crc(kind: bytes, body: bytes) -> bytes:
    """Return a chunk whose CRC is wrong in one bit."""
    whole = chunk(kind, body)
    return whole[:-1] + bytes([whole[-1] ^ 1])


BULK = zlib.compress(bytes(3 * MAX_PROFILE))
BALLAST = {
    "bad CRC in a profile": wrong_crc(b"iCCP", b"sRGB\0\0" + zlib.compress(bytes(500))),
    "bad CRC in EXIF": wrong_crc(b"eXIf", b"II*\0\x08\0\0\0\0\0"),
    "bad CRC in a colour key": wrong_crc(b"tRNS", bytes(6)),
    "bad CRC in gamma": wrong_crc(b"gAMA", bytes(4)),
    "3 MiB of compressed text": chunk(b"zTXt", b"workflow\0\0" + BULK),
    "3 MiB of international text": chunk(b"iTXt", b"workflow\0\1\0\0\0" + BULK),
    "3 MiB of plain text": chunk(b"tEXt", b"workflow\0" + b"x" * (3 << 20)),
    "3 MiB of profile": chunk(b"iCCP", b"name\0\0" + BULK),
    "a profile that does not inflate": chunk(b"iCCP", b"name\0\0" + b"nonsense"),
    "a profile of an unknown method": chunk(b"iCCP", b"name\0\5" + zlib.compress(bytes(500))),
    **{
        f"a {kind.decode()} that is too short": chunk(kind, b"")
        for kind in (b"pHYs", b"gAMA", b"cHRM", b"sRGB", b"tIME")
    },
    "a colour key that is too short": chunk(b"tRNS", b"\0"),
    "a colour key that is too long": chunk(b"tRNS", bytes(9)),
    "an animation without frames": chunk(b"acTL", bytes(8)),
    "an animation's header that is too short": chunk(b"acTL", b"\0"),
    "a frame of an animation that is none": chunk(b"fcTL", bytes(26)),
    "data of an animation that is none": chunk(b"fdAT", bytes(26)),
    "a private chunk": chunk(b"prVt", b"x"),
}


@pytest.mark.parametrize("name", BALLAST)
def test_what_viewers_ignore_costs_nothing(name: str) -> None:
    data = encoded(smooth(), "PNG")
    assert (array(open_image(with_chunk(data, BALLAST[name]))) == array(smooth())).all()
    assert without_ballast(with_chunk(data, BALLAST[name])) == data


@pytest.mark.parametrize("kind", [b"tIME", b"tEXt", b"eXIf"])
def test_a_chunk_between_those_of_the_pixels_is_ignored(kind: bytes) -> None:
    data = encoded(smooth(), "PNG")
    place = data.index(b"IDAT") - 4
    length = int.from_bytes(data[place : place + 4], "big")
    body = data[place + 8 : place + 8 + length]
    whole = data[:place] + chunk(b"IDAT", body[:50]) + chunk(kind, bytes(7)) + chunk(b"IDAT", body[50:]) + data[-12:]
    assert (array(open_image(whole)) == array(smooth())).all()


def test_a_frame_beyond_the_canvas_leaves_the_still_image() -> None:
    frame = struct.pack(">5L2H2B", 0, 48, 41, 0, 0, 1, 10, 0, 0)
    moving = with_chunk(encoded(smooth(), "PNG"), chunk(b"acTL", struct.pack(">2L", 1, 0)) + chunk(b"fcTL", frame))
    assert (array(open_image(moving)) == array(smooth())).all()


def test_bytes_after_the_end_are_no_parts() -> None:
    data = encoded(smooth(), "PNG") + bytes(2_000_000)
    assert (array(open_image(data)) == array(smooth())).all()


def test_a_wrong_checksum_of_the_pixels_costs_nothing() -> None:
    rows = b"".join(b"\0" + bytes(range(48)) for _ in range(16))
    place = (data := png(16, 16, 8, 2, rows)).index(b"IDAT")
    length = int.from_bytes(data[place - 4 : place], "big")
    body = data[place + 4 : place + 4 + length]
    wrong = data[: place - 4] + chunk(b"IDAT", body[:-4] + b"abcd") + data[-12:]
    assert (array(open_image(wrong)) == array(open_image(data))).all()


def test_a_sound_file_stays_as_it_is_and_what_is_no_png_too() -> None:
    data = with_chunk(encoded(smooth(), "PNG"), chunk(b"pHYs", bytes(9)))
    assert without_ballast(data) is data
    assert without_ballast(b"GIF89a") == b"GIF89a"


def test_a_transparent_colour_that_is_sound_still_counts() -> None:
    image = smooth()
    key = b"".join(bytes([0, level]) for level in image.getpixel((0, 0)))  # type: ignore[union-attr]
    shown = open_image(with_chunk(encoded(image, "PNG"), chunk(b"tRNS", key)))
    assert shown.getpixel((0, 0)) == (255, 255, 255)


def test_damage_in_the_pixels_is_still_damage() -> None:
    data = encoded(smooth(), "PNG")
    place = data.index(b"IDAT")
    length = int.from_bytes(data[place - 4 : place], "big")
    broken = data[: place + 4 + length] + bytes([data[place + 4 + length] ^ 1]) + data[place + 5 + length :]
    assert without_ballast(broken) == broken
    with pytest.raises(ImageError):
        open_image(broken[: place + 4] + bytes(length) + broken[place + 4 + length :])


@pytest.mark.parametrize("cut", range(0, 60, 7))
def test_files_that_end_within_a_chunk_pass_as_they_are(cut: int) -> None:
    data = with_chunk(encoded(smooth(), "PNG"), chunk(b"tEXt", b"a\0b"))[: HEADER_END + cut]
    assert data.startswith(without_ballast(data)[:HEADER_END])
