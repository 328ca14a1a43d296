"""How strongly a still image was compressed: the bits of its file that code pixels, by the lossy format that it is in.

Marks are lost where a codec kept too few bits of an image (docs/search.md#what-no-evidence-covers). Headers, metadata,
previews and what was appended to a file say nothing about the image, and are not counted.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from treering_verify.media.headers.isobmff import boxes, coded_bytes
from treering_verify.media.headers.jpeg_scans import quantisation_step, telling_bits
from treering_verify.media.headers.riff_chunks import chunks

_CODESTREAMS = {b"JXL ": ("JXL", (b"jxlc", b"jxlp")), b"jP  ": ("JPEG2000", (b"jp2c",))}
_BARE = {b"\xff\x0a": "JXL", b"\xff\x4f\xff\x51": "JPEG2000"}
_AV1 = (b"avif", b"avis")


class Compression(NamedTuple):
    """How strongly an image was compressed.

    Attributes
    ----------
    format : str
        The lossy format, by its name in Pillow.
    bits : int
        Bits that code the pixels. A JPEG has some for each block, whatever is in it, which tell nothing and are not counted.
    step : float
        Step of a JPEG's luminance at low frequencies, in levels (`jpeg_scans.quantisation_step`); 0 of other formats.
    """

    format: str
    bits: int
    step: float = 0.0


def compression_of(data: bytes) -> Compression | None:
    """Return the compression of a still image; None of other formats, of animations and of files that are damaged.

    A JPEG XL, JPEG 2000 or AVIF without loss counts too: it has many bits.
    """
    try:
        name, bits = _coded(data)
        step = quantisation_step(data) if name == "JPEG" else 0.0
    except (struct.error, IndexError, ValueError):  # its headers say nonsense
        return None
    return Compression(name, bits, step) if bits else None


def _coded(data: bytes) -> tuple[str, int]:
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG", telling_bits(data)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WEBP", 8 * sum(min(one.end, len(data)) - one.begin for one in chunks(data) if one.kind == b"VP8 ")
    for signature, name in _BARE.items():
        if data.startswith(signature):
            return name, 8 * len(data)
    if (kind := data[4:8]) in _CODESTREAMS:
        name, parts = _CODESTREAMS[kind]
        return name, 8 * sum(min(end, len(data)) - begin for one, begin, end in boxes(data) if one in parts)
    if kind == b"ftyp":
        return "AVIF" if data[8:12] in _AV1 else "HEIF", 8 * coded_bytes(data)
    return "", 0
