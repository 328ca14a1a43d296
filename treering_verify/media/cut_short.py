"""Complete image files that were cut short, so that what is left of them can be judged.

A download that broke off, or a disk that was full, leaves most of an image. The rest is filled with one colour, which the
visible area (`blank_areas`) leaves out of the test. Only JPEG and PNG can be completed: they store rows in order.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

from treering_verify.media.png_chunks import SIGNATURE

if TYPE_CHECKING:
    from PIL import Image

MOST_MISSING = 0.5
"""Share of an image's rows that may be missing; what is cut shorter is damaged."""

_BLOCK = 1 << 16
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of a PNG, by its colour type


def completed(data: bytes) -> bytes | None:
    """Return a whole file in the place of one that was cut short; None where that cannot be done.

    Parameters
    ----------
    data : bytes
        A JPEG or PNG file whose end is missing. Of a PNG, interlaced ones cannot be completed.
    """
    if data.startswith(b"\xff\xd8"):
        return data + b"\xff\xd9"  # an end of image: libjpeg fills the rest with grey
    if data.startswith(SIGNATURE):
        return _completed_png(data)
    return None


def missing_share(image: Image.Image) -> float:
    """Share of an image's rows, from the bottom, that are one colour altogether."""
    import numpy as np

    pixels = np.asarray(image)
    filled = (pixels == pixels[-1, 0]).all(axis=tuple(range(1, pixels.ndim)))
    return float(np.argmin(filled[::-1]) / len(filled)) if not filled.all() else 1.0


def _completed_png(data: bytes) -> bytes | None:
    """Inflate the rows that are there and deflate as many as the header promises, the missing ones zero."""
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
    if header is None or rows is None:
        return None
    width, height, depth, colour, _, _, interlace = struct.unpack(">IIBBBBB", header)
    if interlace or colour not in _CHANNELS:
        return None
    wanted = (1 + (width * depth * _CHANNELS[colour] + 7) // 8) * height  # a filter byte begins each row
    return b"".join(
        [SIGNATURE, _chunk(b"IHDR", header), *before, _chunk(b"IDAT", _refilled(rows, wanted)), _chunk(b"IEND", b"")]
    )


def _refilled(compressed: bytes, wanted: int) -> bytes:
    """Inflate what can be, and deflate it again with zeros up to a length, without ever holding it whole."""
    inflater, deflater = zlib.decompressobj(), zlib.compressobj(1)
    pieces: list[bytes] = []
    done = 0
    waiting = compressed
    while done < wanted and waiting and not inflater.eof:
        try:
            block = inflater.decompress(waiting, min(_BLOCK, wanted - done))
        except zlib.error:
            break
        waiting = inflater.unconsumed_tail
        if not block and not waiting:
            break
        pieces.append(deflater.compress(block))
        done += len(block)
    while done < wanted:
        block = bytes(min(_BLOCK, wanted - done))
        pieces.append(deflater.compress(block))
        done += len(block)
    return b"".join([*pieces, deflater.flush()])


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
