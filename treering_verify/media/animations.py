"""Choose the frames of an animated image that are worth judging: those that differ from each other, at most a few.

A GIF may begin with a title, or fade in from white; the marked image comes later. The choice depends on what the frames show
and on nothing else, so that a test of each, corrected for their number, stays exact.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, NamedTuple

from treering_verify.errors import ImageError
from treering_verify.media.decoder_limits import MAX_PIXELS, excess_of_file, quiet_decoders
from treering_verify.media.images import open_image
from treering_verify.media.png_chunks import without_ballast

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

MOST_FRAMES = 4
"""Frames of one image that are judged."""

_FORMATS = ("GIF", "PNG", "WEBP", "AVIF")
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


def distinct_frames(data: bytes) -> Animation | None:
    """Return the frames of an animated GIF, APNG, WebP or AVIF that differ most; None for a file with one frame.

    The image of an APNG that browsers without animation show, and others never, is no frame.

    Parameters
    ----------
    data : bytes
        A whole file. What cannot be decoded is left to `open_image`, which says what is wrong.
    """
    from PIL import Image

    try:
        if excess_of_file(data):
            return None
        with quiet_decoders(), Image.open(io.BytesIO(without_ballast(data)), formats=_FORMATS) as image:
            first = 1 if getattr(image, "default_image", False) else 0
            count = getattr(image, "n_frames", 1) - first
            if count < 2 and not first:
                return None
            if image.width * image.height > MAX_PIXELS:
                return None
            decodable = max(1, min(count, _MOST_DECODED, _MOST_PIXELS // max(1, image.width * image.height)))
            frames = []
            for position in range(first, first + decodable):
                image.seek(position)
                frames.append(Frame(position - first + 1, open_image(image.copy())))
    except (ImageError, MemoryError):
        return None
    except Exception:  # decoders throw almost anything at damaged input
        return None
    return Animation(_most_different(frames), count)


def _most_different(frames: list[Frame]) -> tuple[Frame, ...]:
    """Choose frames by farthest-point sampling of their thumbnails, from the last; a frame near a chosen one is left out."""
    import numpy as np

    thumbnails = np.stack([_thumbnail(frame.image) for frame in frames])
    chosen = [len(frames) - 1]  # what fades in is complete at the end
    distance = abs(thumbnails - thumbnails[-1]).mean(axis=1)
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
