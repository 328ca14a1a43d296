"""Complete JPEG 2000 and compressed TIFF files that were cut short, of which whole tiles or strips are there.

Of a JPEG 2000 the missing packets become empty ones, so that a tile that was cut through is less sharp, and the others are
grey. Of a TIFF a missing piece is decoded as another one, then filled with grey.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from treering_verify.media.headers.isobmff import boxes
from treering_verify.media.headers.tiff_directory import first_entries
from treering_verify.media.truncated.notes import CUT_SHORT, MOST_MISSING, FileNote, Share, percent

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

_SIZE, _STYLE, _TILE, _DATA, _END = 0xFF51, 0xFF52, 0xFF90, 0xFF93, b"\xff\xd9"
_MOST_PACKETS = 1 << 16  # of a tile, that are written as empty ones
_MOST_TILES = 1 << 14
_GREY = 128
_STRIPS, _TILES = (273, 279), (324, 325)  # tags of a TIFF: places and lengths of its pieces
_WIDTH, _HEIGHT, _ROWS, _TILE_WIDTH, _TILE_HEIGHT, _TURNED, _PLANAR = 256, 257, 278, 322, 323, 274, 284


def completed_codestream(data: bytes) -> tuple[bytes, float] | None:
    """Return a complete JPEG 2000 for one that was cut short, and the share of its bytes that are missing.

    None if it is no JPEG 2000, if more than `MOST_MISSING` of it is missing, or if its headers are cut.
    """
    try:
        begin = end = 0
        if data[4:8] == b"jP  ":
            begin, end = next(((place, end) for kind, place, end in boxes(data) if kind == b"jp2c"), (len(data), 0))
        return _completed(data, begin, end) if data[begin : begin + 4] == b"\xff\x4f\xff\x51" else None
    except (struct.error, IndexError):
        return None


class _Grid(NamedTuple):
    """Tiles of a codestream, and packets of each."""

    tiles: int
    packets: int


def _completed(data: bytes, begin: int, end: int) -> tuple[bytes, float] | None:
    grid, place = _grid(data, begin + 2)
    if grid.tiles > _MOST_TILES or grid.packets > _MOST_PACKETS:
        return None
    there, lengths, rest = set[int](), list[int](), b""
    while place + 12 <= len(data) and struct.unpack_from(">H", data, place)[0] == _TILE:
        number, length = struct.unpack_from(">HL", data, place + 4)
        if length < 14:  # up to the end of the codestream, which nobody knows
            return None
        there.add(number)
        lengths.append(length)
        if place + length > len(data):
            rest = bytes(place + length - len(data))
        place += length
    if not lengths:
        return None
    head = data if rest else data[:place]
    others = [number for number in range(grid.tiles) if number not in there]
    if end > len(data):
        share = (end - len(data)) / (end - begin)
    elif len(there) == len(lengths):
        share = (len(rest) / lengths[-1] + len(others)) / grid.tiles
    else:  # tiles in several parts, and nobody knows how many
        return None
    if share > MOST_MISSING:
        return None
    body = struct.pack(">H", _DATA) + bytes(grid.packets)
    empty = [struct.pack(">HHHLBB", _TILE, 10, number, 12 + len(body), 0, 1) + body for number in others]
    whole = b"".join([head, rest, *empty, _END])
    return _with_open_box(whole, begin), share


def _with_open_box(data: bytes, begin: int) -> bytes:
    """Return a JP2 whose last box goes to the end of the file."""
    if begin < 8 or data[begin - 4 : begin] != b"jp2c":  # a bare codestream, or a box with a length of eight bytes
        return data
    return data[: begin - 8] + bytes(4) + data[begin - 4 :]


def _grid(data: bytes, place: int) -> tuple[_Grid, int]:
    """Return the tiles that the main header declares, and the place where it ends (ISO/IEC 15444-1, annex A)."""
    tiles = packets = components = 0
    while (marker := struct.unpack_from(">H", data, place)[0]) != _TILE:
        (length,) = struct.unpack_from(">H", data, place + 2)
        if marker == _SIZE:
            width, height, _, _, wide, high, left, top = struct.unpack_from(">8L", data, place + 6)
            tiles = math.ceil((width - left) / max(1, wide)) * math.ceil((height - top) / max(1, high))
            (components,) = struct.unpack_from(">H", data, place + 38)
        elif marker == _STYLE:
            (layers,) = struct.unpack_from(">H", data, place + 6)
            packets = layers * components * (data[place + 9] + 1)
        place += 2 + max(2, length)
    if not (tiles and packets):
        raise struct.error("no size, or no style")
    return _Grid(tiles, packets), place


def note_of_bytes(share: float) -> FileNote:
    """Return the note of a JPEG 2000 that was completed."""
    return FileNote(f"{CUT_SHORT}: {percent(share)} of its data are missing, so the image is less sharp or grey there")


def without_missing_pieces(data: bytes, decode: Callable[[bytes], Image.Image]) -> Image.Image | None:
    """Return a compressed TIFF that was cut short, its missing strips or tiles grey; None if that cannot be done.

    Parameters
    ----------
    data : bytes
    decode : function
        Decodes a file's bytes, not turned upright where its directory has no orientation.

    Returns
    -------
    PIL.Image.Image or None
        With its `Share` in `info`.
    """
    import numpy as np

    try:
        entries = first_entries(data)
        tags = next(pair for pair in (_TILES, _STRIPS) if pair[0] in entries)
        places, lengths = (entries[tag] for tag in tags)
    except (struct.error, IndexError, KeyError, StopIteration):
        return None
    missing = [
        place + length > len(data) or not length for place, length in zip(places.values, lengths.values, strict=False)
    ]
    if all(missing) or not any(missing):
        return None
    whole = bytearray(data)
    other = missing.index(False)
    for number in np.flatnonzero(missing):
        for entry in (places, lengths):
            struct.pack_into(
                entry.format, whole, entry.place + int(number) * struct.calcsize(entry.format), entry.values[other]
            )
    turned = entries.get(_TURNED)
    if turned:
        struct.pack_into(turned.format, whole, turned.place, 1)
    image = decode(bytes(whole))
    single = {tag: entry.values[0] for tag, entry in entries.items() if entry.values}
    gone = _areas(image, missing, single, tiled=tags == _TILES)
    share = float(gone.mean())
    if share > MOST_MISSING:
        return None
    return _filled(image, gone, share, turned.values[0] if turned else 1)


def _areas(image: Image.Image, missing: list[bool], tags: dict[int, int], tiled: bool) -> NDArray[np.bool_]:
    """Return which pixels are in missing pieces, of any plane."""
    import numpy as np

    width, height = image.size
    wide = tags.get(_TILE_WIDTH, width) if tiled else width
    high = tags.get(_TILE_HEIGHT, height) if tiled else tags.get(_ROWS, height)
    wide, high = max(1, wide), max(1, min(high, height))
    across = -(-width // wide)
    gone = np.zeros((height, width), bool)
    for number in np.flatnonzero(missing):
        row, column = divmod(int(number) % (across * -(-height // high)), across)
        gone[row * high : (row + 1) * high, column * wide : (column + 1) * wide] = True
    return gone


def _filled(image: Image.Image, gone: NDArray[np.bool_], share: float, turned: int) -> Image.Image:
    import numpy as np
    from PIL import Image

    pixels = np.array(image)
    pixels[gone] = _GREY
    whole = Image.fromarray(pixels)
    whole.getexif()[_TURNED] = turned
    whole.info["cut_short"] = Share(share)
    return whole
