"""SHA-256 digests of images and videos as they are stored."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from treering_verify.errors import ImageError
from treering_verify.media.frame_folders import read_frames
from treering_verify.media.images import read_bytes


def sha256_of(source: Any) -> str | None:
    """Return the SHA-256 of a file, of bytes, or of a folder of frames, in hexadecimal digits.

    A folder has the SHA-256 of its frames' digests, 32 bytes each, in the order of their names. None if the source is
    no file, or cannot be read.
    """
    if isinstance(source, bytes):
        return hashlib.sha256(source).hexdigest()
    if not isinstance(source, (str, Path)):
        return None
    try:
        if Path(source).is_dir():
            return read_frames(source, 0).sha256
        return hashlib.sha256(read_bytes(source)).hexdigest()
    except (ImageError, OSError, ValueError):
        return None
