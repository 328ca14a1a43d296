"""Read videos to tensors, and write them to files.

Outside, a video is a video file, an animated image, a folder of images, or a sequence of Pillow images. Inside, it is a
(1, 3 F, H, W) tensor, laid out as in `treering_verify.models.diffusers.video`. Files are untrusted. Only regular files are
read, once. At most one frame more than the model takes is decoded, and each is scaled to the model's size before the next.
Every error of a decoder becomes an `ImageError`. Only the containers and codecs named here are opened: libav knows hundreds,
and some of them fetch other files.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from treering_verify.errors import ImageError, UsageError
from treering_verify.files import printable
from treering_verify.media.arrays import read_open_file
from treering_verify.media.conversion import encode_png, fit, to_tensor
from treering_verify.media.decoder_limits import MAX_PIXELS, quiet_decoders
from treering_verify.media.formats import is_image
from treering_verify.media.frame_folders import list_files
from treering_verify.media.images import CODES, MAX_BYTES, MIN_SIDE, open_image, read_bytes, read_head

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from treering_verify.media.images import ImageSource

    VideoSource = ImageSource | Sequence[ImageSource]

CODECS = ("h264", "hevc", "av1", "libdav1d", "vp8", "vp9", "mpeg4", "mjpeg")
"""libav's decoders that are used for untrusted bytes."""

_ATOMS = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")  # first atoms of MP4 and QuickTime, after a length
_MATROSKA = b"\x1a\x45\xdf\xa3"
_QUALITY = "12"  # constant rate factor of H.264: 0 is lossless; 23, the default of x264, destroys much of a mark
_ANIMATED = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM")  # formats whose files may hold frames


@dataclass(frozen=True)
class Video:
    """A video at a model's length and size.

    Attributes
    ----------
    frames : list of RGB images
        As many as the model makes.
    note : str
        What was done to the video, for the record, or "".
    size : (width, height)
        Size of its first frame before it was scaled.
    given : int
        Frames of its own; the last is repeated where the model makes more.
    """

    frames: list[Image.Image]
    note: str
    size: tuple[int, int]
    given: int


def read_video(
    source: VideoSource,
    frames: int,
    size: tuple[int, int],
    decode: Callable[[VideoSource, int, tuple[int, int]], Video] | None = None,
) -> tuple[torch.Tensor, str]:
    """Read a video as a tensor, (1, 3 F, H, W) float32 in [-1, 1], and return it with its note.

    `decode` takes the place of `open_video`, whose parameters and errors these are.
    """
    import torch

    video = (decode or open_video)(source, frames, size)
    return torch.cat([to_tensor(frame) for frame in video.frames], dim=1), video.note


def open_video(
    source: VideoSource,
    frames: int,
    size: tuple[int, int],
    opened: Callable[[ImageSource], Image.Image] | None = None,
) -> Video:
    """Decode a video to a model's length and size.

    Frames are read from the first on, in the order of display, whatever the time between them. Each is decoded as by
    `images.open_image` and scaled as by `conversion.fit`. A longer video is cut. In a shorter one the last frame is
    repeated.

    Parameters
    ----------
    source
        A file (MP4, MOV, MKV, WebM, GIF, and other animated images); a folder of images in the order
        of their names, where numbers count as numbers; a file's bytes; a Pillow image; or a sequence of Pillow images or
        of files' bytes.
    frames : int
        Frames of the model.
    size : (H, W)
        Size of the model's frames.
    opened : callable, optional
        Takes the place of `images.open_image` for images of a folder or sequence.

    Raises
    ------
    ImageError
        With a code of `images.CODES`.
    UsageError
        If the source is a video file and PyAV is not installed.
    """
    shown, found = _frames(source, opened or open_image)
    parts: list[Image.Image] = []
    own_size, notes, more = (0, 0), [], False
    for frame in islice(found, frames + 1):
        if len(parts) == frames:
            more = True
            break
        own_size = own_size if parts else frame.size
        fitted, note = fit(frame, size)
        parts.append(fitted)
        notes.append(note)
    if not parts:
        raise ImageError("not_a_video", CODES["not_a_video"], shown)
    done = [notes[0]] if notes[0] else []
    if more:
        done.append(f"cut to its first {frames} frames")
    elif len(parts) < frames:
        done.append(f"{len(parts)} of {frames} frames, the last repeated")
    given = len(parts)
    parts += parts[-1:] * (frames - given)
    return Video(parts, ", ".join(done), own_size, given)


def has_video_signature(head: bytes) -> bool:
    """Return whether a file with these first bytes can be a video: a video file, or an image that may be animated."""
    return is_image(head) or head[4:8] in _ATOMS or head.startswith(_MATROSKA)


def _frames(source: VideoSource, opened: Callable[[ImageSource], Image.Image]) -> tuple[str, Iterator[Image.Image]]:
    """Return a printable name and an iterator that decodes the RGB frames one by one."""
    from PIL import Image

    if isinstance(source, bytes):
        return "", _file_frames(source, "")
    if isinstance(source, Image.Image):
        return "", iter([opened(source)])
    if hasattr(source, "read"):
        return "", _file_frames(read_open_file(source, MAX_BYTES), "")
    if not isinstance(source, str | Path):
        return "", (opened(image) for image in source)
    shown = printable(os.fspath(source))
    if os.path.isdir(source):
        return shown, _folder_frames(Path(source), opened)
    return shown, _file_frames(read_bytes(source), shown)


def _folder_frames(folder: Path, opened: Callable[[ImageSource], Image.Image]) -> Iterator[Image.Image]:
    for file in list_files(folder, links=True):
        if is_image(read_head(file)[0]):  # skips sidecars and the hidden files of desktops
            yield opened(file)


def _file_frames(data: bytes, shown: str) -> Iterator[Image.Image]:
    if not data:
        raise ImageError("empty", CODES["empty"], shown)
    if is_image(data):
        return _animated_frames(data, shown)
    if data[4:8] in _ATOMS:
        return _video_frames(data, "mov", shown)
    if data.startswith(_MATROSKA):
        return _video_frames(data, "matroska", shown)
    raise ImageError("not_a_video", CODES["not_a_video"], shown)


def _animated_frames(data: bytes, shown: str) -> Iterator[Image.Image]:
    from PIL import Image

    yield _named(shown, lambda: open_image(data))  # refuses a hostile file
    with Image.open(io.BytesIO(data), formats=_ANIMATED) as image:
        position = 0
        while True:
            position += 1
            with _decoding(shown), quiet_decoders():
                try:
                    image.seek(position)
                except EOFError:
                    return
            yield _named(shown, lambda: open_image(image))


@contextmanager
def _decoding(shown: str) -> Iterator[None]:
    """Raise ImageError for whatever a decoder raises, as `open_image` does."""
    try:
        yield
    except ImageError:
        raise
    except MemoryError as error:
        raise ImageError("no_memory", CODES["no_memory"], shown) from error
    except Exception as error:
        raise ImageError("corrupt", f"{CODES['corrupt']} ({type(error).__name__})", shown) from error


def _named(shown: str, opened: Callable[[], Image.Image]) -> Image.Image:
    try:
        return opened()
    except ImageError as error:
        raise ImageError(error.code, error.reason, shown) from error


def _video_frames(data: bytes, container: str, shown: str) -> Iterator[Image.Image]:
    av = _require_av("read video files")
    options = {"codec_whitelist": ",".join(CODECS), "max_pixels": str(MAX_PIXELS)}  # for all streams of the file
    with _decoding(shown), av.open(io.BytesIO(data), format=container, options=options) as opened:
        if not opened.streams.video:
            raise ImageError("not_a_video", CODES["not_a_video"], shown)
        stream = opened.streams.video[0]
        context = stream.codec_context
        if context.name not in CODECS:
            raise ImageError("not_a_video", f"{CODES['not_a_video']} (codec {printable(context.name)})", shown)
        context.options = {"max_pixels": str(MAX_PIXELS)}  # holds for frames of another size too
        if context.width * context.height > MAX_PIXELS:
            raise ImageError("too_many_pixels", CODES["too_many_pixels"], shown)
        for frame in opened.decode(stream):
            if frame.width * frame.height > MAX_PIXELS:
                raise ImageError("too_many_pixels", CODES["too_many_pixels"], shown)
            if min(frame.width, frame.height) < MIN_SIDE:
                raise ImageError("too_small", CODES["too_small"], shown)
            yield frame.to_image()


def encode_video(frames: Sequence[Image.Image], style: str, fps: int) -> bytes:
    """Return the bytes of a video file.

    Parameters
    ----------
    frames : sequence of RGB images
        At least one, all of one size.
    style : {"mp4", "gif"}
        H.264 at a low rate factor (12), 4:2:0, which every player supports; or a looping GIF of 256 colours a frame.
    fps : int
        Frames per second.

    Raises
    ------
    UsageError
        For mp4, if PyAV is not installed, has no H.264 encoder, or a side is odd.
    """
    buffer = io.BytesIO()
    if style == "gif":
        frames[0].save(
            buffer, format="GIF", save_all=True, append_images=list(frames[1:]), duration=round(1000 / fps), loop=0
        )
        return buffer.getvalue()
    av = _require_av("write MP4")
    width, height = frames[0].size
    if width % 2 or height % 2:
        raise UsageError(f"MP4 cannot hold images of {width}x{height}: choose even sides, or --video-format gif or png")
    with av.open(buffer, "w", format="mp4") as opened:
        try:
            stream = opened.add_stream("libx264", rate=fps, options={"crf": _QUALITY})
        except ValueError:  # PyAV has no encoder of that name
            raise UsageError("this PyAV has no H.264 encoder: choose --video-format gif or png") from None
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for frame in frames:
            opened.mux(stream.encode(av.VideoFrame.from_image(frame)))
        opened.mux(stream.encode(None))
    return buffer.getvalue()


def video_files(frames: Sequence[Image.Image], style: str, fps: int) -> Iterator[tuple[str, bytes]]:
    """Yield the files of a video as (suffix of the stem, content): one file, or one for each frame if the style is png."""
    if style == "png":
        for i, frame in enumerate(frames):
            yield f"/frame-{i:04d}.png", encode_png(frame)
    else:
        yield f".{style}", encode_video(frames, style, fps)


def _require_av(purpose: str) -> Any:
    try:
        import av
    except ImportError:
        raise UsageError(f"to {purpose}, PyAV is needed: pip install 'treering-verify[video]'") from None
    return av
