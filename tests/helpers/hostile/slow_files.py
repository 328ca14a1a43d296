"""Files that would cost a decoder minutes or gigabytes: many tiles, frames or packets; formats decoded value by value."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np
from PIL import Image

from helpers.hostile.files import Hostile
from helpers.images import encoded

PARTS, PIXELS, SLOW = frozenset({"too_many_parts"}), frozenset({"too_many_pixels"}), frozenset({"too_slow"})


def tiled_tiff(side: int, tile: int, listed: int, big: bool = False, order: str = "<", tag: int = 324) -> bytes:
    """Return a grey TIFF of side x side whose tiles, or strips by tag 273, have `tile` pixels a side; it lists so many."""
    data_at = 16
    content = b"\x80" * tile * tile
    offsets_at = data_at + len(content)
    kind = "Q" if big else "L"
    number = 16 if big else 4
    offsets = np.full(listed, data_at, f"{order}u{8 if big else 4}").tobytes()
    size = [(322, tile), (323, tile)] if tag == 324 else [(278, tile)]
    entries = [(256, side), (257, side), (258, 8), (259, 1), (262, 1), *size]
    rows = [struct.pack(f"{order}HH{kind}{kind}", name, number, 1, value) for name, value in entries]
    rows.append(struct.pack(f"{order}HH{kind}{kind}", tag, number, listed, offsets_at))
    count = struct.pack(f"{order}{'Q' if big else 'H'}", len(rows))
    start = offsets_at + len(offsets)
    mark = {"<": b"II", ">": b"MM"}[order]
    head = mark + struct.pack(f"{order}HHHQ", 43, 8, 0, start) if big else mark + struct.pack(f"{order}HL", 42, start)
    return head.ljust(data_at, b"\0") + content + offsets + count + b"".join(rows) + b"\0" * 8


def repeating_tiff() -> bytes:
    """Return a TIFF of 1 MiB, each of whose 60,000 entries claims almost all of it."""
    entries = b"".join(struct.pack("<HHLL", 1000 + i, 7, 900_000, 8) for i in range(60_000))
    return b"II*\0" + struct.pack("<L", 8) + struct.pack("<H", 60_000) + entries + b"\0" * (1 << 18)


def many_frames(count: int, piece: int = 2) -> bytes:
    """Return a GIF of so many frames of one pixel, whose pixels lie in sub-blocks of `piece` bytes."""
    gif = encoded(Image.new("L", (64, 64)), "GIF")
    pixels = b"\x02\x4c\x01"[-piece:]
    frame = b"\x21\xf9\x04\0\1\0\0\0" + b",\0\0\0\0\1\0\1\0\0\2" + bytes([len(pixels)]) + pixels + b"\0"
    return gif[:-1] + frame * count + b";"


def many_pieces(count: int) -> bytes:
    """Return a GIF whose only image lies in so many sub-blocks of one byte."""
    gif = encoded(Image.new("L", (64, 64)), "GIF")
    return gif[:-2] + b"\1\0" * count + b"\0;"


def dds(size: tuple[int, int], bits: int, masks: tuple[int, int, int, int], pixels: bytes) -> bytes:
    """Return a DDS of pixels whose channels are runs of bits."""
    width, height = size
    flags = 0x41 if masks[3] else 0x40
    head = struct.pack("<7I", 124, 0x1007, height, width, width * bits // 8, 0, 0) + bytes(44)
    return b"DDS " + head + struct.pack("<4I4I5I", 32, flags, 0, bits, *masks, 0x1000, 0, 0, 0, 0) + pixels


def bmp_rle(side: int) -> bytes:
    """Return an empty run-length coded BMP."""
    head = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, 2, 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 1082 + 2, 0, 0, 1078) + head + bytes(1024) + b"\0\1"


def jpeg2000(side: int, tile: int, layers: int, block: int, precinct: bytes = b"") -> bytes:
    """Return the head of a JPEG 2000 of three components."""
    size = struct.pack(">HHIIIIIIIIH", 47, 0, side, side, 0, 0, tile, tile, 0, 0, 3) + b"\7\1\1" * 3
    style = bytes([1 if precinct else 0, 0]) + struct.pack(">H", layers) + bytes([1, 5, block, block, 0, 1]) + precinct
    return (
        b"\xff\x4f\xff\x51"
        + size
        + b"\xff\x52"
        + struct.pack(">H", len(style) + 2)
        + style
        + b"\xff\x90\0\x0a"
        + bytes(8)
    )


def psd(side: int, channels: int = 3, resources: bytes = b"", compressed: bool = False) -> bytes:
    """Return the head of a PSD with resources; its rows are listed, empty, if they are compressed."""
    head = b"8BPS\0\1" + bytes(6) + struct.pack(">HLLHH", channels, side, side, 8, 3)
    rows = b"\0\1" + bytes(2 * side * channels) if compressed else b"\0\0"
    return head + bytes(4) + struct.pack(">L", len(resources)) + resources + bytes(4) + rows


def icon(inside: bytes) -> bytes:
    """Return an ICO that says 16 x 16, around any image."""
    return b"\0\0\1\0\1\0" + struct.pack("<BBBBHHLL", 16, 16, 0, 0, 1, 32, len(inside), 22) + inside


def slow() -> Iterator[Hostile]:
    """Yield files that are refused before they cost anything."""
    yield Hostile("tiles.tiff", tiled_tiff(1000, 1, 1_000_000), PARTS)
    yield Hostile("big tiles.tiff", tiled_tiff(1000, 1, 1_000_000, big=True, order=">"), PARTS)
    yield Hostile("tiles that are not listed.tiff", tiled_tiff(4000, 1, 4), PARTS)
    yield Hostile("strips.tiff", tiled_tiff(200, 1, 200_000, tag=273), PARTS)
    yield Hostile("repeated.tiff", repeating_tiff(), PARTS)
    yield Hostile("frames.gif", many_frames(60_000), PARTS)
    yield Hostile("pieces.gif", many_pieces(1_200_000), PARTS)
    yield Hostile("tiles.j2k", jpeg2000(8000, 8, 1, 4), PARTS)
    yield Hostile("layers.j2k", jpeg2000(2000, 500, 65_535, 4), PARTS)
    yield Hostile("precincts.j2k", jpeg2000(8000, 8000, 1, 4, b"\0" * 6), PARTS)
    yield Hostile("blocks.j2k", jpeg2000(8000, 8000, 1, 0), PARTS)
    yield Hostile("large.j2k", jpeg2000(9000, 9000, 1, 4), PIXELS)
    yield Hostile("large.jxl", b"\xff\x0a" + ((0b11 << 1 | 9999 << 3 | 1 << 33) << 0).to_bytes(8, "little"), PIXELS)
    yield Hostile("large.ico", icon(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">LL", 30_000, 30_000)), PIXELS)
    yield Hostile("large bitmap.ico", icon(struct.pack("<Lll", 40, 30_000, 60_000) + bytes(28)), PIXELS)
    yield Hostile("resources.psd", psd(16, resources=b"8BIM\3\xe8\0\0\0\0\0\0" * 1_000_000), PARTS)
    yield Hostile("large.psd", psd(30_000), PIXELS)
    yield Hostile("rows.psd", psd(7000, channels=300, compressed=True), PARTS)
    yield Hostile("runs.bmp", bmp_rle(8000), SLOW)


def repeating_exif() -> bytes:
    """Return EXIF of 48 kB, each of whose 4,000 entries claims almost all of it."""
    entries = b"".join(struct.pack("<HHLL", 1000 + i, 7, 47_000, 8) for i in range(4_000))
    return b"II*\0" + struct.pack("<L", 8) + struct.pack("<H", 4_000) + entries + b"\0" * 4


def resized_jxl(data: bytes, height: int, width: int) -> bytes:
    """Return the bare codestream of a JPEG XL of 128 x 128 pixels with another size in its header."""
    bits, old = int.from_bytes(data[2:], "little"), 1 + 5 + 3  # whether it is small, height, ratio of 1 to 1
    assert data[:2] == b"\xff\x0a" and bits & 0x1FF == 1 | 15 << 1 | 1 << 6
    new, length = 0, 1
    for number, value in enumerate((height, width)):
        new, length = new | 3 << length | value - 1 << length + 2, length + 32
        length += 0 if number else 3  # no ratio: the width follows
    changed = new | bits >> old << length
    return b"\xff\x0a" + changed.to_bytes(-(-changed.bit_length() // 8), "little")


def lying_videos(video: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield copies of an H.264 MP4 that say what is untrue of their sizes, frames and times."""
    sample, track = video.index(b"avc1", video.index(b"stsd")) + 28, video.index(b"tkhd") + 80
    sizes, times = video.index(b"stsz") + 8, video.index(b"stts") + 12

    def patched(place: int, content: bytes) -> bytes:
        return video[:place] + content + video[place + len(content) :]

    for width, height in ((60_000, 60_000), (65_535, 1), (1, 1)):
        yield f"frames of {width} x {height}", patched(sample, struct.pack(">HH", width, height))
    yield "a track of 60,000 x 60,000", patched(track, struct.pack(">LL", 60_000 << 16, 60_000 << 16))
    yield "two billion frames", patched(sizes + 4, struct.pack(">L", 2**31 - 1))
    yield "two billion frames of a byte", patched(sizes, struct.pack(">LL", 1, 2**31 - 1))
    yield "two billion times", patched(times, struct.pack(">LL", 2**31 - 1, 1))
    yield (
        "twenty thousand movies in each other",
        video[:32] + b"".join(struct.pack(">L4s", 8 * (20_000 - depth), b"moov") for depth in range(20_000)),
    )
    place = video.index(b"mdat") + 4
    yield "frames of nothing", patched(place, b"\0\0\0\1" * ((len(video) - place) // 8))
