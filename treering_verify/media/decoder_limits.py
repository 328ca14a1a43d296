"""Limits for Pillow and the C libraries under it when they decode untrusted files.

A small file can cost them hours of work, so what costs it is counted before they decode: pixels, parts, scans, and the
seconds of slow formats. Their warnings, which go to Python's filters or directly to the process's stderr, are silenced.
"""

from __future__ import annotations

import contextlib
import functools
import threading
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

from treering_verify.media.headers.declared_sizes import declared_pixels
from treering_verify.media.headers.jpeg_segments import ALONE, next_marker
from treering_verify.media.headers.part_counts import count_parts

if TYPE_CHECKING:
    from PIL import Image

MAX_PIXELS = 64_000_000
"""Largest width x height decoded, by the header."""

MAX_SCANS = 200
"""Largest number of scans of a JPEG that is decoded; encoders write about ten."""

MAX_PARTS = 100_000
"""Largest number of parts of a file that are read one by one, by `part_counts.count_parts`."""

MAX_SECONDS = 5.0
"""Longest time that a decoder may need by `estimated_seconds`."""

_START_OF_SCAN = b"\xff\xda"
_END_OF_IMAGE = 0xD9

_lock = threading.Lock()
_users = 0
_filters: warnings.catch_warnings[None] | None = None


@contextlib.contextmanager
def quiet_decoders() -> Iterator[None]:
    """Silence the decoders' messages about odd files, whatever the caller's filters: here they become results.

    `warnings.catch_warnings` alone is not safe when threads overlap: the last one to leave would restore the filters of
    another. So the first thread to enter saves the filters, and the last one to leave restores them.
    """
    global _users, _filters
    _silence_for_good()
    with _lock:
        if _users == 0:
            _filters = warnings.catch_warnings()
            _filters.__enter__()
            warnings.filterwarnings("ignore", module=r"PIL\.")
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0 and _filters is not None:
                _filters.__exit__(None, None, None)
                _filters = None


@functools.cache
def _silence_for_good() -> None:
    """Keep messages of Pillow's log and of libtiff from stderr; libtiff writes thousands of lines on a hostile file.

    Handlers that the caller added to Pillow's log, or to the root, still get its records. Pillow has no function for
    libtiff, so libtiff's own function is called through Pillow's extension, which is linked to it. If that fails (libtiff
    is built into the extension, as on Windows), libtiff's messages remain and nothing else changes.
    """
    import ctypes
    import logging

    from PIL import _imaging

    logging.getLogger("PIL").addHandler(logging.NullHandler())
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(_imaging.__file__)
        for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
            handler = getattr(library, name)
            handler.argtypes, handler.restype = [ctypes.c_void_p], ctypes.c_void_p
            handler(None)


def excess_of_file(data: bytes) -> str:
    """Return the code of the limit that a file exceeds before Pillow may even open it, or ""."""
    if count_parts(data, MAX_PARTS + 1) > MAX_PARTS:
        return "too_many_parts"
    return "too_many_pixels" if declared_pixels(data) > MAX_PIXELS else ""


def excess_of_image(image: Image.Image, data: bytes) -> str:
    """Return the code of the limit that an image exceeds, opened from `data` and not decoded yet, or ""."""
    if image.width * image.height > MAX_PIXELS:
        return "too_many_pixels"
    if image.format in ("JPEG", "MPO") and count_scans(data, MAX_SCANS + 1) > MAX_SCANS:
        return "too_many_scans"
    return "too_slow" if estimated_seconds(image, len(data)) > MAX_SECONDS else ""


def count_scans(data: bytes, enough: int) -> int:
    """Count the scans of a JPEG file, up to `enough`.

    A scan of a progressive JPEG may take 14 bytes of the file, and libjpeg passes over the whole image for each. So a
    megabyte can cost an hour. Encoders write about ten scans.

    Parameters
    ----------
    data : bytes
        The file. In a damaged one the scans are counted as far as its markers can be followed.
    enough : int
        Counting stops at this number.
    """
    if data.count(_START_OF_SCAN) < enough:  # an upper bound: such pairs also occur inside metadata
        return data.count(_START_OF_SCAN)
    scans, place = 0, 2
    while scans < enough and (found := next_marker(data, place)):
        marker, place = found.code, found.end
        if marker in ALONE:
            continue
        if marker == _END_OF_IMAGE:
            break
        scans += marker == _START_OF_SCAN[1]
        place += max(2, int.from_bytes(data[place : place + 2], "big"))
    return scans


def estimated_seconds(image: Image.Image, size: int) -> float:
    """Return about how long a decoder takes for an image that was opened, on one core; 0 where that needs no bound.

    Parameters
    ----------
    image : PIL.Image.Image
    size : int
        Bytes of its file.
    """
    tiles = getattr(image, "tile", None)
    kind = "BMP RLE" if tiles and tiles[0][0] == "bmp_rle" else str(image.format)
    pixel, byte = _NANOSECONDS.get(kind, (0, 0))
    return (pixel * image.width * image.height + byte * size) / 1e9


_NANOSECONDS = {  # for a pixel, and for a byte of the file (tests/helpers/measuring/decoding_speed.py)
    "JPEG2000": (35, 150),
    "AVIF": (25, 60),
    "HEIF": (20, 90),
    "JXL": (45, 35),
    "BMP RLE": (80, 330),
}
