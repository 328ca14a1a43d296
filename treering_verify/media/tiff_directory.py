"""Count what the first directory of a TIFF makes a decoder do: entries, and strips or tiles.

Pillow takes microseconds and a hundred bytes for each strip or tile that the directory lists, and libtiff works on as many
as width, height and their size give. Both are counted, because they need not agree.
"""

from __future__ import annotations

import struct

_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_NUMBERS = {1: "B", 3: "H", 4: "L", 16: "Q"}  # types of the values that are read here
_BYTES = (1, 2, 6, 7)  # types whose values a decoder takes as a whole
_WIDTH, _HEIGHT, _OFFSETS, _SAMPLES, _ROWS = 256, 257, 273, 277, 278
_PLANAR, _TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS = 284, 322, 323, 324
_SEPARATE = 2


def count_pieces(data: bytes, enough: int) -> int:
    """Return how many entries, listed values, strips and tiles the first directory of a TIFF has, up to about `enough`.

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


def _count(data: bytes, enough: int) -> int:
    order = "<" if data[:2] == b"II" else ">"
    big = 43 in (data[2], data[3])
    if big:
        (start,) = struct.unpack_from(f"{order}Q", data, 8)
        (entries,) = struct.unpack_from(f"{order}Q", data, start) if start < len(data) else (0,)
        place, step, inline = start + 8, 20, 8
    else:
        (start,) = struct.unpack_from(f"{order}L", data, 4)
        (entries,) = struct.unpack_from(f"{order}H", data, start) if start < len(data) else (0,)
        place, step, inline = start + 2, 12, 4
    if entries >= enough:
        return enough
    listed, held, values = 0, 0, dict[int, int]()
    for position in range(place, min(place + step * entries, len(data) - step + 1), step):
        tag, kind, count = struct.unpack_from(f"{order}HHQ" if big else f"{order}HHL", data, position)
        size = count * _SIZES.get(kind, 0)
        held += size if size > inline else 0
        if kind not in _BYTES:
            listed = max(listed, count)
        if count == 1 and kind in _NUMBERS and tag not in values:
            (values[tag],) = struct.unpack_from(order + _NUMBERS[kind], data, position + step - inline)
        elif count:
            values.setdefault(tag, 0)  # more than one value: only that it is there
    if held > 2 * len(data):  # the same bytes are listed again and again
        return enough
    return min(enough, entries + max(listed, _pieces(values)))


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
