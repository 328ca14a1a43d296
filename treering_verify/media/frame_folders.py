"""List and read a folder of a video's frames: which files are frames, and in what order.

Files are untrusted: their first bytes say what they are, and nothing is decoded here.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from treering_verify.errors import ImageError
from treering_verify.files import printable
from treering_verify.media.formats import is_image
from treering_verify.media.images import CODES, read_bytes, read_head

MAX_LISTED = 10_000
"""Largest number of names in a folder of frames."""


def has_still_signature(head: bytes) -> bool:
    """Return whether a file with these first bytes is a still image, and so can be a frame.

    A GIF counts as animated. A TIFF or JPEG counts as still, because only a decoder could find more pages in it.
    """
    if not is_image(head) or head.startswith(b"GIF8"):
        return False
    animated_png = head.startswith(b"\x89PNG") and b"acTL" in head.partition(b"IDAT")[0]
    animated_webp = head[8:16] == b"WEBPVP8X" and bool(head[20:21] and head[20] & 2)
    return not (animated_png or animated_webp or head[4:12] == b"ftypavis")


def is_still_file(path: str | Path) -> bool:
    """Return whether a regular file is a still image by its first bytes; False if it cannot be read."""
    try:
        return has_still_signature(read_head(path)[0])
    except ImageError:
        return False


@dataclass(frozen=True)
class StoredFrames:
    """The files of a folder of frames.

    Attributes
    ----------
    contents : list of bytes
        The first files.
    sha256 : str
        SHA-256 of the SHA-256 digests of all files, one after another. The digest of all bytes would not do: it does not
        tell where a frame ends, so another video could have the same.
    bytes : int
        Size of all files together.
    """

    contents: list[bytes]
    sha256: str
    bytes: int


def read_frames(folder: str | Path, most: int) -> StoredFrames:
    """Read the still images in a folder, in the order of their names, and return the first `most`; follow no links.

    Raises
    ------
    ImageError
        If a file cannot be read, or the folder cannot be listed or holds too many files.
    """
    contents: list[bytes] = []
    digests, size = hashlib.sha256(), 0
    for file in filter(is_still_file, list_files(folder, links=False)):
        data = read_bytes(file)
        digests.update(hashlib.sha256(data).digest())
        size += len(data)
        if len(contents) < most:
            contents.append(data)
    return StoredFrames(contents, digests.hexdigest(), size)


def list_files(folder: str | Path, links: bool) -> Iterator[Path]:
    """Yield the files in a folder, in the order of their names; with `links`, also those that links lead to.

    Raises
    ------
    ImageError
        With code not_readable or too_many_frames.
    """
    shown = printable(os.fspath(folder))
    try:
        with os.scandir(folder) as entries:
            names = [e.name for e in islice(entries, MAX_LISTED + 1) if e.is_file(follow_symlinks=links)]
    except OSError as error:
        raise ImageError("not_readable", CODES["not_readable"], shown) from error
    if len(names) > MAX_LISTED:
        raise ImageError("too_many_frames", CODES["too_many_frames"], shown)
    for name in sorted(names, key=_natural):
        yield Path(folder) / name


def _natural(name: str) -> list[tuple[int, str]]:
    """Return a sort key that compares numbers as numbers: frame-2 before frame-10."""
    return [(int(part) if part.isdecimal() else -1, part) for part in re.split(r"(\d+)", name)]
