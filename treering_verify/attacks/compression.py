"""Attacks by lossy compression, through the real codecs' bytes."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from treering_verify.errors import ImageError, UsageError
from treering_verify.media.images import CODES

if TYPE_CHECKING:
    from PIL import Image

# AVIF runs in one thread, so that its bytes do not depend on the number of cores.
CODECS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "jpeg": ("JPEG", ".jpg", {}),
    "webp": ("WEBP", ".webp", {}),
    "avif": ("AVIF", ".avif", {"max_threads": 1}),
}
"""Pillow's name of the format, file suffix and fixed options of each attack that is a codec."""


def jpeg(image: Image.Image, *, quality: int = 75, seed: int = 0) -> Image.Image:
    """Compress with libjpeg at this quality (1 to 100; 4:2:0 chroma, Pillow's default) and decode."""
    return _recode(image, "jpeg", quality)


def webp(image: Image.Image, *, quality: int = 75, seed: int = 0) -> Image.Image:
    """Compress with lossy WebP at this quality (1 to 100) and decode."""
    return _recode(image, "webp", quality)


def avif(image: Image.Image, *, quality: int = 75, seed: int = 0) -> Image.Image:
    """Compress with AVIF at this quality (1 to 100; 4:2:0 chroma and speed 6, Pillow's defaults) and decode."""
    return _recode(image, "avif", quality)


def encode(image: Image.Image, codec: str, quality: int) -> bytes:
    """Return an image encoded by a codec, as the bytes of a file.

    Parameters
    ----------
    image : PIL.Image.Image
        RGB.
    codec : str
        A name in `CODECS`.
    quality : int
        1 to 100.

    Raises
    ------
    UsageError
        If this build of Pillow lacks the codec.
    ImageError
        not_encodable, if the codec refuses the image (WebP takes at most 16383 pixels a side).
    """
    check_codec(codec)
    format_name, _, options = CODECS[codec]
    buffer = io.BytesIO()
    try:
        image.save(buffer, format=format_name, quality=quality, **options)
    except (OSError, ValueError) as error:
        raise ImageError("not_encodable", f"{CODES['not_encodable']} ({format_name})") from error
    return buffer.getvalue()


def check_codec(name: str) -> None:
    """Raise UsageError if the attack is a codec that this build of Pillow lacks; any other name passes."""
    from PIL import features

    if name in ("webp", "avif") and not features.check(name):
        raise UsageError(
            f"this build of Pillow has no {name.upper()} codec: install Pillow from its wheels "
            "(pip install --force-reinstall pillow), or leave the attack out"
        )


def _recode(image: Image.Image, codec: str, quality: int) -> Image.Image:
    from PIL import Image

    data = encode(image, codec, quality)
    with Image.open(io.BytesIO(data), formats=[CODECS[codec][0]]) as decoded:
        return decoded.convert("RGB")
