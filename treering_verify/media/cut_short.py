"""Complete truncated image files, so that the rest of the image can be tested.

A broken download or a full disk leaves most of an image. The rest is filled with one colour, which the
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
"""Largest share of an image's rows that may be missing; with more missing the file counts as damaged."""

_BLOCK = 1 << 16
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of a PNG, by its colour type


def completed(data: bytes) -> bytes | None:
    """Return a complete file for a truncated one; None if it cannot be completed.

    Parameters
    ----------
    data : bytes
        A JPEG or PNG file whose end is missing. An interlaced PNG cannot be completed.
    """
    if data.startswith(b"\xff\xd8"):
        return data + b"\xff\xd9"  # an end of image: libjpeg fills the rest with grey
    if data.startswith(SIGNATURE):
        return _completed_png(data)
    return None


def missing_share(image: Image.Image) -> float:
    """Return the share of an image's rows, from the bottom, that together have one colour."""
    import numpy as np

    pixels = np.asarray(image)
    filled = (pixels == pixels[-1, 0]).all(axis=tuple(range(1, pixels.ndim)))
    return float(np.argmin(filled[::-1]) / len(filled)) if not filled.all() else 1.0


def _completed_png(data: bytes) -> bytes | None:
    """Return a PNG with as many rows as its header says: those that exist, and zeros for the missing ones."""
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
    """Inflate what exists, and deflate it again with zeros up to a length, block by block."""
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
