"""Complete files whose decoders go on over bytes that mean nothing: WebP, AVIF, HEIC, DDS, PSD.

These decoders want as many bytes as the file says that it has, and turn any bytes into pixels. So a file is completed
several times, with other bytes each time: where all show the same pixels, they are those of the bytes that are there.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from treering_verify.media.headers.declared_sizes import moves
from treering_verify.media.headers.isobmff import boxes
from treering_verify.media.headers.png_chunks import SIGNATURE
from treering_verify.media.headers.riff_chunks import chunks, declared_end
from treering_verify.media.truncated.notes import MOST_MISSING, ONLY_ITS_END, WRONG_LENGTH, FileNote, Share

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

_FILLS = (b"\0", b"\x55", b"\xaa", b"\xff")  # some decoders refuse some of them
MOST_PIXELS = 24_000_000
"""Pixels of an image that is completed here: it is decoded three times."""

_MOST_ADDED = 100 * 1024**2
_MORE = 1 << 16  # bytes
_GREY = 128
_BRANDS = (b"avif", b"avis", b"heic", b"heix", b"heim", b"heis", b"mif1", b"msf1")


def padded(data: bytes) -> Iterator[bytes]:
    """Yield complete files for a file that was cut short; none for other formats.

    Of a WebP, AVIF or HEIC none if more bytes are missing than are there.
    """
    if moves(data):
        yield from [without_cut_chunk(data)] * 2
        return
    begin, missing = _lacking(data)
    if not missing and begin != data:  # all chunks are whole
        yield from [begin] * 2
    elif 0 < missing <= _MOST_ADDED:
        for fill in _FILLS:
            yield begin + fill * missing


def shown_alike(data: bytes, decode: Callable[[bytes], Image.Image]) -> Image.Image | None:
    """Return what is there of a file that was cut short, with its `Share` in `info`; None if too little is.

    Parameters
    ----------
    data : bytes
    decode : function
        Decodes a file's bytes to an RGB image, upright.
    """
    import numpy as np

    image: Image.Image | None = None
    others: list[Image.Image] = []
    for whole in padded(data):
        try:
            shown = decode(whole)
        except Exception:  # decoders throw almost anything at such bytes
            continue
        if shown.width * shown.height > MOST_PIXELS:
            return None
        image, others = (shown, others) if image is None else (image, [*others, shown])
        if len(others) == 2:
            break
    if image is None or not others or {other.size for other in others} != {image.size}:
        return None
    pixels = np.array(image)
    differs = np.any([(pixels != np.asarray(other)).any(axis=2) for other in others], axis=0)
    if not differs.any():
        image.info["file_note"] = FileNote(note_of_length(data) or ONLY_ITS_END)
        return image
    lines = [np.flatnonzero(differs.any(axis=axis)) for axis in (1, 0)]  # rows; columns of an image that was turned
    shares = [float((some[-1] - some[0] + 1) / length) for some, length in zip(lines, differs.shape, strict=True)]
    axis = next((axis for axis, share in enumerate(shares) if share <= MOST_MISSING), None)
    if axis is None:
        return None
    gone = slice(int(lines[axis][0]), int(lines[axis][-1]) + 1)
    pixels[(gone, slice(None))[axis], (slice(None), gone)[axis]] = _GREY
    return _like(pixels, shares[axis])


def _like(pixels: NDArray[np.uint8], share: float) -> Image.Image:
    from PIL import Image

    image = Image.fromarray(pixels)
    image.info["cut_short"] = Share(share)
    return image


def image_of_icon(data: bytes) -> bytes:
    """Return the largest PNG of an icon (ICO), or b"" if its largest image is none."""
    largest: tuple[int, bytes] = (0, b"")
    with contextlib.suppress(struct.error):
        for number in range(struct.unpack_from("<H", data, 4)[0]):
            width, height = data[6 + 16 * number : 8 + 16 * number]
            (place,) = struct.unpack_from("<L", data, 6 + 16 * number + 12)
            found = ((width or 256) * (height or 256), data[place:] if data.startswith(SIGNATURE, place) else b"")
            largest = max(largest, found, key=lambda one: one[0])
    return largest[1]


def without_cut_chunk(data: bytes) -> bytes:
    """Return a WebP that ends with its last whole chunk, whatever length its header says."""
    ends = [chunk.end for chunk in chunks(data) if chunk.end <= len(data)]
    return _resized(data, ends[-1] if ends else len(data))


def note_of_length(data: bytes) -> str:
    """Return what is said of a WebP that ends elsewhere than it says, and has all of its images; "" if one may be cut."""
    if data[:4] != b"RIFF" or not (found := [*chunks(data)]):
        return ""
    if found[-1].end > len(data) or declared_end(data) > len(data):
        return ONLY_ITS_END if found[-1].is_behind_the_image else ""
    return WRONG_LENGTH


def _lacking(data: bytes) -> tuple[bytes, int]:
    """Return a file, and how many bytes it lacks by its own headers; 0 for other formats, and where the headers are cut."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _webp(data)
    if data[4:8] == b"ftyp" and data[8:12] in _BRANDS:
        with contextlib.suppress(struct.error):
            missing = max((end for _, _, end in boxes(data)), default=0) - len(data)
            return data, missing if missing <= len(data) else 0
    with contextlib.suppress(struct.error):
        if data.startswith(b"DDS "):
            height, width = struct.unpack_from("<LL", data, 12)
            return data, height * width * 4 + _MORE
        if data.startswith(b"8BPS"):
            channels, height, width, depth = struct.unpack_from(">HLLH", data, 12)
            return data, channels * height * (
                width * -(-depth // 8) * 2 + 2
            ) + _MORE  # packed rows may take twice as many
    return data, 0


def _webp(data: bytes) -> tuple[bytes, int]:
    """Return a WebP that ends with the chunk that was cut through, and how many bytes are missing at least and fill it.

    That chunk is made longer: bytes that mean nothing can take more of them for the same pixels.
    """
    last = [*chunks(data)][-1:]
    if not last or last[0].end <= len(data):
        return without_cut_chunk(data), 0
    (_, begin, end), missing = last[0], last[0].end - len(data)
    if missing > len(data):
        return data, 0
    more = _MORE + 4 * missing
    longer = data[: begin + 4] + struct.pack("<L", end - begin - 8 + more) + data[begin + 8 :]
    return _resized(longer, end + more), missing + more


def _resized(data: bytes, size: int) -> bytes:
    return data[:4] + struct.pack("<L", min(size - 8, 0xFFFFFFFF)) + data[8:size]
