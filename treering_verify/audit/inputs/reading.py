"""Reading of one input: its kind, its facts, and its pixels in the model's shape. It runs in the reader processes.

A model's shape is (height, width), or (frames, height, width) if it makes videos.

A file is read whole and decoded only if its magic bytes are those of an image or a video. Symbolic links, FIFOs, sockets and
devices are recognised by `lstat` and never opened. Neither torch nor the model is needed here.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import stat
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from treering_verify.audit.inputs import urls
from treering_verify.audit.inputs.http_reader import UrlError
from treering_verify.audit.inputs.urls import Access
from treering_verify.errors import ImageError
from treering_verify.files import printable
from treering_verify.media.animations import distinct_frames
from treering_verify.media.compression import compression_of
from treering_verify.media.containers import read_member, split_member
from treering_verify.media.conversion import fit
from treering_verify.media.decoder_limits import excess_of_file
from treering_verify.media.formats import decoded_formats, is_image, kind_of, register
from treering_verify.media.frame_folders import read_frames
from treering_verify.media.headers.png_chunks import without_ballast
from treering_verify.media.images import CODES, open_image, read_bytes, read_head
from treering_verify.media.videos import has_video_signature, open_video

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL import Image

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
    "reader_failed": "reading it failed in an unforeseen way",
    "worker_died": "judging it ended a worker of the cluster twice; it is left alone now, and may be hostile",
    "url_not_readable": "the URL cannot be read; check it, its permissions and the network",
    "url_needs_library": "the library that opens such URLs is not installed: install it, and run the same command again "
    "with --retry-errors",
    "url_refused": "such a URL is not opened",
    "outside_root": "a list names it, and it lies outside the folder that a list's paths stay in: give --root FOLDER if you "
    "trust the list",
    "model_out_of_memory": "the model ran out of memory on this image alone; free memory, or use another device",
    "model_failed": "the model gave no usable numbers on this image",
}
"""Codes of rows with status "error", beside those of `images.CODES`, with their reasons."""


PAGE_PIXELS = 2_000_000
"""Pixels of a page that a reader hands over, at most: larger images are shrunk to that for the search."""


@dataclass(frozen=True, eq=False)
class Reading:
    """The result of reading an input.

    Attributes
    ----------
    path : str
    status : {"ok", "skipped", "error"}
    code, reason : str
        Why there are no pixels, or "".
    note : str
        How the image was fitted to the model's size (`conversion.fit`), or "".
    sha256, bytes, width, height, mode
        See `Row`.
    seconds : float
    pixels : (H, W, 3) or (F, H, W, 3) uint8, optional
        sRGB values in the model's shape; None unless the status is "ok".
    page : (H, W, 3) uint8, optional
        The image at its own size, or shrunk to at most `PAGE_PIXELS`, where `pixels` are not just that.
    reduced : float
        Sides of the image over those of `page`.
    frames : tuple of int
        Numbers of the frames in `pixels`, (n, H, W, 3) then, where an image is animated and several differ.
    frames_total : int
        Frames of the animation.
    compression : (str, int, float), optional
        How a still image in a lossy format was compressed (`media.compression.Compression`).
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
    page: npt.NDArray[np.uint8] | None = None
    reduced: float = 1.0
    frames: tuple[int, ...] = ()
    frames_total: int = 0
    compression: tuple[str, int, float] | None = None


def refused(path: str, code: str, detail: str = "", **facts: Any) -> Reading:
    """Return the reading of an input without pixels, by the code of its reason in `SKIPPED`, `FAILED` or `images.CODES`."""
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


def read_url(url: str, shape: tuple[int, ...], access: Access | None = None, seconds: float = 30.0) -> Reading:
    """Read a URL into pixels of a model's shape, as far as `access` allows; `seconds` bounds http and https."""
    started = time.perf_counter()
    try:
        data = urls.read(url, access or Access(), seconds)
    except UrlError as error:
        return refused(url, error.code, error.reason)
    return replace(read_encoded(url, data, shape), seconds=time.perf_counter() - started)


def read_encoded(path: str, data: bytes, shape: tuple[int, ...]) -> Reading:
    """Decode a file's bytes into pixels of a model's shape, whatever the bytes are.

    Raises
    ------
    MemoryError
        Any other error of a decoder is in the result.
    """
    started = time.perf_counter()
    facts: dict[str, Any] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    if foreign := _foreign(data, shape, path):
        return refused(path, *foreign, **facts)
    facts |= _header(data, path)
    animated = facts.pop("animated", True)
    if len(shape) == 3 and not animated:
        return refused(path, "still", **facts)
    return replace(_decoded(path, data, shape, facts), seconds=time.perf_counter() - started)


def _read_folder(path: str, shape: tuple[int, ...]) -> Reading:
    """Read a folder of frames; a folder without still images, or with one of several frames, is refused."""
    stored = read_frames(path, shape[0] + 1)
    if not stored.contents:
        return refused(path, "folder")
    facts = {"sha256": stored.sha256, "bytes": stored.bytes, **_header(stored.contents[0])}
    facts.pop("animated", None)
    if len(stored.contents) == 1 < shape[0]:
        return refused(path, "still", **facts)
    return _decoded(path, stored.contents, shape, facts)


def _decoded(path: str, data: bytes | list[bytes], shape: tuple[int, ...], facts: dict[str, Any]) -> Reading:
    """Return the reading with the pixels of a file's bytes, or of the bytes of each frame."""
    import numpy as np

    page, reduced = None, 1.0
    try:
        if len(shape) == 3:
            video = open_video(data, shape[0], (shape[1], shape[2]))
            facts = {**facts, "width": video.size[0], "height": video.size[1]}
            pixels, note = np.stack([np.asarray(frame) for frame in video.frames]), video.note
        else:
            assert isinstance(data, bytes)
            animation = distinct_frames(data)
            if animation and len(animation.frames) > 1:
                fitted = [fit(frame.image, (shape[0], shape[1])) for frame in animation.frames]
                facts = {
                    **facts,
                    "frames": tuple(frame.number for frame in animation.frames),
                    "frames_total": animation.total,
                }
                return Reading(
                    path, "ok", note=fitted[0][1], pixels=np.stack([np.array(image) for image, _ in fitted]), **facts
                )
            opened = animation.frames[0].image if animation else open_image(data)
            image, note = fit(opened, (shape[0], shape[1]))
            pixels = np.array(image)
            if note:
                page, reduced = _page_of(opened)
            facts = {**facts, "compression": compression_of(data)}
    except ImageError as error:
        if isinstance(error.__cause__, MemoryError):
            raise error.__cause__ from None
        return Reading(path, "error", error.code, printable(error.reason), **facts)
    return Reading(path, "ok", note=note, pixels=pixels, page=page, reduced=reduced, **facts)


def _page_of(image: Image.Image) -> tuple[npt.NDArray[np.uint8], float]:
    """Return an image as a page that is searched, and how much its sides were reduced for that."""
    import numpy as np
    from PIL import Image

    reduced = max(1.0, math.sqrt(image.width * image.height / PAGE_PIXELS))
    if reduced > 1:
        size = (max(1, int(image.width / reduced)), max(1, int(image.height / reduced)))
        image = image.resize(size, Image.Resampling.LANCZOS)
    return np.array(image), reduced


def _foreign(head: bytes, shape: tuple[int, ...], path: str) -> tuple[str, str] | None:
    """Return code and detail if the first bytes are of no format that is read here; None otherwise, and if empty."""
    if not head or (len(shape) == 3 and has_video_signature(head)):
        return None
    if len(shape) == 3:
        return "not_a_video_file", ""
    kind = kind_of(head, path)
    if kind.code == "image":
        return None
    return (kind.code, f"{kind.name}: {kind.advice}") if kind.code else ("not_an_image", "")


def _header(data: bytes, path: str = "") -> dict[str, Any]:
    """Return the size and mode that an image declares, and whether it is animated, if its header can be read."""
    if not is_image(data, path) or excess_of_file(data):
        return {}
    import warnings

    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            register()
            with Image.open(io.BytesIO(without_ballast(data)), formats=decoded_formats()) as image:
                facts = {"width": image.width, "height": image.height, "mode": image.mode}
                # The layers of a PSD are no frames, and Pillow would read them all.
                return facts | {"animated": image.format != "PSD" and getattr(image, "is_animated", False)}
    except MemoryError:
        raise
    except Exception:  # decoders raise almost anything; `open_image` meets it again and reports it
        return {}


_KINDS = (
    (stat.S_ISLNK, "symlink"),
    (stat.S_ISFIFO, "fifo"),
    (stat.S_ISSOCK, "socket"),
    (stat.S_ISCHR, "device"),
    (stat.S_ISBLK, "device"),
    (stat.S_ISDIR, "folder"),
)
