"""Sizes that files declare where Pillow looks only while it opens or decodes them: WebP, JPEG XL, JPEG 2000, ICO, PSD.

Everything is read from a few bytes of headers. What cannot be read counts as nothing: a decoder will refuse it.
"""

from __future__ import annotations

import struct

from treering_verify.media.headers.isobmff import boxes

_JXL_BOX = b"\0\0\0\x0cJXL \r\n\x87\n"
_JP2_BOX = b"\0\0\0\x0cjP  \r\n\x87\n"
_J2K = b"\xff\x4f\xff\x51"
_RATIOS = ((1, 1), (1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))  # of JPEG XL: width to height
_PACKETS, _BLOCKS = 40, 20  # of a JPEG 2000, that cost about as much as a part of another file
_MOST_SEGMENTS = 1000


def declared_pixels(data: bytes) -> int:
    """Return the pixels of the largest image that a WebP, JPEG XL, ICO or PSD declares; 0 for other files."""
    try:
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return _webp_pixels(data)
        if data.startswith((b"\xff\x0a", _JXL_BOX)):
            return _jxl_pixels(data)
        if data.startswith(b"\0\0\1\0"):
            return _ico_pixels(data)
        if data.startswith(b"8BPS"):
            height, width = struct.unpack_from(">LL", data, 14)
            return int(height * width)
    except (struct.error, IndexError):
        pass
    return 0


def moves(data: bytes) -> bool:
    """Return whether a WebP says that it is animated."""
    return data[:4] == b"RIFF" and data[12:16] == b"VP8X" and bool(data[20:21] and data[20] & 2)


def _webp_pixels(data: bytes) -> int:
    kind = data[12:16]
    if kind == b"VP8X":  # a canvas; the image in it may not be larger
        return (1 + int.from_bytes(data[24:27], "little")) * (1 + int.from_bytes(data[27:30], "little"))
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<L", data, 21)
        return (1 + (bits & 0x3FFF)) * (1 + (bits >> 14 & 0x3FFF))
    width, height = struct.unpack_from("<HH", data, 26)
    return (width & 0x3FFF) * (height & 0x3FFF)


def _ico_pixels(data: bytes) -> int:
    """Return the pixels of the largest PNG or bitmap in an ICO, by its own header: the list of an ICO may say less."""
    (count,) = struct.unpack_from("<H", data, 4)
    most = 0
    for i in range(count):
        if 6 + 16 * i + 16 > len(data):
            break
        (place,) = struct.unpack_from("<L", data, 6 + 16 * i + 12)
        if data[place : place + 8] == b"\x89PNG\r\n\x1a\n":
            width, height = struct.unpack_from(">LL", data, place + 16)
        elif place + 12 <= len(data):
            width, height = (abs(side) for side in struct.unpack_from("<ll", data, place + 4))
        else:
            continue
        most = max(most, width * height)
    return most


def _jxl_pixels(data: bytes) -> int:
    """Return the pixels of a JPEG XL (ISO/IEC 18181-1, section "SizeHeader")."""
    place = 0
    if data.startswith(_JXL_BOX):
        for kind, content, _ in boxes(data):
            if kind in (b"jxlc", b"jxlp"):
                place = content + (4 if kind == b"jxlp" else 0)
                break
        else:
            return 0
    if data[place : place + 2] != b"\xff\x0a":
        return 0
    bits = int.from_bytes(data[place + 2 : place + 18], "little")

    def take(count: int) -> int:
        nonlocal bits
        value = bits & (1 << count) - 1
        bits >>= count
        return value

    small = take(1)

    def side() -> int:
        return (take(5) + 1) * 8 if small else take((9, 13, 18, 30)[take(2)]) + 1

    height = side()
    ratio = take(3)
    width = height * _RATIOS[ratio][0] // _RATIOS[ratio][1] if ratio else side()
    return width * height


def count_jpeg2000(data: bytes, enough: int) -> int:
    """Return the cost of decoding a JPEG 2000's packets and code blocks, in the unit of `count_parts`, up to `enough`.

    A header of a hundred bytes can declare a packet, or a code block, for every few pixels. See ISO/IEC 15444-1, annex A.
    """
    try:
        place = 0
        if data.startswith(_JP2_BOX):
            place = next((content for kind, content, _ in boxes(data) if kind == b"jp2c"), len(data))
        if data[place : place + 4] != _J2K:
            return 0
        return min(enough, _jpeg2000_parts(data, place + 2))
    except (struct.error, IndexError):
        return 0


def _jpeg2000_parts(data: bytes, place: int) -> int:
    width, height, left, top, tile_width, tile_height = struct.unpack_from(">6L", data, place + 6)
    (components,) = struct.unpack_from(">H", data, place + 38)
    width, height = max(1, width - left), max(1, height - top)
    tiles = -(-width // max(1, tile_width)) * -(-height // max(1, tile_height))
    parts = tiles
    for _ in range(_MOST_SEGMENTS):
        marker, length = struct.unpack_from(">HH", data, place)
        if marker == 0xFF90:  # the first tile
            break
        if marker in (0xFF52, 0xFF53):  # coding style: of all components, or of one
            style = place + (4 if marker == 0xFF52 else (6 if components > 256 else 5))
            (layers,) = struct.unpack_from(">H", data, style + 2) if marker == 0xFF52 else (1,)
            levels, wide, high = data[style + (5 if marker == 0xFF52 else 1) : style + (8 if marker == 0xFF52 else 4)]
            sizes = data[style + (10 if marker == 0xFF52 else 6) : place + 2 + length] if data[style] & 1 else b""
            precincts = tiles * (levels + 1)
            for level, size in enumerate(sizes[: levels + 1]):  # from the smallest resolution on
                precincts += (width * height >> 2 * (levels - level)) >> (size & 15) + (size >> 4)
            blocks = -(-width * height // (1 << min(20, wide + high + 4))) * components
            packets = precincts * components * layers
            parts = max(parts, packets // _PACKETS, blocks // _BLOCKS)
        place += 2 + length
    return parts
