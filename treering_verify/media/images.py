"""Read image files and decode them to 8-bit sRGB.

Files are untrusted: sizes are checked before pixels are decoded, only regular files are read, and every error of a decoder
becomes an `ImageError`.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from treering_verify.errors import ImageError, UsageError
from treering_verify.files import open_descriptor, printable
from treering_verify.media.arrays import TAKEN, image_of_array, is_array, is_closed, read_open_file
from treering_verify.media.color_modes import to_rgb
from treering_verify.media.decoder_limits import (
    MAX_PARTS,
    MAX_PIXELS,
    MAX_SCANS,
    MAX_SECONDS,
    excess_of_file,
    excess_of_image,
    quiet_decoders,
)
from treering_verify.media.formats import decoded_formats, kind_of, register
from treering_verify.media.headers.png_chunks import without_ballast
from treering_verify.media.truncated.early_end import ends_too_early
from treering_verify.media.truncated.ends import ends_early
from treering_verify.media.truncated.notes import MOST_MISSING, Share
from treering_verify.media.truncated.padding import image_of_icon, shown_alike
from treering_verify.media.truncated.rows import completed, info_of_rest, missing_share
from treering_verify.media.truncated.tiles import completed_codestream, note_of_bytes, without_missing_pieces

if TYPE_CHECKING:
    import numpy as np
    import torch
    from PIL import Image

    ImageSource = str | Path | bytes | BinaryIO | Image.Image | np.ndarray | torch.Tensor

MAX_BYTES = 100 * 1024**2
"""Largest file read, in bytes."""

MIN_SIDE = 8
"""Smallest side accepted, in pixels: one cell of the usual latent."""

_HEAD_BYTES = 4096  # among which an image says that it moves

_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+:/|data:", re.IGNORECASE)  # a Path has one slash of two

CODES = {
    "not_found": "there is no such file; check the path",
    "not_readable": "the file cannot be read; check its permissions and its disk",
    "not_a_file": "this is not a regular file; give the path of an image file",
    "empty": "the file has no bytes; copy or download it again",
    "too_large_file": f"the file is larger than {MAX_BYTES // 1024**2} MiB; save it smaller",
    "too_many_pixels": f"the image has more than {MAX_PIXELS:,} pixels; scale it down",
    "too_many_parts": f"the file is cut into more than {MAX_PARTS:,} parts; save it anew",
    "too_slow": f"decoding it would take more than {MAX_SECONDS:.0f} seconds; convert it to PNG or JPEG, or scale it down",
    "too_many_scans": f"the JPEG draws its image in more than {MAX_SCANS} scans; save it anew",
    "not_an_image": "this is no image: its first bytes are of no image format",
    "unread_format": "this is an image in a format that is not read here; convert it to PNG or JPEG",
    "container": "this is a container of other files; unpack it",
    "video_file": "this is a video; judge it with a model that makes videos, or give its frames",
    "corrupt": "the image is damaged or cut short; copy or download it again",
    "cut_short": "the file was cut short, and too little of the image can be read; copy or download it again",
    "archive_damaged": "the archive is damaged or cut short, or needs a password; unpack it",
    "archive_cut_short": "the archive was cut short: its whole members are judged, no others; copy or download it again",
    "archive_too_large": "the archive has more than a million members; unpack it",
    "reader_crashed": "reading it ended the reader process; it is left alone now, and may be hostile",
    "reader_timeout": "reading it took longer than the time limit; it is left alone now, and may be hostile",
    "reader_memory": "reading it took more memory than the limit; scale the image down, or raise the limit of an audit",
    "no_memory": "the image needs more memory than is left; allow more, or scale it down",
    "too_small": f"a side is shorter than {MIN_SIDE} pixels; too little is left to judge",
    "not_a_video": "this is not a video that is read here (MP4, MOV, MKV, WebM, GIF, a folder of images); convert it to MP4",
    "too_many_frames": "the folder has more files than a video can have frames; give it a folder of its own",
    "not_encodable": "the codec cannot store an image of this size; scale it down",
}
"""Every `ImageError.code`, with its meaning and what to do next."""


def read_bytes(path: str | Path) -> bytes:
    """Read all of a regular file once, so that hash and pixels come from the same bytes.

    It never blocks on a FIFO and never reads a device: the file is opened without waiting and examined by its descriptor.

    Returns
    -------
    bytes
        Between 1 and `MAX_BYTES` bytes.

    Raises
    ------
    ImageError
        With code not_found, not_readable, not_a_file, empty or too_large_file.
    """
    with _opened(path) as (file, size, name):
        if size > MAX_BYTES:
            raise _refusal("too_large_file", name)
        data = file.read(MAX_BYTES + 1)  # the file may be growing
    _check_bytes(data, name)
    return data


def read_head(path: str | Path) -> tuple[bytes, int]:
    """Return the first bytes of a regular file, enough to tell its kind, and the file's size.

    The file is opened as by `read_bytes`, and the same errors are raised, except for its size.
    """
    with _opened(path) as (file, size, _):
        return file.read(_HEAD_BYTES), size


@contextlib.contextmanager
def _opened(path: str | Path) -> Iterator[tuple[BinaryIO, int, str]]:
    """Open a regular file and yield it, its size and its printable name; errors become `ImageError`."""
    name = printable(os.fspath(path))
    try:
        descriptor = open_descriptor(path)
    except OSError as error:
        if error.errno == errno.ENOENT and _ADDRESS.match(name):
            raise ImageError("not_found", "this is a URL, and no path: download it first", name) from error
        codes = {errno.ENOENT: "not_found", errno.ENOTDIR: "not_found", errno.ENXIO: "not_a_file"}  # ENXIO: a socket
        raise _refusal(codes.get(error.errno or 0, "not_readable"), name) from error
    except ValueError as error:  # a NUL in the path: no file can have that name
        raise _refusal("not_found", name) from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise _refusal("not_a_file", name)
        with open(descriptor, "rb", closefd=False) as file:
            yield file, status.st_size, name
    except OSError as error:
        raise _refusal("not_readable", name) from error
    finally:
        os.close(descriptor)


def open_image(source: ImageSource) -> Image.Image:
    """Decode an image to what a viewer displays: upright, opaque, 8-bit sRGB.

    The steps, in this order:

    1. The first frame of animations and multi-page files (of a Pillow image: the frame it stands at), of a TIFF the first
       page that is no thumbnail. Of a file that was cut short, what is missing is one colour (interlaced: the pixels before
       it), and the result's ``info["cut_short"]`` is its share; if that is more than half, it is an error. Of a JPEG 2000
       it is the share of the data, and what is missing may be less sharp. Of a PNG, text,
       damaged or misplaced ancillary chunks and profiles of more than 1 MiB are ignored, and of a JPEG segments that end
       early, as viewers do.
    2. The EXIF orientation is applied, and that of XMP is not, as browsers do. EXIF that cannot be parsed counts as none.
    3. Values of more than 8 bits are scaled in their order and never clipped. Modes I;16* and I within [0, 65535]: v / 257,
       rounded. Mode F within [0, 1]: v * 255; within [0, 255]: v, both rounded. I and F beyond that declare no range,
       so their own minimum and maximum become 0 and 255; NaN or infinity is corrupt. (Colour with 16 bits per channel
       is reduced by Pillow itself, by the high byte: at most one level lower.)
    4. An embedded ICC profile is converted to sRGB (perceptual intent). A profile that cannot be parsed, or that is
       for other channels than the image has, is ignored, because the pixels can still be tested. LAB is taken as D50;
       CMYK without a profile is converted naively.
    5. Alpha is composited over white, the background of most viewers, browsers and printers. Dropping alpha would test
       colours hidden under transparent pixels, which nobody can see.

    The result carries no other metadata, so opening it again changes nothing.

    Parameters
    ----------
    source
        A path, a file's bytes, an open binary file, a Pillow image in any mode (left as it is), or pixels: a NumPy array
        (H, W, 3) of uint8 or of float in [0, 1], or a PyTorch tensor (3, H, W) likewise, as diffusers returns them. A first
        axis of length 1 is dropped.

    Returns
    -------
    PIL.Image.Image
        A new image, mode RGB.

    Raises
    ------
    UsageError
        If `source` is none of these.
    ImageError
        With a code of `CODES`. Sizes are refused from the header, before pixels are decoded.
    """
    from PIL import Image, UnidentifiedImageError

    name, data = "", b""
    if is_array(source):
        source = image_of_array(source)
    elif hasattr(source, "read"):
        source = read_open_file(source, MAX_BYTES)
    elif isinstance(source, bytearray | memoryview):
        source = bytes(source)
    elif is_closed(source):
        raise UsageError("the Pillow image is closed: open it again, or give its path")
    if isinstance(source, bytes):
        data = source
        _check_bytes(data, name)
    elif isinstance(source, (str, os.PathLike)):
        name, data = printable(os.fspath(source)), read_bytes(source)
    elif not isinstance(source, Image.Image):
        raise UsageError(f"an image is {TAKEN}: a {type(source).__name__} is none of these")
    with quiet_decoders():
        try:
            if code := excess_of_file(data):
                raise _refusal(code, name)
            image = source if isinstance(source, Image.Image) else _identified(data)
            if code := excess_of_image(image, data):
                raise _refusal(code, name)
            if min(image.size) < MIN_SIDE:
                raise _refusal("too_small", name)
            return _decoded(image, data, name)
        except ImageError:
            raise
        except Image.DecompressionBombError as error:  # Pillow's own limit was lower, or reached first
            raise _refusal("too_many_pixels", name) from error
        except UnidentifiedImageError as error:
            if (refusal := _unidentified(data, name)).code == "corrupt" and ends_early(data, error):
                return _rest(data, name, error)
            raise refusal from error
        except MemoryError as error:
            raise _refusal("no_memory", name) from error
        except Exception as error:  # decoders throw almost anything at damaged input; none of it may pass
            if ends_early(data, error):
                return _rest(data, name, error)
            # The kind alone is told: the message may quote the file, and what a file holds may be secret.
            raise ImageError("corrupt", f"{CODES['corrupt']} ({type(error).__name__})", name) from error


def _identified(data: bytes) -> Image.Image:
    """Open an image of `formats` by its header; no pixel is decoded yet."""
    from PIL import Image

    register()
    return Image.open(io.BytesIO(without_ballast(data)), formats=decoded_formats())


def _decoded(image: Image.Image, data: bytes, name: str = "") -> Image.Image:
    """Decode the pixels; of a file that was cut short, those that are there, and `info["cut_short"]` says so."""
    from treering_verify.media.array_decoders import decoded_quickly

    is_jpeg = image.format in ("JPEG", "MPO")
    try:
        shown = to_rgb(decoded_quickly(image, data) or image)
    except (OSError, SyntaxError):
        found = completed(data) if is_jpeg or image.format == "PNG" else None
        if found is None:
            raise
        rest = _identified(found[0])
        shown = to_rgb(rest)
        missing = missing_share(rest) if found[1] is None else found[1]
        if missing > MOST_MISSING:
            raise
        shown.info |= info_of_rest(data, missing)
        return shown
    if is_jpeg and data and ends_too_early(image, data):
        if (missing := missing_share(image)) > MOST_MISSING:
            raise _refusal("cut_short", name)
        shown.info |= info_of_rest(data, missing)
    return shown


def _rest(data: bytes, name: str, cause: Exception) -> Image.Image:
    """Return what is there of a file that was cut short, of formats that `rows` does not complete, or refuse it."""
    try:
        if found := completed_codestream(data):
            image = _checked(found[0])
            image.info |= {"cut_short": Share(found[1]), "file_note": note_of_bytes(found[1])}
            return image
        if data.startswith(b"\0\0\1\0"):
            inside = image_of_icon(data)
            rest = _checked(inside) if inside else None
        elif data[:2] in (b"II", b"MM"):
            rest = without_missing_pieces(data, _checked)
            rest = rest and to_rgb(rest)
        else:
            rest = shown_alike(data, _checked)
    except MemoryError as error:
        raise _refusal("no_memory", name) from error
    except Exception as error:
        raise _refusal("cut_short", name) from error
    if rest is None:
        raise _refusal("cut_short", name) from cause
    return rest


def _checked(data: bytes) -> Image.Image:
    """Decode a file that was completed, within the limits of one that was whole."""
    image = _identified(data)
    if code := excess_of_file(data) or excess_of_image(image, data):
        raise _refusal(code, "")
    if min(image.size) < MIN_SIDE:
        raise _refusal("too_small", "")
    return _decoded(image, data)


def _unidentified(data: bytes, name: str) -> ImageError:
    """Say what a file is that Pillow did not take."""
    kind = kind_of(data, name)
    if kind.code == "image":
        return _refusal("corrupt", name)
    if not kind.code:
        return _refusal("not_an_image", name)
    return ImageError(kind.code, kind.sentence, name)


def _refusal(code: str, name: str) -> ImageError:
    return ImageError(code, CODES[code], name)


def _check_bytes(data: bytes, name: str) -> None:
    if not data:
        raise _refusal("empty", name)
    if len(data) > MAX_BYTES:
        raise _refusal("too_large_file", name)
