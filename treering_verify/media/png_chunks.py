"""Remove the parts of a PNG that no viewer needs, so that damaged or huge ones do not make the image an error.

Viewers display an image with broken comments; Pillow raises an error. Only ancillary chunks are removed. Every pixel,
palette and transparency chunk is unchanged, damaged or not.
"""

from __future__ import annotations

import zlib

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_PROFILE = 1 << 20
"""Largest colour profile that is applied, in bytes once inflated; larger ones are ignored."""

_TEXT = (b"tEXt", b"zTXt", b"iTXt")


def without_ballast(data: bytes) -> bytes:
    """Return a PNG file without text, damaged ancillary chunks, and colour profiles that are too large.

    Parameters
    ----------
    data : bytes
        A whole file. A file that is not a PNG, or has nothing to remove, is returned unchanged.

    Returns
    -------
    bytes
        A PNG of the same pixels.
    """
    if not data.startswith(SIGNATURE):
        return data
    pieces: list[bytes] = []
    kept, place = 0, len(SIGNATURE)  # everything up to `kept` is in `pieces`
    while place + 12 <= len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        kind, end = data[place + 4 : place + 8], place + 12 + length
        if end > len(data):
            break
        if _is_ancillary(kind) and _is_ballast(kind, data[place + 4 : end]):
            pieces.append(data[kept:place])
            kept = end
        place = end
        if kind == b"IEND":
            break
    return b"".join([*pieces, data[kept:]]) if pieces else data


def _is_ancillary(kind: bytes) -> bool:
    """Return whether a decoder may ignore chunks of a kind: bit 5 of the first letter (PNG specification, section 5.4)."""
    return bool(kind) and bool(kind[0] & 0x20)


def _is_ballast(kind: bytes, body: bytes) -> bool:
    """Return whether an ancillary chunk can be removed; `body` is its kind, data and CRC."""
    if kind in _TEXT or int.from_bytes(body[-4:], "big") != zlib.crc32(body[:-4]):
        return True
    return kind == b"iCCP" and not _is_usable_profile(body[4:-4])


def _is_usable_profile(data: bytes) -> bool:
    """Return whether the data of an iCCP chunk (name, zero, method, deflated profile) inflates to a usable size."""
    _, zero, compressed = data.partition(b"\0")
    if not zero:
        return False
    inflater = zlib.decompressobj()
    try:
        inflater.decompress(compressed[1:], MAX_PROFILE)
    except zlib.error:
        return False
    return not inflater.unconsumed_tail
