"""Tell a JPEG whose end-of-image marker comes too early: decoders stop there without an error, and the rest is grey.

So it is with a file whose end was lost and that a program closed with a marker, and with a marker that damage made.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from treering_verify.media.headers.jpeg_segments import PROGRESSIVE, outline, without_broken_segments

if TYPE_CHECKING:
    from PIL import Image

_HUFFMAN = frozenset([0xC0, 0xC1, *PROGRESSIVE]) - {0xCA, 0xCE}  # arithmetic decoders cannot wait for bytes
_GREYS = range(126, 130)  # what a decoder makes of no data, beside a block that has some; CMYK is inverted
_MORE = b"\xfe" * 16  # a decoder looks ahead up to 8 bytes, and these are long codes, of few blocks
_COEFFICIENTS = 64
_LOOKED_AT = 1 << 16  # bytes behind the end
_IMAGE = b"\xff\xd8"


def ends_too_early(image: Image.Image, data: bytes) -> bool:
    """Return whether a JPEG's end-of-image marker comes before all of its image.

    Parameters
    ----------
    image : PIL.Image.Image
        Opened from `data`, and loaded; not turned yet.
    data : bytes
    """
    try:
        return _ends_too_early(image, data)
    except (IndexError, ValueError, OSError):  # its markers say nonsense
        return False


def _ends_too_early(image: Image.Image, data: bytes) -> bool:
    frame, scans, end = outline(data)
    if not frame or not end or not scans or data[frame] not in _HUFFMAN:
        return False
    if len(scans) == 1 and data[frame] not in PROGRESSIVE:
        last = image.getpixel((image.width - 1, image.height - 1))
        bands = last if isinstance(last, tuple) else (last,)
        return all(band in _GREYS for band in bands) and not _decodes(data[:end] + _MORE)
    if not _is_complete(data, frame, scans):
        return True
    follows = data[end + 2 : end + 2 + _LOOKED_AT].lstrip(b"\0\xff")
    return bool(follows) and not data.startswith(_IMAGE, end + 2) and _shows_more(image, data[:end], data[end:])


def _is_complete(data: bytes, frame: int, scans: list[int]) -> bool:
    """Return whether scans bring each coefficient of each component to its last bit (ITU-T T.81, B.2.2 and B.2.3)."""
    count = data[frame + 8]
    missing = {data[frame + 9 + 3 * i]: {*range(_COEFFICIENTS)} for i in range(count)}
    for scan in scans:
        parts = data[scan + 3]
        first, last, bits = data[scan + 4 + 2 * parts : scan + 7 + 2 * parts]
        if bits & 15 == 0:
            for i in range(parts):
                missing.get(data[scan + 4 + 2 * i], set()).difference_update(range(first, last + 1))
    return not any(missing.values())


def _decodes(data: bytes) -> bool:
    """Return whether a JPEG without an end-of-image marker has all of its image."""
    try:
        _loaded(data)
    except OSError:
        return False
    return True


def _shows_more(image: Image.Image, begin: bytes, end: bytes) -> bool:
    """Return whether bytes before the end of the last scan change the image."""
    return _loaded(begin + b"\x55" * len(_MORE) + end).tobytes() != image.tobytes()


def _loaded(data: bytes) -> Image.Image:
    from PIL import Image

    image = Image.open(io.BytesIO(without_broken_segments(data)), formats=("JPEG",))
    image.load()
    return image
