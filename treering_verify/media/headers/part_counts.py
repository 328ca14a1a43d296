"""Count the parts of a file that Pillow reads one by one, before it reads them.

Each costs microseconds and up to 140 bytes, so 100 MB of them would cost minutes and gigabytes.
"""

from __future__ import annotations

import re

from treering_verify.media.headers.declared_sizes import count_jpeg2000
from treering_verify.media.headers.jpeg_segments import ALONE, MOST_JUNK, START_OF_SCAN, next_marker
from treering_verify.media.headers.tiff_directory import count_pieces

_PNM_HEADER = re.compile(rb"P[1-7Ff](?:(?:\s|#[^\r\n]*+[\r\n]?)++[-0-9.]*+){0,4}+")
_ROWS = 20  # of a PSD, as a part
_SMALL = 10  # sub-blocks of a GIF's pixels that cost as much as another part


def count_parts(data: bytes, enough: int) -> int:
    """Count the parts of a file that Pillow reads one by one before the pixels.

    These are the chunks of a PNG, the segments and fill bytes of a JPEG, the frames and sub-blocks of a GIF, the strips or
    tiles of a TIFF, the packets and code blocks of a JPEG 2000, the resources of a PSD, and the bytes of a PNM's header.
    Other formats are read in C, or cannot have so many parts; for them 0 is returned.

    Parameters
    ----------
    data : bytes
        The file. In a damaged one the parts are counted as far as they can be followed.
    enough : int
        Counting stops at this number.
    """
    for signature, counter in _COUNTERS.items():
        if data.startswith(signature):
            return counter(data, enough)
    return 0


def _count_chunks(data: bytes, enough: int) -> int:
    parts, place = 0, 8
    while parts < enough and place + 8 <= len(data):
        parts += 1
        if data[place + 4 : place + 8] == b"IEND":  # no decoder reads on
            break
        place += 12 + int.from_bytes(data[place : place + 4], "big")
    return parts


def _count_segments(data: bytes, enough: int) -> int:
    parts, place = 0, 2
    while parts < enough and (found := next_marker(data, place)) and found.code != START_OF_SCAN:
        passed = found.end - place - 1  # longer junk is removed
        parts, place = parts + (passed if passed <= MOST_JUNK else 1), found.end
        if found.code not in ALONE:
            place += max(2, int.from_bytes(data[place : place + 2], "big"))
    return parts


def _count_blocks(data: bytes, enough: int) -> int:
    colours = 3 << (data[10] & 7) + 1 if len(data) > 10 and data[10] & 0x80 else 0
    parts, small, place = 0, 0, 13 + colours
    while parts + small // _SMALL < enough and place < len(data) and data[place] != ord(";"):
        parts += 1
        kind = data[place]
        place += 2 if kind == ord("!") else 1  # an extension has a label; what is neither is passed over
        if kind == ord(","):
            packed = data[place + 8] if place + 8 < len(data) else 0
            place += 10 + (3 << (packed & 7) + 1 if packed & 0x80 else 0)  # its own colours, and the size of a code
        elif kind != ord("!"):
            continue
        while parts + small // _SMALL < enough and place < len(data) and (size := data[place]):
            parts, small = (parts, small + 1) if kind == ord(",") else (parts + 1, small)
            place += 1 + size
        place += 1
    return parts + small // _SMALL


def _count_header(data: bytes, enough: int) -> int:
    found = _PNM_HEADER.match(data)
    return found.end() if found else 0


def _count_resources(data: bytes, enough: int) -> int:
    """Count the image resources of a PSD, and its rows, which Pillow adds up (Adobe's "Photoshop File Formats")."""
    channels, height = int.from_bytes(data[12:14], "big"), int.from_bytes(data[14:18], "big")
    parts = channels * height // _ROWS
    place = 34 + int.from_bytes(data[26:30], "big")  # after the header and the colours of a palette
    end = min(len(data), place + int.from_bytes(data[place - 4 : place], "big"))
    while parts < enough and place < end:
        parts += 1
        name = 1 + (data[place + 6] if place + 6 < end else 0)  # after signature and number; a length and a text
        place += 6 + name + name % 2
        size = int.from_bytes(data[place : place + 4], "big")
        place += 4 + size + size % 2
    return parts


_COUNTERS = {
    b"\x89PNG\r\n\x1a\n": _count_chunks,
    b"8BPS": _count_resources,
    b"\xff\xd8": _count_segments,
    b"GIF8": _count_blocks,
    b"P": _count_header,
    b"II": count_pieces,
    b"MM": count_pieces,
    b"\xff\x4f\xff\x51": count_jpeg2000,
    b"\0\0\0\x0cjP  ": count_jpeg2000,
}
