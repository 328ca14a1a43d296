"""Tell whether the end of an image file is missing, by what its own headers say about where it ends."""

from __future__ import annotations

import re
import struct

from treering_verify.media.headers.isobmff import boxes
from treering_verify.media.headers.jpeg_segments import segments
from treering_verify.media.headers.png_chunks import SIGNATURE
from treering_verify.media.headers.riff_chunks import declared_end, ends_within_a_chunk
from treering_verify.media.headers.tiff_directory import first_entries

_BOX_MAGIC = (b"ftyp", b"jP  ", b"JXL ")
_SAID = re.compile("truncated|pixels are missing|end of file|buffer is not large enough|not enough", re.IGNORECASE)
_TIFF_PLACES = {273: 279, 324: 325}  # tags: places of strips or tiles, and their lengths


def ends_early(data: bytes, error: BaseException | None = None) -> bool:
    """Return whether the end of an image file is missing.

    Parameters
    ----------
    data : bytes
        The file, of any kind.
    error : exception, optional
        What its decoder raised, for formats that do not say where they end, or say it wrongly: BMP, PNM, TGA, DDS, PSD.
    """
    try:
        for matches, check in _CHECKS:
            if matches(data):
                return check(data)
    except (struct.error, IndexError):  # not even its header is there
        return True
    return error is not None and bool(_SAID.search(str(error)))


def _png(data: bytes) -> bool:
    place = len(SIGNATURE)
    while place + 12 <= len(data):
        if data[place + 4 : place + 8] == b"IEND":
            return False
        place += 12 + int.from_bytes(data[place : place + 4], "big")
    return True


def _jpeg(data: bytes) -> bool:
    end = [2, *(end for _, _, end in segments(data))][-1]
    scan = data.find(b"\xff\xda", end)
    return scan < 0 or data.find(b"\xff\xd9", scan) < 0


def _gif(data: bytes) -> bool:
    place = 13 + (3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0)
    while data[place] != ord(";"):
        kind = data[place]
        place += 2 if kind == ord("!") else 1
        if kind == ord(","):
            packed = data[place + 8]
            place += 10 + (3 << (packed & 7) + 1 if packed & 0x80 else 0)
        elif kind != ord("!"):
            continue
        while size := data[place]:
            place += 1 + size
        place += 1
    return False


def _riff(data: bytes) -> bool:
    return len(data) < declared_end(data) or ends_within_a_chunk(data)


def _boxed(data: bytes) -> bool:
    return any(end > len(data) for _, _, end in boxes(data))


def _codestream(data: bytes) -> bool:
    return not data.rstrip(b"\0").endswith(b"\xff\xd9")


def _tiff(data: bytes) -> bool:
    entries = first_entries(data)
    for places, lengths in _TIFF_PLACES.items():
        if places in entries:
            ends = zip(entries[places].values, entries.get(lengths, entries[places]).values, strict=False)
            if any(place + length > len(data) for place, length in ends):
                return True
    return False


_CHECKS = (
    (lambda data: data.startswith(SIGNATURE), _png),
    (lambda data: data.startswith(b"\xff\xd8"), _jpeg),
    (lambda data: data.startswith(b"GIF8"), _gif),
    (lambda data: data[:4] == b"RIFF" and data[8:12] == b"WEBP", _riff),
    (lambda data: data[4:8] in _BOX_MAGIC, _boxed),
    (lambda data: data.startswith(b"\xff\x4f\xff\x51"), _codestream),
    (lambda data: data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), _tiff),
)
