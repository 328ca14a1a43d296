"""Remove segments of a JPEG that are too short for what they say they are, and junk; and read its kind of coding.

Pillow raises an error where a JFIF, Adobe or ICC segment ends early; libjpeg, and so every viewer, ignores it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

START_OF_SCAN = 0xDA

ALONE = frozenset([0x01, *range(0xD0, 0xD9)])
"""Markers without a segment."""

MOST_JUNK = 1024
"""Bytes between two segments, fill bytes included, that stay where they are."""

FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Markers that start a frame (ITU-T T.81, table B.1)."""

PROGRESSIVE = frozenset([0xC2, 0xC6, 0xCA, 0xCE])
"""Markers of frames that are drawn in several passes."""

_MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")  # not a stuffed zero, not a restart, not a fill byte
_LEAST = {0xE0: (b"JFIF", 14), 0xE2: (b"ICC_PROFILE\0", 14), 0xEE: (b"Adobe", 12)}  # bytes that libjpeg asks for
_JPEG_LS = 0xF7
_END_OF_IMAGE = 0xD9
_MOST_MARKERS = 10_000


class Marker(NamedTuple):
    """A marker: its last byte, and where it ends."""

    code: int
    end: int


def next_marker(data: bytes, place: int) -> Marker | None:
    """Return the first marker of a JPEG from a place on; stuffed zeros, restarts and fill bytes are none."""
    found = _MARKER.search(data, place)
    return Marker(found[1][0], found.end()) if found else None


def segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield marker, begin of the content and end of each segment of a JPEG, up to its first scan."""
    place = 2
    while found := next_marker(data, place):
        marker, place = found.code, found.end
        if marker == START_OF_SCAN:
            return
        if marker in ALONE:
            continue
        end = place + max(2, int.from_bytes(data[place : place + 2], "big"))
        yield marker, place + 2, end
        place = end


class Outline(NamedTuple):
    """Places of a JPEG's start of frame, of its scans, and of its end-of-image marker; 0 for what is not found.

    The place of a marker is that of its last byte, and of the end that of its first one.
    """

    frame: int
    scans: list[int]
    end: int


def outline(data: bytes) -> Outline:
    """Return where frame, scans and end of a JPEG are."""
    frame, place = 0, 2
    scans: list[int] = []
    for _ in range(_MOST_MARKERS):
        if (found := next_marker(data, place)) is None:
            break
        place = found.end
        if found.code == _END_OF_IMAGE:
            return Outline(frame, scans, place - 2)
        if found.code in ALONE:
            continue
        if found.code in FRAMES:
            frame = place - 1
        elif found.code == START_OF_SCAN:
            scans.append(place - 1)
        place += max(2, int.from_bytes(data[place : place + 2], "big"))
    return Outline(frame, scans, 0)


def without_broken_segments(data: bytes) -> bytes:
    """Return a JPEG file without JFIF, Adobe and ICC segments that end early, and without long junk between segments.

    Pillow passes over fill bytes and junk one by one, so a card's erased blocks would cost it minutes. A file that has
    neither is returned unchanged.
    """
    pieces: list[bytes] = []
    kept = last = 2
    for marker, begin, end in segments(data):
        name, least = _LEAST.get(marker, (b"", 0))
        if begin - 4 - last > MOST_JUNK:
            pieces.append(data[kept:last])
            kept = begin - 4
        if name and end - begin < least and data.startswith(name, begin, end):
            pieces.append(data[kept : begin - 4])
            kept = end
        last = end
    scan = next_marker(data, last)
    if (scan.end - 2 if scan else len(data)) - last > MOST_JUNK:
        pieces.append(data[kept:last])
        kept = scan.end - 2 if scan else len(data)
    return b"".join([data[:2], *pieces, data[kept:]]) if pieces else data


def unread_coding(data: bytes) -> str:
    """Return the name of a coding of JPEG that libjpeg does not decode to 8 bits; "" for what it decodes."""
    for marker, begin, _ in segments(data):
        if marker == _JPEG_LS:
            return "JPEG-LS"
        if marker in FRAMES:
            bits = data[begin] if begin < len(data) else 8
            return f"JPEG of {bits} bits" if bits != 8 and 2 <= bits <= 16 else ""
    return ""


def is_progressive(data: bytes) -> bool:
    """Return whether a JPEG draws its image in several passes, each over all of it."""
    return any(marker in PROGRESSIVE for marker, _, _ in segments(data))
