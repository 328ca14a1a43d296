"""Complete truncated files of formats that store rows in order: JPEG, PNG, GIF and pixels without compression.

Those without compression are BMP, PNM, TGA and TIFF.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from treering_verify.media.headers.jpeg_segments import is_progressive
from treering_verify.media.headers.png_chunks import SIGNATURE
from treering_verify.media.truncated.ends import ends_early
from treering_verify.media.truncated.notes import (
    MOST_MISSING,
    ONLY_ITS_END,
    SCANS_MISSING,
    WRONG_CHECKSUM,
    FileNote,
    Share,
)

if TYPE_CHECKING:
    from PIL import Image

_BLOCK, _PART = 1 << 16, 1 << 8
_PADDED = ("BMP", "GIF", "PPM", "TGA", "TIFF")
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
# of an interlaced PNG: first column and row, and steps to the next ones
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of a PNG, by its colour type


def completed(data: bytes) -> tuple[bytes, float | None] | None:
    """Return a complete file for a truncated one, and the share of rows that are missing; None if it cannot be completed.

    Parameters
    ----------
    data : bytes
        A JPEG or PNG file whose end is missing. `decoded_so_far` completes an interlaced PNG.

    Returns
    -------
    tuple of bytes and float, or None
        The share is None for a JPEG: `missing_share` finds it in the pixels.
    """
    if data.startswith(b"\xff\xd8"):
        return data + b"\xff\xd9", None  # an end of image: libjpeg fills the rest with grey
    if data.startswith(SIGNATURE):
        return _completed_png(data)
    return None


def missing_share(image: Image.Image) -> float:
    """Return the share of an image's rows, from the bottom, that together have one colour."""
    import numpy as np

    pixels = np.asarray(image)
    filled = (pixels == pixels[-1, 0]).all(axis=tuple(range(1, pixels.ndim)))
    return float(np.argmin(filled[::-1]) / len(filled)) if not filled.all() else 1.0


def info_of_rest(data: bytes, missing: float) -> dict[str | tuple[int, int], Any]:
    """Return what `info` of a completed JPEG or PNG says: its `Share` and note.

    Parameters
    ----------
    data : bytes
    missing : float
        Share of its rows that are missing.
    """
    if data.startswith(SIGNATURE) and not missing:
        return {"file_note": FileNote(ONLY_ITS_END if ends_early(data) else WRONG_CHECKSUM)}
    if not missing and is_progressive(data):
        return {"cut_short": Share(missing), "file_note": FileNote(SCANS_MISSING)}
    return {"cut_short": Share(missing)}


def decoded_so_far(image: Image.Image, data: bytes) -> Image.Image | None:
    """Return the decoded image, with `info["cut_short"]` if its file was cut short and can be completed here.

    That are GIF, interlaced PNG, and formats without compression.

    Parameters
    ----------
    image : PIL.Image.Image
        Opened from `data`, and not loaded yet.
    data : bytes

    Returns
    -------
    PIL.Image.Image or None
        None for other formats.

    Raises
    ------
    OSError
        If more than `MOST_MISSING` of it is missing.
    """
    tiles = getattr(image, "tile", None)
    interlaced = image.format == "PNG" and bool(image.info.get("interlace"))
    if not (data and tiles and (interlaced or (image.format in _PADDED and tiles[0][0] in ("raw", "gif")))):
        return None
    tile = tiles[0]
    try:
        image.load()
        return image
    except (OSError, SyntaxError):
        found = _interlaced_png(data) if interlaced else _padded(image, tile, data)
        if found is None or found[1] > MOST_MISSING:
            raise
        found[0].info["cut_short"] = Share(found[1])
        return found[0]


def _padded(image: Image.Image, tile: Any, data: bytes) -> tuple[Image.Image, float] | None:
    """Return an image whose missing pixels are filled, and the share of its rows that are missing."""
    kind, extents, place, arguments = tile
    values, format_name = image.width * image.height * max(1, len(image.getbands())), str(image.format)
    if kind == "raw" and 16 * len(data) >= image.width * image.height:  # one bit a pixel is the least
        more = 2 * values + _BLOCK  # two bytes a value are the most
        rest = _loaded(data + bytes(more), format_name)
        return rest, _differing(rest, _loaded(data + b"\xff" * more, format_name))
    if kind == "gif" and tuple(extents) == (0, 0, *image.size):
        rest = _loaded(_padded_gif(data, place, image.width * image.height), format_name)
        return _filled(rest, interlaced=bool(arguments[1]))
    return None


def _loaded(data: bytes, format_name: str) -> Image.Image:
    from PIL import Image

    image = Image.open(io.BytesIO(data), formats=(format_name,))
    image.load()
    return image


def _differing(first: Image.Image, second: Image.Image) -> float:
    """Return the share of rows in which two images differ: those that are filled."""
    import numpy as np

    differs = np.asarray(first) != np.asarray(second)
    return float(differs.any(axis=tuple(range(1, differs.ndim))).mean())


def _filled(image: Image.Image, interlaced: bool) -> tuple[Image.Image, float]:
    """Return a padded GIF and the share of its rows that are missing, which are the row above in one that is interlaced."""
    import numpy as np
    from PIL import Image

    if image.mode not in ("L", "P"):
        return image, 1.0
    rows = np.array(image)
    count = len(rows)
    passes = ((0, 8), (4, 8), (2, 4), (1, 2)) if interlaced else ((0, 1),)
    order = np.concatenate([np.arange(first, count, step) for first, step in passes])
    shown = rows[order].any(axis=1)  # what is missing has the first colour
    missing = np.sort(order[count - int(np.argmax(shown[::-1])) :]) if shown.any() else order
    if interlaced:
        for row in missing[missing > 0]:
            rows[row] = rows[row - 1]
    whole = Image.fromarray(rows)
    if palette := image.getpalette():
        whole.putpalette(palette)
    whole.info = dict(image.info)
    return whole, len(missing) / count


def _padded_gif(data: bytes, place: int, pixels: int) -> bytes:
    """Return a GIF whose last sub-block is filled with zeros, which are pixels of the first colour, and more follow."""
    while place < len(data) and data[place]:
        place += 1 + data[place]
    more = place - len(data)
    blocks = pixels * 12 // 8 // 255 + 2  # a code has at most 12 bits
    return data + bytes(max(0, more)) + (b"\xff" + bytes(255)) * blocks + b"\0;"


def _completed_png(data: bytes) -> tuple[bytes, float] | None:
    """Return a PNG with as many rows as its header says, those that exist and zeros, and the share of missing ones."""
    parts = _parts_of_png(data)
    if parts is None:
        return None
    header, before, rows = parts
    width, height, depth, colour, _, _, interlace = struct.unpack(">IIBBBBB", header)
    if interlace:
        return None
    size = _row_bytes(width, depth, colour)
    refilled, done = _refilled(rows, size * height)
    return _png(header, before, refilled), 1 - done // size / max(1, height)


def _parts_of_png(data: bytes) -> tuple[bytes, list[bytes], bytes] | None:
    """Return the data of the header, the whole chunks before the pixels, and the compressed pixels that are there."""
    header: bytes | None = None
    before: list[bytes] = []
    rows: bytes | None = None
    place = len(SIGNATURE)
    while place + 8 <= len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        kind, body = data[place + 4 : place + 8], data[place + 8 : place + 8 + length]
        if kind == b"IHDR" and len(body) == 13:
            header = body
        elif kind == b"IDAT":
            rows = (rows or b"") + body
        elif rows is None and place + 12 + length <= len(data):
            before.append(data[place : place + 12 + length])  # palette and transparency come before the pixels
        elif rows is not None:
            break
        place += 12 + length
    return None if header is None or rows is None or header[9] not in _CHANNELS else (header, before, rows)


def _row_bytes(width: int, depth: int, colour: int) -> int:
    return 1 + (width * depth * _CHANNELS[colour] + 7) // 8  # a filter byte begins each row


def _png(header: bytes, before: list[bytes], rows: bytes) -> bytes:
    return b"".join([SIGNATURE, _chunk(b"IHDR", header), *before, _chunk(b"IDAT", rows), _chunk(b"IEND", b"")])


def _interlaced_png(data: bytes) -> tuple[Image.Image, float] | None:
    """Return an interlaced PNG as viewers show it before all of it is there, and the share of its pixels that is missing.

    Each of the seven passes is a PNG of its own, whose pixels stand for blocks until a later pass fills them.
    """
    import numpy as np
    from PIL import Image

    parts = _parts_of_png(data)
    if parts is None:
        return None
    header, before, compressed = parts
    width, height, depth, colour = struct.unpack_from(">IIBB", header)
    sizes = [(-(-(width - left) // right), -(-(height - top) // down)) for left, top, right, down in _PASSES]
    wanted = sum(_row_bytes(wide, depth, colour) * high for wide, high in sizes if wide > 0 and high > 0)
    rows = b"".join(_inflated(compressed, wanted))
    canvas, first, place, there = None, None, 0, 0
    for (left, top, right, down), (wide, high) in zip(_PASSES, sizes, strict=True):
        if wide <= 0 or high <= 0:
            continue
        size = _row_bytes(wide, depth, colour)
        whole = min(high, (len(rows) - place) // size)
        if not whole:
            break
        own = struct.pack(">II", wide, whole) + header[8:12] + b"\0"
        image = _loaded(_png(own, before, zlib.compress(rows[place : place + whole * size], 1)), "PNG")
        pixels = np.asarray(image)
        first = first or image
        if canvas is None:
            canvas = np.zeros((height, width, *pixels.shape[2:]), pixels.dtype)
        # Columns that earlier passes filled lie to the left of a pixel, and rows above it.
        across, along = (right if left == 0 else left), (down if top == 0 else top)
        blocks = np.repeat(np.repeat(pixels, along, 0), across, 1)
        for row in range(along):
            for column in range(across):
                target = canvas[top + row : top + down * (whole - 1) + row + 1 : down, left + column :: right]
                source = blocks[row::along, column::across]
                target[:] = source[: target.shape[0], : target.shape[1]]
        place, there = place + whole * size, there + whole * wide
        if whole < high:
            break
    if canvas is None or first is None:
        return None
    whole_image = Image.fromarray(canvas)
    if palette := first.getpalette():
        whole_image.putpalette(palette)
    whole_image.info = dict(first.info)
    return whole_image, 1 - there / (width * height)


def _refilled(compressed: bytes, wanted: int) -> tuple[bytes, int]:
    """Inflate what exists, and deflate it again with zeros up to a length; return it, and how much existed."""
    deflater = zlib.compressobj(1)
    pieces: list[bytes] = []
    done = 0
    for block in _inflated(compressed, wanted):
        pieces.append(deflater.compress(block))
        done += len(block)
    for place in range(done, wanted, _BLOCK):
        pieces.append(deflater.compress(bytes(min(_BLOCK, wanted - place))))
    return b"".join([*pieces, deflater.flush()]), done


def _inflated(compressed: bytes, wanted: int) -> Iterator[bytes]:
    """Yield what zlib's stream holds until it is damaged, at most so many bytes; its checksum may be wrong or missing."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    done, place = 0, 2  # after the header of zlib
    while done < wanted and not inflater.eof and (inflater.unconsumed_tail or place < len(compressed)):
        waiting = inflater.unconsumed_tail
        if not waiting:  # a small part, because what it holds is lost if it is damaged
            waiting, place = compressed[place : place + _PART], place + _PART
        try:
            block = inflater.decompress(waiting, min(_BLOCK, wanted - done))
        except zlib.error:
            return
        yield block
        done += len(block)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
