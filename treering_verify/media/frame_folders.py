"""Folders of a video's frames: which files in them are frames, and in what order.

Files are untrusted: what they are is told by their first bytes, and nothing is decoded here.
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
from treering_verify.media.images import CODES, has_image_signature, read_bytes, read_head

MAX_LISTED = 10_000
"""Most names in a folder of frames."""


def has_still_signature(head: bytes) -> bool:
    """Whether a file that begins so is one image, and so may be a frame.

    A GIF is taken to move. What a decoder alone could tell, pages of a TIFF or of a JPEG, is taken to stand still.
    """
    if not has_image_signature(head) or head.startswith(b"GIF8"):
        return False
    animated_png = head.startswith(b"\x89PNG") and b"acTL" in head.partition(b"IDAT")[0]
    animated_webp = head[8:16] == b"WEBPVP8X" and bool(head[20:21] and head[20] & 2)
    return not (animated_png or animated_webp or head[4:12] == b"ftypavis")


def is_still_file(path: str | Path) -> bool:
    """Whether a regular file begins as one image does; False where it cannot be read."""
    try:
        return has_still_signature(read_head(path)[0])
    except ImageError:
        return False


@dataclass(frozen=True)
class StoredFrames:
    """A folder of frames.

    Attributes
    ----------
    contents : list of bytes
        Of the first files.
    sha256 : str
        Of the SHA-256 digests of all of them, one after another: the bytes alone would not say where a frame ends, and
        another video could have the same.
    bytes : int
        All of them together.
    """

    contents: list[bytes]
    sha256: str
    bytes: int


def read_frames(folder: str | Path, most: int) -> StoredFrames:
    """Read the still images in a folder, in the order of their names, keeping `most`; no links are followed.

    Raises
    ------
    ImageError
        If one cannot be read, the folder cannot be listed, or holds too much.
    """
    contents: list[bytes] = []
    digests, size = hashlib.sha256(), 0
    for file in filter(is_still_file, listed(folder, links=False)):
        data = read_bytes(file)
        digests.update(hashlib.sha256(data).digest())
        size += len(data)
        if len(contents) < most:
            contents.append(data)
    return StoredFrames(contents, digests.hexdigest(), size)


def listed(folder: str | Path, links: bool) -> Iterator[Path]:
    """Yield the files in a folder, in the order of their names; with `links` those that links lead to as well.

    Raises
    ------
    ImageError
        not_readable or too_many_frames.
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
    """Sort key in which numbers count as numbers: frame-2 before frame-10."""
    return [(int(part) if part.isdecimal() else -1, part) for part in re.split(r"(\d+)", name)]
