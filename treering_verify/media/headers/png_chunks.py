"""Remove the parts of a PNG that no viewer needs, so that damaged or huge ones do not make the image an error.

Viewers display an image with broken comments; Pillow raises an error. Only ancillary chunks are removed: all that say
nothing about the pixels, and the others where their CRC, length or place is wrong. Every pixel and palette chunk is
unchanged, damaged or not.
"""

from __future__ import annotations

import struct
import zlib

from treering_verify.media.headers.jpeg_segments import without_broken_segments

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_PROFILE = 1 << 20
"""Largest colour profile that is applied, in bytes once inflated; larger ones are ignored."""

_PICTURE, _ANIMATION = (b"tRNS", b"iCCP", b"eXIf"), (b"acTL", b"fcTL", b"fdAT")
_HARMLESS = (b"pHYs", b"gAMA", b"cHRM", b"sRGB", b"tIME", b"bKGD", b"sBIT")
_LENGTHS = {  # of the data, as the PNG specification fixes it
    b"pHYs": (9,),
    b"gAMA": (4,),
    b"cHRM": (32,),
    b"sRGB": (1,),
    b"tIME": (7,),
    b"bKGD": (1, 2, 6),
    b"sBIT": (1, 2, 3, 4),
    b"acTL": (8,),
    b"fcTL": (26,),
}
_COLOUR_KEYS = {0: range(2, 3), 2: range(6, 7), 3: range(1, 257)}  # bytes of tRNS, by colour type; others have none


def without_ballast(data: bytes) -> bytes:
    """Return a PNG file without text, damaged or misplaced ancillary chunks, and colour profiles that are too large.

    A JPEG file is returned without the segments that `jpeg_segments` removes.

    Parameters
    ----------
    data : bytes
        A whole file. A file of another format, or with nothing to remove, is returned unchanged.

    Returns
    -------
    bytes
        A file of the same pixels.
    """
    if data.startswith(b"\xff\xd8"):
        return without_broken_segments(data)
    if not data.startswith(SIGNATURE):
        return data
    chunks = _chunks(data)
    drawn = [number for number, (kind, _, _) in enumerate(chunks) if kind == b"IDAT"]
    first, last = (drawn[0], drawn[-1]) if drawn else (len(chunks), len(chunks))
    moves = _moves(data, chunks, first)
    pieces: list[bytes] = []
    kept = 0  # everything up to here is in `pieces`, or removed
    for number, (kind, place, end) in enumerate(chunks):
        misplaced = first < number < last or (number > last and kind in (b"tRNS", b"iCCP"))
        removed = _is_ancillary(kind) and (
            misplaced or (kind in _ANIMATION and not moves) or _is_ballast(kind, data[place + 4 : end], data[25:26])
        )
        if removed:
            pieces.append(data[kept:place])
            kept = end
    return b"".join([*pieces, data[kept:]]) if pieces else data


def _chunks(data: bytes) -> list[tuple[bytes, int, int]]:
    """Return kind, begin and end of each whole chunk of a PNG, up to its end."""
    found, place = [], len(SIGNATURE)
    while place + 12 <= len(data):
        kind, end = data[place + 4 : place + 8], place + 12 + int.from_bytes(data[place : place + 4], "big")
        if end > len(data):
            break
        found.append((kind, place, end))
        place = end
        if kind == b"IEND":
            break
    return found


def _moves(data: bytes, chunks: list[tuple[bytes, int, int]], first: int) -> bool:
    """Return whether the chunks of an animation are usable; a viewer shows the still image where they are not."""
    count, size = 0, struct.unpack_from(">LL", data, 16) if len(data) >= 24 else (0, 0)
    for number, (kind, place, end) in enumerate(chunks):
        if kind not in _ANIMATION or _is_ballast(kind, data[place + 4 : end], b""):
            continue
        if kind == b"acTL" and number < first:
            (count,) = struct.unpack_from(">L", data, place + 8)
        elif kind == b"fcTL":
            width, height, left, top = struct.unpack_from(">4L", data, place + 12)
            if not (0 < width <= size[0] - left and 0 < height <= size[1] - top):
                return False
    return count > 0


def _is_ancillary(kind: bytes) -> bool:
    """Return whether a decoder may ignore chunks of a kind: bit 5 of the first letter (PNG specification, section 5.4)."""
    return bool(kind) and bool(kind[0] & 0x20)


def _is_ballast(kind: bytes, body: bytes, colour: bytes) -> bool:
    """Return whether an ancillary chunk can be removed; `body` is its kind, data and CRC, `colour` the PNG's colour type."""
    size = len(body) - 8
    if kind not in (*_PICTURE, *_ANIMATION, *_HARMLESS) or size not in _LENGTHS.get(kind, (size,)):
        return True
    if int.from_bytes(body[-4:], "big") != zlib.crc32(body[:-4]):
        return True
    if kind == b"tRNS":
        return not colour or size not in _COLOUR_KEYS.get(colour[0], ())
    return kind == b"iCCP" and not _is_usable_profile(body[4:-4])


def _is_usable_profile(data: bytes) -> bool:
    """Return whether the data of an iCCP chunk (name, zero, method, deflated profile) inflates to a usable size."""
    _, zero, compressed = data.partition(b"\0")
    if not zero or compressed[:1] != b"\0":  # the only method that there is
        return False
    inflater = zlib.decompressobj()
    try:
        inflater.decompress(compressed[1:], MAX_PROFILE)
    except zlib.error:
        return False
    return not inflater.unconsumed_tail
