"""Decode untrusted images and videos: cheap files at once, all others in a process with limits of time and memory.

A file is cheap if Pillow's C code decodes it in a fraction of a second, as its header shows: a still PNG, JPEG, WebP, GIF or
BMP of a usual size. The process starts with the first other file, and stays for the next. A file that crashes it, hangs it
or exceeds its memory is an `ImageError`, and the next file gets a new process.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from treering_verify.errors import ImageError, UsageError
from treering_verify.files import printable
from treering_verify.media.animations import MOST_FRAMES, Animation, Frame
from treering_verify.media.arrays import read_open_file
from treering_verify.media.decoder_limits import MAX_PIXELS, excess_of_file, excess_of_image, quiet_decoders
from treering_verify.media.formats import register
from treering_verify.media.headers.declared_sizes import declared_pixels, moves
from treering_verify.media.headers.png_chunks import MAX_PROFILE, without_ballast
from treering_verify.media.images import CODES, MAX_BYTES, open_image, read_bytes
from treering_verify.media.truncated.notes import FileNote, Share
from treering_verify.media.videos import Video, open_video

if TYPE_CHECKING:
    from PIL import Image

    from treering_verify.media.images import ImageSource
    from treering_verify.media.isolation.child_process import ChildProcess
    from treering_verify.media.videos import VideoSource

SECONDS = 30.0
"""Longest time to decode one file, as in audits by default."""

MEMORY = 3072
"""Address space of the process, in MiB, as in audits by default."""

_BEGIN_SECONDS = 120.0  # to start a process on a slow disk
_CHEAP = ("PNG", "JPEG", "WEBP", "GIF", "BMP")  # JPEG includes MPO
_CHEAP_PIXELS, _CHEAP_BYTES = 16_000_000, 32 * 1024**2
_SIGNATURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF", b"GIF8", b"BM")
_LONGEST_NOTE = 500


def decode_image(source: ImageSource) -> Image.Image:
    """Decode an image as `images.open_image` does, of an animation the first frame; parameters and errors are the same."""
    return _shown(source, "image").frames[0].image


def decode_frames(source: ImageSource) -> Animation:
    """Decode an image, or the frames of an animation that differ most (`animations.distinct_frames`).

    Returns
    -------
    Animation
        With a `total` of 0, and one frame, if the image is not animated.

    Raises
    ------
    UsageError, ImageError
        As `images.open_image`; besides with code reader_timeout, reader_crashed or reader_memory.
    """
    return _shown(source, "frames")


def decode_video(source: VideoSource, frames: int, size: tuple[int, int]) -> Video:
    """Decode a video as `videos.open_video` does; parameters and errors are the same, and those of `decode_frames`."""
    data, name = _content(source)
    if data is None:
        return open_video(source, frames, size, decode_image)
    with _named(name):
        return _decoder.video(data, frames, size)


def is_cheap(data: bytes) -> bool:
    """Return whether decoding a file in this process is safe, because it is quick, or refused at once."""
    from PIL import Image

    if not data or len(data) > MAX_BYTES or excess_of_file(data):
        return True
    if not data.startswith(_SIGNATURES) or len(data) > _CHEAP_BYTES:
        return False
    if declared_pixels(data) > _CHEAP_PIXELS or moves(data):
        return False
    register()
    try:
        with quiet_decoders(), Image.open(io.BytesIO(without_ballast(data)), formats=_CHEAP) as image:
            if excess_of_image(image, data):
                return True
            animated = getattr(image, "default_image", False) or getattr(image, "is_animated", False)
            if (animated and image.format != "MPO") or len(image.info.get("icc_profile") or b"") > MAX_PROFILE:
                return False
            coded = bool(image.tile) and image.tile[0][0] == "bmp_rle"
            return image.width * image.height <= _CHEAP_PIXELS and not coded
    except Exception:  # decoders throw almost anything at damaged input: what came of it is told by the process
        return False


def _shown(source: Any, kind: str) -> Animation:
    data, name = _content(source)
    if data is None or is_cheap(data):
        with _named(name):
            return Animation((Frame(1, open_image(source if data is None else data)),), 0)
    with _named(name):
        return _decoder.frames(data, kind)


def _content(source: Any) -> tuple[bytes | None, str]:
    """Return the bytes of a file, with its printable name; None of a folder, and of what is decoded already."""
    if isinstance(source, bytes | bytearray | memoryview):
        return bytes(source), ""
    if isinstance(source, (str, os.PathLike)):
        if os.path.isdir(source):
            return None, ""
        path = os.fsdecode(source)
        return read_bytes(Path(path)), printable(path)
    if hasattr(source, "read"):
        return read_open_file(source, MAX_BYTES), ""
    return None, ""


@contextlib.contextmanager
def _named(name: str) -> Iterator[None]:
    """Name the file in an error that does not."""
    try:
        yield
    except ImageError as error:
        if error.source or not name:
            raise
        raise ImageError(error.code, error.reason, name) from error


class _Decoder:
    """The decoder process of this process: one file at a time, for all threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._child: ChildProcess | None = None
        self._owner = 0

    def frames(self, data: bytes, kind: str) -> Animation:
        from PIL import Image

        with self._lock, self._asked({"kind": kind}, data) as (child, answer):
            listed, total = answer["frames"], int(answer["total"])
            if not 1 <= len(listed) <= MOST_FRAMES:  # a process that a file took over is not believed
                raise ValueError(f"{len(listed)} frames")
            frames = []
            for number, width, height, missing, note in listed:
                image = Image.frombytes("RGB", (width, height), child.receive_bytes(_size(width, height)))
                if missing is not None:
                    image.info["cut_short"] = Share(min(1.0, max(0.0, float(missing))))
                if note is not None:
                    image.info["file_note"] = FileNote(printable(str(note))[:_LONGEST_NOTE])
                frames.append(Frame(int(number), image))
            return Animation(tuple(frames), total)

    def video(self, data: bytes, frames: int, size: tuple[int, int]) -> Video:
        from PIL import Image

        request = {"kind": "video", "frames": frames, "size": list(size)}
        with self._lock, self._asked(request, data) as (child, answer):
            given, (width, height) = int(answer["given"]), map(int, answer["size"])
            if not 1 <= given <= frames:
                raise ValueError(f"{given} frames")
            bound = _size(size[1], size[0])
            parts = [Image.frombytes("RGB", (size[1], size[0]), child.receive_bytes(bound)) for _ in range(given)]
            note = printable(str(answer["note"]))[:_LONGEST_NOTE]
            return Video(parts + parts[-1:] * (frames - given), note, (width, height), given)

    @contextlib.contextmanager
    def _asked(self, request: dict[str, Any], data: bytes) -> Iterator[tuple[ChildProcess, Any]]:
        """Send a request, and yield the process with its answer; whatever goes wrong until the block is left ends it."""
        child = self._started()
        late = threading.Event()

        def end() -> None:
            late.set()
            child.process.kill()

        timer = threading.Timer(SECONDS, end)
        timer.daemon = True
        timer.start()
        try:
            child.send(request)
            child.send_bytes(data)
            answer = child.receive()
            if "usage" in answer:
                raise UsageError(printable(str(answer["usage"])))
            if "code" not in answer:
                yield child, answer
                return
            if answer["code"] == "reader_memory":
                self.close()
        except UsageError:
            raise
        except (EOFError, OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            self.close()
            code = "reader_timeout" if late.is_set() else "reader_crashed"
            raise ImageError(code, CODES[code]) from error
        except BaseException:  # such as Ctrl-C: an answer that nobody read must not be the next one's
            self.close()
            raise
        finally:
            timer.cancel()
        code = str(answer["code"])
        if code not in CODES:
            raise ImageError("reader_crashed", CODES["reader_crashed"])
        raise ImageError(code, printable(str(answer.get("reason") or CODES[code]))[:_LONGEST_NOTE])

    def _started(self) -> ChildProcess:
        from treering_verify.media.isolation.child_process import ChildProcess

        if self._owner != os.getpid():  # a process that was forked has none yet: the other is its parent's
            self._child, self._owner = None, os.getpid()
        if self._child is not None and self._child.process.poll() is None:
            return self._child
        self.close()
        child = ChildProcess("treering_verify.media.isolation.decoder_process", [SECONDS, MEMORY])
        try:
            if not child.connection.poll(_BEGIN_SECONDS) or child.receive() != "ready":
                raise EOFError
        except (EOFError, OSError) as error:
            child.kill()
            raise UsageError(
                f"the process that decodes images cannot start: it needs {MEMORY} MiB of address space (ulimit -v)"
            ) from error
        self._child = child
        return child

    def close(self) -> None:
        """End the process, if there is one."""
        child, self._child = self._child, None
        if child is not None and self._owner == os.getpid():
            child.kill()


def _size(width: int, height: int) -> int:
    """Return the bytes of an RGB image; ValueError if it is larger than any that is decoded."""
    if not (width > 0 and height > 0 and width * height <= MAX_PIXELS):
        raise ValueError(f"an image of {width} x {height} pixels")
    return 3 * width * height


_decoder = _Decoder()
atexit.register(_decoder.close)
