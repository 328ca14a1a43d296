"""Limits for Pillow and the C libraries under it when they decode untrusted files.

A small file can cost them hours of work, so what costs it is counted before they decode. Their warnings, which go to
Python's filters or directly to the process's stderr, are silenced.
"""

from __future__ import annotations

import contextlib
import functools
import re
import threading
import warnings
from collections.abc import Iterator

_START_OF_SCAN = b"\xff\xda"
_NEXT_MARKER = re.compile(rb"\xff+([\x01-\xcf\xd8-\xfe])")  # after a scan: not a stuffed zero, not a restart
_END_OF_IMAGE = 0xD9
_ALONE = frozenset([0x01, *range(0xD0, 0xD9)])  # markers without a segment
_PNM_HEADER = re.compile(rb"P[1-7Ff](?:(?:\s|#[^\r\n]*+[\r\n]?)++[-0-9.]*+){0,4}+")

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
    while scans < enough and (found := _NEXT_MARKER.search(data, place)):
        marker, place = found[1][0], found.end()
        if marker in _ALONE:
            continue
        if marker == _END_OF_IMAGE:
            break
        scans += marker == _START_OF_SCAN[1]
        place += max(2, int.from_bytes(data[place : place + 2], "big"))
    return scans


def count_parts(data: bytes, enough: int) -> int:
    """Count the parts of a file that Pillow reads one by one before the pixels.

    These are the chunks of a PNG, the segments and fill bytes of a JPEG, the sub-blocks of a GIF, and the bytes of a PNM's
    header. Each costs microseconds and up to 140 bytes, so 100 MB of them cost a minute and gigabytes. Other formats are
    read in C, or cannot have so many parts; for them 0 is returned.

    Parameters
    ----------
    data : bytes
        The file. In a damaged one the parts are counted as far as they can be followed.
    enough : int
        Counting stops at this number.
    """
    for signature, counter in _COUNTERS.items():
        if data.startswith(signature):
            return counter(data, enough)
    return 0


def _count_chunks(data: bytes, enough: int) -> int:
    parts, place = 0, 8
    while parts < enough and place + 8 <= len(data):
        parts += 1
        place += 12 + int.from_bytes(data[place : place + 4], "big")
    return parts


def _count_segments(data: bytes, enough: int) -> int:
    parts, place = 0, 2
    while parts < enough and (found := _NEXT_MARKER.search(data, place)) and found[1] != _START_OF_SCAN[1:]:
        parts += found.end() - found.start() - 1
        place = found.end()
        if found[1][0] not in _ALONE:
            place += max(2, int.from_bytes(data[place : place + 2], "big"))
    return parts


def _count_blocks(data: bytes, enough: int) -> int:
    colours = 3 << (data[10] & 7) + 1 if len(data) > 10 and data[10] & 0x80 else 0
    parts, place = 0, 13 + colours
    while parts < enough and place < len(data) and data[place] != ord(","):  # a comma begins an image
        parts += 1
        if data[place] != ord("!"):  # begins an extension: a label, then sub-blocks until an empty one
            place += 1
            continue
        place += 2
        while parts < enough and place < len(data) and (size := data[place]):
            parts += 1
            place += 1 + size
        place += 1
    return parts


def _count_header(data: bytes, enough: int) -> int:
    found = _PNM_HEADER.match(data)
    return found.end() if found else 0


_COUNTERS = {
    b"\x89PNG\r\n\x1a\n": _count_chunks,
    b"\xff\xd8": _count_segments,
    b"GIF8": _count_blocks,
    b"P": _count_header,
}
