"""Choose the frames of an animated image that are worth judging: those that differ from each other, at most a few.

A GIF may begin with a title, or fade in from white; the marked image comes later. The choice depends on what the frames show
and on nothing else, so that a test of each, corrected for their number, stays exact.
"""

from __future__ import annotations

import contextlib
import io
from typing import TYPE_CHECKING, NamedTuple

from treering_verify.errors import ImageError
from treering_verify.media.decoder_limits import MAX_PIXELS, excess_of_file, quiet_decoders
from treering_verify.media.formats import decoded_formats, register
from treering_verify.media.headers.declared_sizes import moves
from treering_verify.media.headers.isobmff import count_images
from treering_verify.media.headers.png_chunks import without_ballast
from treering_verify.media.headers.tiff_directory import MOST_PAGES, count_pages
from treering_verify.media.images import open_image
from treering_verify.media.truncated.ends import ends_early
from treering_verify.media.truncated.notes import CUT_SHORT, FileNote
from treering_verify.media.truncated.padding import note_of_length, padded, without_cut_chunk

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

MOST_FRAMES = 4
"""Frames of one image that are judged."""

_FORMATS = ("GIF", "PNG", "WEBP", "AVIF", "HEIF")
_AVIF = (b"avif", b"mif1", b"avis")
_TIFF = (b"II", b"MM")
_MOST_DECODED = 200  # frames of a file that are looked at, from its beginning, and its last where it can be reached
_MOST_PIXELS = 160_000_000  # of all frames together: five seconds of the slowest format
_CELLS = 16  # side of the thumbnails by which frames are compared
_DIFFERENT = 6.0  # mean difference of thumbnails, in grey levels, from which two frames differ


class Frame(NamedTuple):
    """A frame of an animation: its number as browsers count, from 1, and its image, RGB."""

    number: int
    image: Image.Image


class Animation(NamedTuple):
    """The frames of an animation that differ, in the order of time, and how many frames there are."""

    frames: tuple[Frame, ...]
    total: int


class _Decoded(NamedTuple):
    """Frames as they are decoded, how many the file says that it has, the first one to choose, and whether all are whole.

    The note is what is said of a file whose frames are whole.
    """

    frames: list[Frame]
    total: int
    begin: int
    whole: bool
    note: str = ""


def distinct_frames(data: bytes) -> Animation | None:
    """Return the frames of an animation that differ most; None for a file with one frame.

    Animations are GIF, APNG, WebP and AVIF; the images of a HEIC with several are frames, too. The image of an APNG that
    browsers without animation show, and others never, is no frame. Of a file that was cut short, the whole frames count, and
    say so in `info["file_note"]`. An AVIF with several still images, or a TIFF with several pages, says that one of
    them is read.

    Parameters
    ----------
    data : bytes
        A whole file. What cannot be decoded is left to `open_image`, which says what is wrong.
    """
    try:
        if excess_of_file(data):
            return None
        register()
        with quiet_decoders():
            if data[:2] in _TIFF:
                return _one_of_several(data)
            decoded = _decoded_of_damaged(data) if _must_be_completed(data) else _decoded(data)
            if decoded is None:
                return _one_of_several(data)
    except (ImageError, MemoryError):
        return None
    except Exception:  # decoders throw almost anything at damaged input
        return None
    if not decoded.frames:
        return None
    note = decoded.note
    if not decoded.whole:
        count = len(decoded.frames)
        frames = "its first frame is whole" if count == 1 else f"its first {count} frames are whole"
        note = f"{CUT_SHORT} or damaged: {frames}, and no other can be read"
    if note:
        for frame in decoded.frames:
            frame.image.info["file_note"] = FileNote(note)
    return Animation(_most_different(decoded.frames, decoded.begin), decoded.total)


def _must_be_completed(data: bytes) -> bool:
    return (moves(data) or data[4:8] == b"ftyp") and ends_early(data)


def _decoded(data: bytes, fewest: int = 2) -> _Decoded | None:
    """Decode the frames of a file, as far as they can be; None if it has fewer than asked for, or too large ones."""
    from PIL import Image

    formats = [name for name in _FORMATS if name in decoded_formats()]
    with Image.open(io.BytesIO(without_ballast(data)), formats=formats) as image:
        first = 1 if getattr(image, "default_image", False) else 0
        primary = image.tell() if image.format == "HEIF" else -1  # what fades in is complete at the end
        count, whole = getattr(image, "n_frames", 1) - first, True
        if (count < fewest and not first) or image.width * image.height > MAX_PIXELS:
            return None
        decodable = max(1, min(count, _MOST_DECODED, _MOST_PIXELS // max(1, image.width * image.height)))
        frames: list[Frame] = []
        for position in range(first, first + decodable):
            try:
                image.seek(position)
                frames.append(Frame(position - first + 1, open_image(image.copy())))
            except MemoryError:
                raise
            except Exception:  # decoders throw almost anything at damaged input
                whole = False
                break
    return _Decoded(frames, count, primary if primary < len(frames) else -1, whole)


def _decoded_of_damaged(data: bytes) -> _Decoded | None:
    """Decode the whole frames of a WebP, AVIF or HEIC that was cut short; None if it has one frame."""
    if moves(data):
        if (decoded := _decoded(without_cut_chunk(data), 1)) is None:
            return None
        note = note_of_length(data)
        return decoded._replace(whole=decoded.whole and bool(note), note=note.replace("rows", "frames"))
    copies = []
    for whole in padded(data):
        with contextlib.suppress(OSError, ValueError, SyntaxError, RuntimeError):
            copies.append(_decoded(whole))
        if len(copies) == 2:
            break
    if len(copies) < 2 or copies[0] is None or copies[1] is None:
        return None
    frames = []
    for one, other in zip(copies[0].frames, copies[1].frames, strict=False):
        if one.image.tobytes() != other.image.tobytes():
            break
        frames.append(one)
    return copies[0]._replace(frames=frames, begin=-1, whole=False)


def _one_of_several(data: bytes) -> Animation | None:
    """Return the primary image of an AVIF, or the first page of a TIFF, that has others, with a note; None if it has one."""
    if data[4:8] == b"ftyp" and data[8:12] in _AVIF:
        count, what = count_images(data), "images, and only the one that viewers show was judged"
    elif data[:2] in _TIFF:
        count = count_pages(data)
        more = "or more " if count == MOST_PAGES else ""
        what = f"{more}pages, and only the first was judged: store the others as files of their own"
    else:
        return None
    if count < 2:
        return None
    image = open_image(data)
    if "cut_short" not in image.info:
        image.info["file_note"] = FileNote(f"the file has {count} {what}")
    return Animation((Frame(1, image),), 0)


def _most_different(frames: list[Frame], begin: int) -> tuple[Frame, ...]:
    """Choose frames by farthest-point sampling of their thumbnails, from one on; a frame near a chosen one is left out."""
    import numpy as np

    thumbnails = np.stack([_thumbnail(frame.image) for frame in frames])
    chosen = [begin % len(frames)]
    distance = abs(thumbnails - thumbnails[begin]).mean(axis=1)
    while len(chosen) < MOST_FRAMES:
        farthest = int(distance.argmax())
        if distance[farthest] < _DIFFERENT:
            break
        chosen.append(farthest)
        distance = np.minimum(distance, abs(thumbnails - thumbnails[farthest]).mean(axis=1))
    return tuple(frames[i] for i in sorted(chosen))


def _thumbnail(image: Image.Image) -> NDArray[np.float32]:
    import numpy as np
    from PIL import Image

    return np.asarray(image.resize((_CELLS, _CELLS), Image.Resampling.BOX), np.float32).ravel()
