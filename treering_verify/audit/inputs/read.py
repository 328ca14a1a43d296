"""Read one input: what it is, what it holds, and its pixels in the model's shape. Runs in the reader processes.

A model's shape is (height, width), or (frames, height, width) where it makes videos.

Only what the magic bytes call an image, or a video, is read whole and decoded. Symbolic links, FIFOs, sockets and devices
are told by `lstat` and never opened. Neither torch nor the model is needed here.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from treering_verify.errors import ImageError
from treering_verify.files import printable
from treering_verify.media.containers import read_member, split_member
from treering_verify.media.formats import decoded_formats, is_image, kind_of, register
from treering_verify.media.frame_folders import read_frames
from treering_verify.media.images import (
    CODES,
    MAX_BYTES,
    fit,
    open_image,
    read_bytes,
    read_head,
)
from treering_verify.media.png_chunks import without_ballast
from treering_verify.media.videos import has_video_signature, open_video

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

SKIPPED = {
    "not_an_image": "its first bytes are of no image format",
    "unread_format": "an image in a format that is not read here",
    "container": "a container of other files",
    "video_file": "a video, and the model makes images",
    "symlink": "a symbolic link; links are not followed: name what it points to",
    "fifo": "a FIFO, which is never opened",
    "socket": "a socket, which is never opened",
    "device": "a device, which is never opened",
    "not_a_video_file": "its first bytes are of no video or image format that is read here (MP4, MOV, MKV, WebM, GIF)",
    "still": "a still image, and the model makes videos; judge it with a model that makes images",
    "folder": "a folder; lists name files, or folders of a video's frames: give others as PATH to have them walked",
}
"""Codes of rows with status "skipped", with their reasons."""

FAILED = {
    "folder_not_readable": "the folder cannot be listed, so files in it may be missing here; check its permissions and disk",
    "reader_crashed": "reading it ended the reader process twice; it is left alone now, and may be hostile",
    "reader_timeout": "reading it took longer than the time limit twice; it is left alone now, and may be hostile",
    "reader_memory": "reading it took more memory than the limit twice; raise the limit, or scale the image down",
    "reader_failed": "reading it failed in an unforeseen way",
    "worker_died": "judging it ended a worker of the cluster twice; it is left alone now, and may be hostile",
    "url_not_readable": "the URL cannot be read; check it, its permissions and the network",
    "url_needs_library": "the library that opens such URLs is not installed: install it (of http and https: pip install "
    "'treering-verify[http]'), and run the same command again with --retry-errors",
    "model_out_of_memory": "the model ran out of memory on this image alone; free memory, or use another device",
    "model_failed": "the model gave no usable numbers on this image",
}
"""Codes of rows with status "error", beside those of `images.CODES`, with their reasons."""


_GONE = (404, 410)  # of HTTP: there is no such file


@dataclass(frozen=True, eq=False)
class Reading:
    """What reading an input gave.

    Attributes
    ----------
    path : str
    status : {"ok", "skipped", "error"}
    code, reason : str
        Why there are no pixels.
    note : str
        What was done to the image to fit the model (`images.fit`).
    sha256, bytes, width, height, mode
        As in `Row`.
    seconds : float
    pixels : (H, W, 3) or (F, H, W, 3) uint8, optional
        sRGB, in the model's shape; None unless the status is "ok".
    """

    path: str
    status: str
    code: str = ""
    reason: str = ""
    note: str = ""
    sha256: str | None = None
    bytes: int | None = None
    width: int | None = None
    height: int | None = None
    mode: str | None = None
    seconds: float = 0.0
    pixels: npt.NDArray[np.uint8] | None = None


def refused(path: str, code: str, detail: str = "", **facts: Any) -> Reading:
    """Make the reading of an input that gives no pixels, for a reason of `SKIPPED`, `FAILED` or `images.CODES`."""
    status = "skipped" if code in SKIPPED else "error"
    reason = SKIPPED.get(code) or FAILED.get(code) or CODES[code]
    return Reading(path, status, code, f"{reason} ({printable(detail)[:200]})" if detail else reason, **facts)


def read_path(path: str, shape: tuple[int, ...]) -> Reading:
    """Read a local path into pixels of a model's shape: a file, or, of videos, a folder of frames."""
    started = time.perf_counter()
    try:
        if within := split_member(path):
            return replace(read_encoded(path, read_member(*within), shape), seconds=time.perf_counter() - started)
        kind = os.lstat(path).st_mode
        if stat.S_ISDIR(kind) and len(shape) == 3:
            return replace(_read_folder(path, shape), seconds=time.perf_counter() - started)
        if code := next((code for test, code in _KINDS if test(kind)), ""):
            return refused(path, code)
        head, size = read_head(path)
        if foreign := _foreign(head, shape, path):
            return refused(path, *foreign, bytes=size)
        reading = read_encoded(path, read_bytes(path), shape)
    except FileNotFoundError:
        return refused(path, "not_found")
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        return refused(path, "not_readable", getattr(error, "strerror", None) or "")
    except ImageError as error:
        return Reading(path, "error", error.code, printable(error.reason))
    return replace(reading, seconds=time.perf_counter() - started)


def read_url(url: str, shape: tuple[int, ...]) -> Reading:
    """Read whatever fsspec opens into pixels of a model's shape."""
    import fsspec

    started = time.perf_counter()
    try:
        with fsspec.open(url, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        cause = error.__cause__
        return refused(url, "url_not_readable", _of(cause)) if _hides(cause) else refused(url, "not_found")
    except MemoryError:
        raise
    except ImportError as error:
        return refused(url, "url_needs_library", str(error))
    except Exception as error:  # each file system has exceptions of its own
        return refused(url, "url_not_readable", _of(error))
    return replace(read_encoded(url, data, shape), seconds=time.perf_counter() - started)


def _hides(cause: BaseException | None) -> bool:
    """Whether what fsspec calls a missing file is another trouble: of HTTP it says so for all errors."""
    status = getattr(cause, "status", None)
    if isinstance(status, int):
        return status not in _GONE
    return isinstance(cause, OSError) and not isinstance(cause, FileNotFoundError)


def _of(error: BaseException | None) -> str:
    return f"{type(error).__name__}: {error}"


def read_encoded(path: str, data: bytes, shape: tuple[int, ...]) -> Reading:
    """Decode a file's bytes into pixels of a model's shape; pure, so that any engine can use it.

    Raises
    ------
    MemoryError
        Whatever else decoders throw is in the result.
    """
    started = time.perf_counter()
    facts: dict[str, Any] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    if foreign := _foreign(data, shape, path):
        return refused(path, *foreign, **facts)
    facts |= _header(data, path)
    moves = facts.pop("moves", True)
    if len(shape) == 3 and not moves:
        return refused(path, "still", **facts)
    return replace(_decoded(path, data, shape, facts), seconds=time.perf_counter() - started)


def _read_folder(path: str, shape: tuple[int, ...]) -> Reading:
    """Read a folder of frames; one without still images is none, and a single one makes no video."""
    stored = read_frames(path, shape[0] + 1)
    if not stored.contents:
        return refused(path, "folder")
    facts = {"sha256": stored.sha256, "bytes": stored.bytes, **_header(stored.contents[0])}
    facts.pop("moves", None)
    if len(stored.contents) == 1 < shape[0]:
        return refused(path, "still", **facts)
    return _decoded(path, stored.contents, shape, facts)


def _decoded(path: str, data: bytes | list[bytes], shape: tuple[int, ...], facts: dict[str, Any]) -> Reading:
    """Decode a file's bytes, or those of each frame."""
    import numpy as np

    try:
        if len(shape) == 3:
            video = open_video(data, shape[0], (shape[1], shape[2]))
            facts = {**facts, "width": video.size[0], "height": video.size[1]}
            pixels, note = np.stack([np.asarray(frame) for frame in video.frames]), video.note
        else:
            assert isinstance(data, bytes)
            image, note = fit(open_image(data), (shape[0], shape[1]))
            pixels = np.array(image)
    except ImageError as error:
        if isinstance(error.__cause__, MemoryError):
            raise error.__cause__ from None
        return Reading(path, "error", error.code, printable(error.reason), **facts)
    return Reading(path, "ok", note=note, pixels=pixels, **facts)


def _foreign(head: bytes, shape: tuple[int, ...], path: str) -> tuple[str, str] | None:
    """Code and detail of a file that begins as nothing that is read here does; None for others, an empty file among them."""
    if not head or (len(shape) == 3 and has_video_signature(head)):
        return None
    if len(shape) == 3:
        return "not_a_video_file", ""
    kind = kind_of(head, path)
    if kind.code == "image":
        return None
    return (kind.code, f"{kind.name}: {kind.advice}") if kind.code else ("not_an_image", "")


def _header(data: bytes, path: str = "") -> dict[str, Any]:
    """Size and mode that an image declares, and whether it moves, as far as its header can be read."""
    if not is_image(data, path):
        return {}
    import warnings

    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            register()
            with Image.open(io.BytesIO(without_ballast(data)), formats=decoded_formats()) as image:
                facts = {"width": image.width, "height": image.height, "mode": image.mode}
                return facts | {"moves": getattr(image, "is_animated", False)}
    except MemoryError:
        raise
    except Exception:  # decoders throw almost anything; `open_image` meets it again and says what it is
        return {}


_KINDS = (
    (stat.S_ISLNK, "symlink"),
    (stat.S_ISFIFO, "fifo"),
    (stat.S_ISSOCK, "socket"),
    (stat.S_ISCHR, "device"),
    (stat.S_ISBLK, "device"),
    (stat.S_ISDIR, "folder"),
)
