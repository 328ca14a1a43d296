"""Count what the directory of a TIFF makes a decoder do: entries, and strips or tiles.

Pillow takes microseconds and a hundred bytes for each strip or tile that the directory lists, and libtiff works on as many
as width, height and their size give. Both are counted, because they need not agree.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_NUMBERS = {1: "B", 3: "H", 4: "L", 16: "Q"}  # types of the values that are read here
_BYTES = (1, 2, 6, 7)  # types whose values a decoder takes as a whole
_WIDTH, _HEIGHT, _OFFSETS, _SAMPLES, _ROWS = 256, 257, 273, 277, 278
_PLANAR, _TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS = 284, 322, 323, 324
_SEPARATE = 2
SUBFILE, REDUCED = 254, 1
"""The tag that says what a directory's image is, and its bit for a thumbnail of another."""

MOST_THUMBNAILS = 16
"""Directories that are looked at until one is of no thumbnail."""

MOST_PAGES = 100
"""Pages that are counted."""

_BITS, _COMPRESSION, _PHOTOMETRIC, _FORMAT = 258, 259, 262, 339
_RAW = (32803, 34892)  # photometric interpretations of cameras' sensors
_UNSIGNED, _SIGNED, _FLOAT = 1, 2, 3
_READ = (_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLES, _FORMAT)
_MOST_ENTRIES, _MOST_VALUES = 1000, 16


class Entry(NamedTuple):
    """A tag's numbers, the place where they are stored, and how `struct` reads each."""

    values: tuple[int, ...]
    place: int
    format: str


def first_entries(data: bytes) -> dict[int, Entry]:
    """Return the numbers of the first directory of a TIFF, by tag.

    Raises
    ------
    struct.error
        If the directory, or numbers that it names, are not among the bytes.
    """
    order, big = ("<" if data[:2] == b"II" else ">"), 43 in data[2:4]
    (start,) = struct.unpack_from(f"{order}{'Q' if big else 'L'}", data, 8 if big else 4)
    (entries,) = struct.unpack_from(f"{order}{'Q' if big else 'H'}", data, min(start, len(data)))
    step, inline = (20, 8) if big else (12, 4)
    found: dict[int, Entry] = {}
    for number in range(min(entries, _MOST_ENTRIES)):
        position = start + (8 if big else 2) + step * number
        tag, kind, count = struct.unpack_from(f"{order}HHQ" if big else f"{order}HHL", data, position)
        place, size = position + step - inline, count * _SIZES.get(kind, 0)
        if size > inline:
            (place,) = struct.unpack_from(f"{order}{'Q' if big else 'L'}", data, place)
        if place + size > len(data):
            raise struct.error("numbers that are missing")
        if kind not in _NUMBERS:
            continue
        form = order + _NUMBERS[kind]
        found.setdefault(tag, Entry(struct.unpack_from(f"{order}{count}{_NUMBERS[kind]}", data, place), place, form))
    return found


def count_pieces(data: bytes, enough: int) -> int:
    """Return how many entries, listed values, strips and tiles the image of a TIFF has, up to about `enough`.

    It is that of the first directory, unless that is of a thumbnail.

    Parameters
    ----------
    data : bytes
        The file: a classic TIFF or a BigTIFF of either byte order. Of a damaged one, what can be read is counted.
    enough : int
        Counting stops at this number.
    """
    try:
        return _count(data, enough)
    except struct.error:  # cut short: no decoder reads on
        return 0


def count_pages(data: bytes) -> int:
    """Return how many pages of a TIFF are no thumbnails, up to `MOST_PAGES`, as far as they can be followed."""
    pages, seen = 0, set[int]()
    try:
        order, big = ("<" if data[:2] == b"II" else ">"), 43 in (data[2], data[3])
        (place,) = struct.unpack_from(f"{order}{'Q' if big else 'L'}", data, 8 if big else 4)
        while place and place not in seen and pages < MOST_PAGES:
            seen.add(place)
            _, reduced, place = _of_directory(data, place, order, big, _MOST_ENTRIES)
            pages += not reduced
    except (struct.error, IndexError):
        pass
    return pages


def unread_samples(data: bytes) -> str:
    """Return the name of what Pillow does not decode in the first directory of a TIFF: a kind of numbers, or a compression.

    "" for what is decoded, and where the directory is damaged or not among the bytes.
    """
    from PIL.TiffImagePlugin import COMPRESSION_INFO

    try:
        tags = _values(data)
    except struct.error:
        return ""
    if not {_WIDTH, _HEIGHT} <= tags.keys():
        return ""
    (compression, *_), (photometric, *_) = tags.get(_COMPRESSION) or (1,), tags.get(_PHOTOMETRIC) or (0,)
    if photometric in _RAW:
        return "TIFF of a camera's raw numbers"
    if compression not in COMPRESSION_INFO:
        return f"TIFF with compression {compression}"
    bits, kinds = max(tags.get(_BITS) or (1,)), set(tags.get(_FORMAT) or (_UNSIGNED,))
    (samples, *_) = tags.get(_SAMPLES) or (1,)
    if samples == 1:
        allowed = {_UNSIGNED: (1, 2, 4, 8, 12, 16, 32), _SIGNED: (8, 16, 32), _FLOAT: (32,)}
    else:
        allowed = {_UNSIGNED: (8, 16)}
    if all(bits in allowed.get(kind, ()) for kind in kinds):
        return ""
    name = "floating-point" if _FLOAT in kinds else "whole"
    return f"TIFF of {name} numbers of {bits} bits" + (" in colour" if samples > 1 else "")


def _values(data: bytes) -> dict[int, tuple[int, ...]]:
    """Return the first numbers of the tags in `_READ` of the first directory; struct.error if they cannot be read."""
    order, big = ("<" if data[:2] == b"II" else ">"), 43 in data[2:4]
    (start,) = struct.unpack_from(f"{order}{'Q' if big else 'L'}", data, 8 if big else 4)
    (entries,) = struct.unpack_from(f"{order}{'Q' if big else 'H'}", data, start if start < len(data) else len(data))
    step, inline = (20, 8) if big else (12, 4)
    found: dict[int, tuple[int, ...]] = {}
    for number in range(min(entries, _MOST_ENTRIES)):
        position = start + (8 if big else 2) + step * number
        tag, kind, count = struct.unpack_from(f"{order}HHQ" if big else f"{order}HHL", data, position)
        if tag not in _READ or kind not in _NUMBERS or not count:
            continue
        place = position + step - inline
        if count * _SIZES[kind] > inline:
            (place,) = struct.unpack_from(f"{order}{'Q' if big else 'L'}", data, place)
        found.setdefault(tag, struct.unpack_from(f"{order}{min(count, _MOST_VALUES)}{_NUMBERS[kind]}", data, place))
    return found


def _count(data: bytes, enough: int) -> int:
    """Count the pieces of the first directory, and of those after it as long as they are of thumbnails."""
    order, big = ("<" if data[:2] == b"II" else ">"), 43 in (data[2], data[3])
    (start,) = struct.unpack_from(f"{order}{'Q' if big else 'L'}", data, 8 if big else 4)
    total = 0
    for _ in range(MOST_THUMBNAILS):
        pieces, reduced, start = _of_directory(data, start, order, big, enough)
        total += pieces
        if total >= enough or not (reduced and start):
            break
    return min(enough, total)


def _of_directory(data: bytes, start: int, order: str, big: bool, enough: int) -> tuple[int, bool, int]:
    """Return the pieces of a directory, whether it is of a thumbnail, and the place of the next one."""
    (entries,) = struct.unpack_from(f"{order}{'Q' if big else 'H'}", data, start) if start < len(data) else (0,)
    place, step, inline = (start + 8, 20, 8) if big else (start + 2, 12, 4)
    if entries >= enough:
        return enough, False, 0
    listed, held, values = 0, 0, dict[int, int]()
    for position in range(place, min(place + step * entries, len(data) - step + 1), step):
        tag, kind, count = struct.unpack_from(f"{order}HHQ" if big else f"{order}HHL", data, position)
        size = count * _SIZES.get(kind, 0)
        if size > inline:
            (where,) = struct.unpack_from(f"{order}Q" if big else f"{order}L", data, position + step - inline)
            held += max(0, min(size, len(data) - where)) if kind in _BYTES else size  # no more is read
        if kind not in _BYTES:
            listed = max(listed, count)
        if count == 1 and kind in _NUMBERS and tag not in values:
            (values[tag],) = struct.unpack_from(order + _NUMBERS[kind], data, position + step - inline)
        elif count:
            values.setdefault(tag, 0)  # more than one value: only that it is there
    if held > 2 * len(data):  # the same bytes are listed again and again
        return enough, False, 0
    end, following = place + step * entries, 0
    if end + inline <= len(data):
        (following,) = struct.unpack_from(f"{order}{'Q' if big else 'L'}", data, end)
    return entries + max(listed, _pieces(values)), bool(values.get(SUBFILE, 0) & REDUCED), following


def _pieces(values: dict[int, int]) -> int:
    """Return how many strips or tiles an image of such a size has."""
    width, height = values.get(_WIDTH, 0), values.get(_HEIGHT, 0)
    planes = max(1, values.get(_SAMPLES, 1)) if values.get(_PLANAR) == _SEPARATE else 1
    tiles = strips = 0
    if _TILE_OFFSETS in values or _TILE_WIDTH in values:
        across = -(-width // max(1, values.get(_TILE_WIDTH, width) or width))
        tiles = across * -(-height // max(1, values.get(_TILE_HEIGHT, height) or height))
    if _OFFSETS in values:
        strips = -(-height // max(1, values.get(_ROWS, height) or height))
    return planes * max(tiles, strips)
