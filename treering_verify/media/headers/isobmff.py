"""Read the boxes of the ISO base media format (AVIF, HEIC, JPEG 2000, JPEG XL): how many images, and how long they are.

See ISO/IEC 14496-12 (boxes) and 23008-12 (images).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

_MOST_BOXES = 1000
_LONGEST = 1 << 20  # bytes of a list of places: some thousand tiles have less
_IMAGES = (b"av01", b"hvc1", b"grid", b"iovl", b"iden")
_CODED = (b"av01", b"hvc1")
_FULL = 4  # bytes of version and flags
_HIDDEN = 1
_OF_OTHERS = (b"auxl", b"thmb")  # an image that is a mask, a depth map or a thumbnail of another
_MADE_OF = b"dimg"  # an image that is made of others


def boxes(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield kind, place of the content, and end of each box of an ISO base media file; the end may lie behind the file's.

    Raises
    ------
    struct.error
        If a header is cut through.
    """
    place = 0
    for _ in range(_MOST_BOXES):
        if place >= len(data):
            return
        size, kind = struct.unpack_from(">L4s", data, place)
        content = place + 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, content)
            content += 8
        if size == 0:  # up to the end of the file
            yield kind, content, len(data)
            return
        yield kind, content, place + max(8, size)
        place += max(8, size)


def count_images(data: bytes) -> int:
    """Return how many images a viewer could show of a file: no hidden ones, masks, thumbnails or tiles.

    Parameters
    ----------
    data : bytes
        The file. Of a damaged one 0 is returned.
    """
    try:
        items: set[int] = set()
        parts: set[int] = set()
        for kind, content in _inside(data, b"meta"):
            if kind == b"iinf":
                items = _items(content)
            elif kind == b"iref":
                parts = _parts(content)
        return len(items - parts)
    except (struct.error, IndexError):
        return 0


def coded_bytes(data: bytes) -> int:
    """Return how many bytes of a file code the images that `count_images` counts, their tiles included.

    Metadata, masks and thumbnails are none of it. Of a damaged file 0 is returned.
    """
    try:
        coded: set[int] = set()
        others: set[int] = set()
        lengths: dict[int, int] = {}
        for kind, content in _inside(data, b"meta"):
            if kind == b"iinf":
                coded = _items(content, _CODED, hidden=True)
            elif kind == b"iref":
                others = _parts(content, made=False)
            elif kind == b"iloc" and len(content) <= _LONGEST:
                lengths = _lengths(content)
        return sum(lengths.get(item, 0) for item in coded - others)
    except (struct.error, IndexError):
        return 0


def _lengths(content: bytes) -> dict[int, int]:
    """Return the length of each item, in bytes (ISO/IEC 14496-12, 8.11.3)."""
    version, place = content[0], _FULL + 2
    offset, length = content[_FULL] >> 4, content[_FULL] & 15
    base, index = content[_FULL + 1] >> 4, content[_FULL + 1] & 15 if version else 0
    wide = 4 if version == 2 else 2

    def number(size: int) -> int:
        nonlocal place
        place += size
        if place > len(content):
            raise IndexError("the box ends early")
        return int.from_bytes(content[place - size : place], "big")

    found: dict[int, int] = {}
    for _ in range(number(wide)):
        item = number(wide)
        place += (2 if version else 0) + 2 + base  # construction method, data reference, base offset
        extents = number(2)
        if not length:  # as long as the file
            place += extents * (index + offset)
            continue
        for _ in range(extents):
            place += index + offset
            found[item] = found.get(item, 0) + number(length)
    return found


def _inside(data: bytes, name: bytes) -> list[tuple[bytes, bytes]]:
    """Return kind and content of each box in the first box of a name, which has version and flags."""
    for kind, place, end in boxes(data):
        if kind == name:
            inner = data[place + _FULL : end]
            return [(one, inner[begin:stop]) for one, begin, stop in boxes(inner)]
    return []


def _items(content: bytes, kinds: tuple[bytes, ...] = _IMAGES, *, hidden: bool = False) -> set[int]:
    """Return the numbers of the images of some kinds that are listed, and not hidden, or hidden too."""
    found = set()
    start = _FULL + (2 if content[0] == 0 else 4)  # after their count
    for kind, place, end in boxes(content[start:]):
        entry = content[start + place : start + end]
        if kind != b"infe" or entry[0] < 2 or (entry[3] & _HIDDEN and not hidden):
            continue
        size = 2 if entry[0] == 2 else 4
        if entry[_FULL + size + 2 : _FULL + size + 6] in kinds:
            found.add(int.from_bytes(entry[_FULL : _FULL + size], "big"))
    return found


def _parts(content: bytes, *, made: bool = True) -> set[int]:
    """Return the numbers of the images that belong to others: masks and thumbnails, and tiles where `made` is true."""
    found = set()
    size = 2 if content[0] == 0 else 4
    for kind, place, end in boxes(content[_FULL:]):
        entry = content[_FULL + place : _FULL + end]
        origin, count = int.from_bytes(entry[:size], "big"), int.from_bytes(entry[size : size + 2], "big")
        if kind in _OF_OTHERS:
            found.add(origin)
        elif kind == _MADE_OF and made:
            targets = entry[size + 2 : size + 2 + count * size]
            found |= {int.from_bytes(targets[i : i + size], "big") for i in range(0, len(targets), size)}
    return found
