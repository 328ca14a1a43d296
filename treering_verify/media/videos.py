"""Read and write videos: files outside, (1, 3 F, H, W) inside, as `treering_verify.models.diffusers.video` lays it out.

Outside, a video is a video file, an animated image, a folder of images, or a sequence of Pillow images. Files are
untrusted, as those of images are: they are read once and only if regular, no more frames are decoded than a model takes
and one, each is brought to the model's size before the next is decoded, and whatever a decoder throws arrives as
`ImageError`. Video containers and codecs beside those named here are never opened, for libav knows hundreds, some of which
fetch other files.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from treering_verify.errors import ImageError, UsageError
from treering_verify.files import printable
from treering_verify.media.decoder_limits import quiet_decoders
from treering_verify.media.frame_folders import listed
from treering_verify.media.images import (
    CODES,
    FORMATS,
    MAX_PIXELS,
    MIN_SIDE,
    encode_png,
    fit,
    has_image_signature,
    open_image,
    read_bytes,
    read_head,
    to_tensor,
)

if TYPE_CHECKING:
    import torch
    from PIL import Image

    VideoSource = str | Path | bytes | Image.Image | Sequence[Image.Image | bytes]

CODECS = ("h264", "hevc", "av1", "libdav1d", "vp8", "vp9", "mpeg4", "mjpeg")
"""libav's decoders that untrusted bytes may reach."""

_ATOMS = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")  # how MP4 and QuickTime files begin, after a length
_MATROSKA = b"\x1a\x45\xdf\xa3"
_QUALITY = "12"  # of H.264, constant rate factor: 0 is lossless, 23 x264's own, which costs much of a mark
CLIP_FORMATS = ("mp4", "gif", "png")


@dataclass(frozen=True)
class Clip:
    """A video at a model's length and size.

    Attributes
    ----------
    frames : list of RGB images
    note : str
        What was done to it, for the record, or "".
    size : (width, height)
        Of its first frame, as it was read.
    """

    frames: list[Image.Image]
    note: str
    size: tuple[int, int]


def read_video(source: VideoSource, frames: int, size: tuple[int, int]) -> tuple[torch.Tensor, str]:
    """Read a video as the library's, (1, 3 F, H, W) float32 in [-1, 1], and its note; all as `video_of` says."""
    import torch

    video = video_of(source, frames, size)
    return torch.cat([to_tensor(frame) for frame in video.frames], dim=1), video.note


def video_of(source: VideoSource, frames: int, size: tuple[int, int]) -> Clip:
    """Read a video at a model's length and size.

    Frames are taken from the first on, in the order in which they are shown, whatever the time between them. Each is opened
    as `images.open_image` opens images, and fitted as `images.fit` does. A video that is longer is cut; the last frame of
    one that is shorter stands for the missing ones.

    Parameters
    ----------
    source
        A file (MP4, MOV, MKV, WebM; GIF and what else `images.FORMATS` can animate), a folder of images in the order of
        their names, numbers in them counting as numbers; a file's bytes; a Pillow image; or a sequence of images, as
        Pillow images or as files' bytes.
    frames : int
    size : (H, W)

    Raises
    ------
    ImageError
        With a code of `images.CODES`.
    UsageError
        If it is a video file and PyAV is not installed.
    """
    shown, found = _frames(source)
    parts: list[Image.Image] = []
    own_size, notes, more = (0, 0), [], False
    for picture in islice(found, frames + 1):
        if len(parts) == frames:
            more = True
            break
        own_size = own_size if parts else picture.size
        fitted, note = fit(picture, size)
        parts.append(fitted)
        notes.append(note)
    if not parts:
        raise ImageError("not_a_video", CODES["not_a_video"], shown)
    said = [notes[0]] if notes[0] else []
    if more:
        said.append(f"cut to its first {frames} frames")
    elif len(parts) < frames:
        said.append(f"{len(parts)} of {frames} frames, the last repeated")
    parts += parts[-1:] * (frames - len(parts))
    return Clip(parts, ", ".join(said), own_size)


def has_video_signature(head: bytes) -> bool:
    """Whether a file that begins so may hold moving images: a video, or an image of a kind that some can animate."""
    return has_image_signature(head) or head[4:8] in _ATOMS or head.startswith(_MATROSKA)


def _frames(source: VideoSource) -> tuple[str, Iterator[Image.Image]]:
    """Printable name, and the frames, RGB, each decoded when it is asked for."""
    from PIL import Image

    if isinstance(source, bytes):
        return "", _file_frames(source, "")
    if isinstance(source, Image.Image):
        return "", iter([open_image(source)])
    if not isinstance(source, str | Path):
        return "", (open_image(picture) for picture in source)
    shown = printable(os.fspath(source))
    if os.path.isdir(source):
        return shown, _folder_frames(Path(source))
    return shown, _file_frames(read_bytes(source), shown)


def _folder_frames(folder: Path) -> Iterator[Image.Image]:
    for file in listed(folder, links=True):
        if has_image_signature(read_head(file)[0]):  # not sidecars, nor what a desktop leaves behind
            yield open_image(file)


def _file_frames(data: bytes, shown: str) -> Iterator[Image.Image]:
    if not data:
        raise ImageError("empty", CODES["empty"], shown)
    if has_image_signature(data):
        return _animated_frames(data, shown)
    if data[4:8] in _ATOMS:
        return _video_frames(data, "mov", shown)
    if data.startswith(_MATROSKA):
        return _video_frames(data, "matroska", shown)
    raise ImageError("not_a_video", CODES["not_a_video"], shown)


def _animated_frames(data: bytes, shown: str) -> Iterator[Image.Image]:
    from PIL import Image

    yield _named(shown, lambda: open_image(data))  # refuses what is hostile in the file as a whole
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        position = 0
        while True:
            position += 1
            try:
                with quiet_decoders():
                    image.seek(position)
            except EOFError:
                return
            except MemoryError as error:
                raise ImageError("no_memory", CODES["no_memory"], shown) from error
            except Exception as error:  # as in `open_image`
                raise ImageError("corrupt", f"{CODES['corrupt']} ({type(error).__name__})", shown) from error
            yield _named(shown, lambda: open_image(image))


def _named(shown: str, opened: Callable[[], Image.Image]) -> Image.Image:
    try:
        return opened()
    except ImageError as error:
        raise ImageError(error.code, error.reason, shown) from error


def _video_frames(data: bytes, container: str, shown: str) -> Iterator[Image.Image]:
    av = _require_av("read video files")
    try:
        options = {"codec_whitelist": ",".join(CODECS), "max_pixels": str(MAX_PIXELS)}  # for it, and all its streams
        with av.open(io.BytesIO(data), format=container, options=options) as opened:
            if not opened.streams.video:
                raise ImageError("not_a_video", CODES["not_a_video"], shown)
            stream = opened.streams.video[0]
            context = stream.codec_context
            if context.name not in CODECS:
                raise ImageError("not_a_video", f"{CODES['not_a_video']} (codec {printable(context.name)})", shown)
            context.options = {"max_pixels": str(MAX_PIXELS)}  # also where a frame changes the size
            if context.width * context.height > MAX_PIXELS:
                raise ImageError("too_many_pixels", CODES["too_many_pixels"], shown)
            for frame in opened.decode(stream):
                if frame.width * frame.height > MAX_PIXELS:
                    raise ImageError("too_many_pixels", CODES["too_many_pixels"], shown)
                if min(frame.width, frame.height) < MIN_SIDE:
                    raise ImageError("too_small", CODES["too_small"], shown)
                yield frame.to_image()
    except ImageError:
        raise
    except MemoryError as error:
        raise ImageError("no_memory", CODES["no_memory"], shown) from error
    except Exception as error:  # as in `open_image`
        raise ImageError("corrupt", f"{CODES['corrupt']} ({type(error).__name__})", shown) from error


def encode_video(frames: Sequence[Image.Image], style: str, fps: int) -> bytes:
    """Return a video's file.

    Parameters
    ----------
    frames : sequence of RGB images
        Of one size, at least one.
    style : {"mp4", "gif"}
        H.264 at a low rate factor (12), 4:2:0, so that every player shows it; or a looping GIF, 256 colours a frame.
    fps : int
        Frames a second.

    Raises
    ------
    UsageError
        If PyAV is not installed, has no H.264 encoder, or a side is odd, for mp4.
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
        except ValueError:  # PyAV knows none of that name
            raise UsageError("this PyAV has no H.264 encoder: choose --video-format gif or png") from None
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for frame in frames:
            opened.mux(stream.encode(av.VideoFrame.from_image(frame)))
        opened.mux(stream.encode(None))
    return buffer.getvalue()


def video_files(frames: Sequence[Image.Image], style: str, fps: int) -> Iterator[tuple[str, bytes]]:
    """Yield what a video is written as: (what follows its stem, content), a file for each frame where the style is png."""
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
