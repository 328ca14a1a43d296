"""Read what is to be judged as a model takes it: images, frames of animated images, videos.

Files may come from anyone: `media.isolation.decoding` decodes them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeGuard

from treering_verify.detection.search.page import Page
from treering_verify.errors import UsageError
from treering_verify.media.arrays import is_array, read_open_file
from treering_verify.media.compression import Compression, compression_of
from treering_verify.media.conversion import fit, to_tensor
from treering_verify.media.digests import sha256_of
from treering_verify.media.images import MAX_BYTES, read_bytes
from treering_verify.media.isolation.decoding import decode_frames, decode_video
from treering_verify.media.videos import read_video
from treering_verify.models import LatentModel, makes_videos

if TYPE_CHECKING:
    import torch

    from treering_verify.media.images import ImageSource
    from treering_verify.media.videos import VideoSource

    Source = ImageSource


@dataclass(frozen=True, eq=False)
class Reading:
    """An image or video as a model takes it, (1, 3, H, W), and a note on how it was fitted to the model's size.

    `pages` holds the image at its own size. Of an animated image there are several that differ: `image` is then
    (n, 3, H, W), `frames` are their numbers, and `frames_total` says how many frames the animation has.
    `compression` is that of a still image in a lossy format.
    """

    image: torch.Tensor
    note: str
    pages: tuple[Page | None, ...] = (None,)
    frames: tuple[int, ...] = ()
    frames_total: int = 0
    sha256: str | None = None
    compression: Compression | None = None


def several(sources: Iterable[Source | VideoSource]) -> Iterator[Source | VideoSource]:
    """Return an iterator over sources; UsageError if they are a single one, whose parts would be taken for images."""
    alone = (
        isinstance(sources, str | bytes | bytearray | memoryview | Mapping)
        or hasattr(sources, "read")
        or not hasattr(sources, "__iter__")
    )
    if alone or (is_array(sources) and getattr(sources, "ndim", 0) < 4):
        raise UsageError(
            f"many images are judged one after another: give a list of them, and not a {type(sources).__name__}"
        )
    return iter(sources)


def are_several(source: object, model: LatentModel | None) -> TypeGuard[Sequence[Source]]:
    """Return whether a source is a list, or another sequence, of images; for a model that makes videos it is one video."""
    listed = isinstance(source, Sequence) and not isinstance(source, str | bytes | bytearray | memoryview)
    return listed and (model is None or not makes_videos(model))


def read(source: Source | VideoSource, model: LatentModel) -> Reading:
    """Read an image, or a video where the model makes videos.

    Raises
    ------
    ImageError
        If it cannot be read.
    UsageError
        If it is several images for a model that makes images, or no image at all.
    """
    import torch

    if makes_videos(model):
        video, note = read_video(source, model.frames, model.image_size, decode_video)
        return Reading(video, note, sha256=sha256_of(source))
    if isinstance(source, bytearray | memoryview):
        source = bytes(source)
    if isinstance(source, Sequence) and not isinstance(source, str | bytes):
        raise UsageError(f"a {type(source).__name__} in a list of images is several: give one list of all images")
    if isinstance(source, str | os.PathLike):
        source = read_bytes(os.fsdecode(source))
    elif hasattr(source, "read"):  # once, so that hash and pixels come from the same bytes
        source = read_open_file(source, MAX_BYTES)
    animation = decode_frames(source)
    shown = [frame.image for frame in animation.frames]
    fitted = [fit(image, model.image_size) for image in shown]
    numbers = tuple(frame.number for frame in animation.frames) if len(shown) > 1 else ()
    return Reading(
        torch.cat([to_tensor(image) for image, _ in fitted]),
        fitted[0][1],
        tuple(Page((image,)) for image in shown),
        numbers,
        animation.total,
        sha256_of(source) if isinstance(source, bytes) else None,
        compression_of(source) if isinstance(source, bytes) and not numbers else None,
    )
