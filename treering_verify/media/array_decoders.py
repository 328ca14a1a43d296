"""Decode in NumPy what Pillow decodes in Python, value by value: PNM of other depths or in ASCII, and DDS with bit masks.

Pillow takes half a microsecond for each value of these, so an honest image of 16 bits a channel would take half a minute.
The pixels are the same. TIFF files that Pillow reads wrongly, and images that were cut short (`truncated`), are decoded here
too.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from treering_verify.errors import ImageError
from treering_verify.media.color_modes import XMP
from treering_verify.media.decoder_limits import MAX_PIXELS
from treering_verify.media.headers.tiff_directory import MOST_THUMBNAILS, REDUCED, SUBFILE
from treering_verify.media.truncated.notes import MOST_MISSING, Share
from treering_verify.media.truncated.rows import decoded_so_far

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

_STRIP = 1 << 20  # values converted at a time
_BITS, _PLANAR, _SUB_DIRECTORIES = 258, 284, 330  # tags of a TIFF
_SEPARATE = 2
_COMMENT = re.compile(rb"#[^\r\n]*")
_SPACE = b" \t\n\v\f\r"
_SPACES = bytes.maketrans(_SPACE, b" " * len(_SPACE))
_DIGITS = re.compile(rb"[0-9]*")
_NONE = np.empty(0, np.int64)


def decoded_quickly(image: Image.Image, data: bytes) -> Image.Image | None:
    """Return the decoded image if it is decoded here; None for what Pillow decodes in C.

    Parameters
    ----------
    image : PIL.Image.Image
        Opened by Pillow, and not loaded yet.
    data : bytes
        The file that it was opened from.

    Raises
    ------
    ValueError, OSError
        If pixels are missing, or are none.
    ImageError
        If a TIFF shows thumbnails only.
    """
    if image.format == "TIFF" and data:
        for key in XMP:  # Pillow would take the orientation from it, which browsers do not
            image.info.pop(key, None)
        image = _mended_tiff(image)
    tiles = getattr(image, "tile", None)
    if not tiles or tiles[0][0] not in _DECODERS:
        return decoded_so_far(image, data)
    name, _, offset, arguments = tiles[0]
    return _DECODERS[name](image, data, offset, arguments)


def _mended_tiff(image: Any) -> Image.Image:
    """Return an opened TIFF at the page that is no thumbnail, with planes of 16 bits as what they are.

    Pillow takes the bytes of planes of 16 bits for pixels of 8, and shows other pixels than there are.

    Parameters
    ----------
    image : PIL.TiffImagePlugin.TiffImageFile
        Not loaded yet.

    Raises
    ------
    ImageError
        With code unread_format if only thumbnails are pages, as in the raw files of cameras; too_many_pixels.
    """
    tags = image.tag_v2
    if tags.get(SUBFILE, 0) & REDUCED and not _seek_full(image):
        if _SUB_DIRECTORIES in tags:
            raise ImageError(
                "unread_format", "this is a raw file of a camera, or a TIFF like it: convert it to PNG or JPEG"
            )
        image.seek(0)
    if image.width * image.height > MAX_PIXELS:
        raise ImageError("too_many_pixels", f"the image has more than {MAX_PIXELS:,} pixels; scale it down")
    tags = image.tag_v2
    bits = tags.get(_BITS, (1,))
    if tags.get(_PLANAR) == _SEPARATE and set(bits) == {16} and len(bits) > 1 and image.tile[0][0] == "raw":
        end = "B" if tags.prefix == b"MM" else "L"
        image.tile = [
            tile._replace(args=(f"{tile.args[0]};16{end}", 2 * tile.args[1], tile.args[2])) for tile in image.tile
        ]
    return image


def _seek_full(image: Any) -> bool:
    """Go to the first page that is no thumbnail; whether there is one."""
    for page in range(1, MOST_THUMBNAILS):
        try:
            image.seek(page)
        except EOFError:
            return False
        if not image.tag_v2.get(SUBFILE, 0) & REDUCED:
            return True
    return False


def _binary_pnm(image: Image.Image, data: bytes, offset: int, arguments: Any) -> Image.Image:
    """Decode P5 and P6 with another maximum than 255; 16-bit numbers are big-endian."""
    maximum = arguments[1]
    count = _count(image)
    kind = np.dtype(np.uint8 if maximum < 256 else ">u2")
    there: NDArray[np.integer[Any]] = np.frombuffer(
        data, kind, min(count, max(0, len(data) - offset) // kind.itemsize), offset
    )
    return _scaled(image, there, maximum)


def _plain_pnm(image: Image.Image, data: bytes, offset: int, arguments: Any) -> Image.Image:
    """Decode P1, P2 and P3, numbers in ASCII."""
    from PIL import Image

    count = _count(image)
    if image.mode == "1":
        digits = np.frombuffer(_without_comments(data[offset:]).translate(None, _SPACE), np.uint8, -1)[:count]
        if not ((digits == ord("0")) | (digits == ord("1"))).all():
            raise ValueError("pixels that are no bits")
        completed, share = _completed(image, digits)
        white = np.where(completed == ord("0"), np.uint8(255), np.uint8(0))
        bits = Image.fromarray(white.reshape(image.height, image.width)).convert("1", dither=Image.Dither.NONE)
        return _like(image, bits, share)
    return _scaled(image, _numbers(data, offset, count, arguments[1]), arguments[1])


def _completed(image: Image.Image, values: NDArray[np.integer[Any]]) -> tuple[NDArray[np.integer[Any]], float]:
    """Return the values of all pixels, zeros where they are missing, and the share of rows that are not there as a whole."""
    count = _count(image)
    if len(values) >= count:
        return values, 0.0
    share = 1 - len(values) * image.height // count / image.height
    if share > MOST_MISSING:
        raise ValueError("pixels are missing")
    return np.concatenate([values, np.zeros(count - len(values), values.dtype)]), share


def _numbers(data: bytes, offset: int, count: int, maximum: int) -> NDArray[np.uint16]:
    """Return the numbers of a text, part by part, so that no list of all of them is made; fewer if the text ends."""
    values = np.empty(count, np.uint16)
    done, place = 0, offset
    while done < count:
        if place >= len(data):
            cut_through = data[-1:].isdigit() and done > 0  # the last number may have had more digits
            return values[: done - cut_through]
        part = data[place : place + _STRIP]
        place += len(part)
        if b"#" in part:  # a comment may begin in this part and end in another
            part += data[place : (place := _end_of_line(data, place))]
            part = _without_comments(part)
        if part[-1:].isdigit():  # a number may begin in this part and end in another
            more = _DIGITS.match(data, place)
            part += more[0] if more else b""
            place = more.end() if more else place
        if part.translate(None, b"0123456789" + _SPACE):
            raise ValueError("a pixel is no number")
        found = np.fromstring(part.translate(_SPACES), np.int64, sep=" ") if part.strip() else _NONE
        found = found[: count - done]
        if len(found) and int(found.max()) > maximum:
            raise ValueError("a pixel is above the maximum")
        values[done : done + len(found)] = found
        done += len(found)
    return values


def _end_of_line(data: bytes, place: int) -> int:
    ends = [end for end in (data.find(b"\n", place), data.find(b"\r", place)) if end >= 0]
    return min(ends, default=len(data))


def _without_comments(text: bytes) -> bytes:
    return _COMMENT.sub(b"", text) if b"#" in text else text


def _scaled(image: Image.Image, values: NDArray[np.integer[Any]], maximum: int) -> Image.Image:
    """Scale numbers to 255, or grey of more than 8 bits to 65535, in mode I."""
    from PIL import Image

    values, share = _completed(image, values)
    wide = image.mode == "I"
    white = 65535 if wide else 255
    levels = np.empty(len(values), np.int32 if wide else np.uint8)
    for start in range(0, len(values), _STRIP):
        part = values[start : start + _STRIP].astype(np.float64) / maximum * white
        levels[start : start + _STRIP] = np.minimum(np.rint(part), white)
    bands = len(image.getbands())
    shape = (image.height, image.width, bands) if bands > 1 else (image.height, image.width)
    return _like(image, Image.fromarray(levels.reshape(shape)), share)


def _masked_dds(image: Image.Image, data: bytes, offset: int, arguments: Any) -> Image.Image:
    """Decode pixels whose channels are runs of bits in a little-endian number."""
    from PIL import Image

    bits, masks = arguments
    size, count = bits // 8, image.width * image.height
    if not 1 <= size <= 4:
        raise ValueError(f"pixels of {bits} bits")
    raw = np.frombuffer(data, np.uint8, -1, image.fp.tell())  # type: ignore[attr-defined]  # Pillow leaves it at the pixels
    if len(raw) < count * size:
        raise ValueError("pixels are missing")
    raw = raw[: count * size].reshape(count, size)
    levels = np.empty((count, len(masks)), np.uint8)
    for start in range(0, count, _STRIP):
        part = raw[start : start + _STRIP].astype(np.uint32)
        numbers = sum((part[:, i] << np.uint32(8 * i) for i in range(1, size)), start=part[:, 0])
        for channel, mask in enumerate(masks):
            shift = (mask & -mask).bit_length() - 1 if mask else 0
            most = mask >> shift
            shifted = (numbers & np.uint32(mask)) >> np.uint32(shift)
            levels[start : start + _STRIP, channel] = shifted / most * 255 if most else 0
    shape = (image.height, image.width, len(masks)) if len(masks) > 1 else (image.height, image.width)
    return _like(image, Image.fromarray(levels.reshape(shape)))


def _count(image: Image.Image) -> int:
    return image.width * image.height * len(image.getbands())


def _like(image: Image.Image, decoded: Image.Image, missing: float = 0.0) -> Image.Image:
    """Return the decoded pixels with what the file says about them, and the share of rows that are missing."""
    decoded.info = dict(image.info)
    if missing:
        decoded.info["cut_short"] = Share(missing)
    return decoded


_DECODERS = {"ppm": _binary_pnm, "ppm_plain": _plain_pnm, "dds_rgb": _masked_dds}
