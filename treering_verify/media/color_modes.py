"""Convert every mode of Pillow to 8-bit sRGB: 16-bit grey, palettes, alpha, colour profiles, orientation."""

from __future__ import annotations

import contextlib
import io
from typing import TYPE_CHECKING

from treering_verify.media.truncated.notes import keep_notes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image


XMP = ("xmp", "XML:com.adobe.xmp")
"""Entries of `info` of a Pillow image that hold XMP."""

_STRIP = 1 << 18  # pixels scaled at a time


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image of any mode to 8-bit sRGB, upright, over white.

    These are steps 1 to 5 of `treering_verify.media.images.open_image`, which documents them and catches the errors.

    Parameters
    ----------
    image : PIL.Image.Image
        In any mode, at the frame to convert.

    Returns
    -------
    PIL.Image.Image
        A new image in mode RGB, without profile, EXIF or transparency; what `truncated.notes` says stays.

    Raises
    ------
    Exception
        Any error of a decoder on damaged pixels.
    """
    from PIL import Image

    image.load()
    colour, alpha = _split_alpha(image)
    colour = _to_srgb(colour, image.info.get("icc_profile"))
    canvas = Image.new("RGB", colour.size, "white")  # a new image has no profile, EXIF or transparency
    canvas.paste(colour, mask=alpha)
    shown = _turn_upright(canvas, image)
    keep_notes(shown, image)
    return shown


def _split_alpha(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Convert any mode to L, RGB or CMYK, and an alpha channel (L) if there is one."""
    from PIL import Image, ImageCms

    mode = image.mode
    if mode in ("I", "F") or mode.startswith("I;16"):
        return _wide_grey(image)
    if mode == "LAB":  # Pillow converts LAB by colour management only
        profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        return _transform(image, *profiles), None
    if mode in ("1", "L", "LA", "La"):
        reduced, with_alpha = "L", "LA"
    else:
        reduced, with_alpha = "RGB", "RGBA"
    if image.has_transparency_data:  # alpha channels, palettes with alpha, and colour keys (tRNS)
        *colours, alpha = image.convert(with_alpha).split()
        return Image.merge(reduced, colours), alpha
    return (image if mode in ("CMYK", reduced) else image.convert(reduced)), None


def _wide_grey(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Scale modes I;16*, I and F to L (step 3 of `open_image`); a colour key becomes alpha."""
    import numpy as np
    from PIL import Image

    # 24 bits of mantissa round 16-bit numbers exactly; I and F may need the wider range.
    dtype = np.float32 if image.mode.startswith("I;16") else np.float64
    values: NDArray[np.floating] = np.asarray(image)
    low, high = dtype(values.min()), dtype(values.max())  # both are NaN if one of the values is
    if not np.isfinite([low, high]).all():
        raise ValueError("pixels are NaN or infinite")
    declared = (1.0, 255.0) if image.mode == "F" else (65535.0,)
    white = next((white for white in declared if low >= 0 and high <= white), None)
    key = image.info.get("transparency")
    grey = np.empty(values.shape, np.uint8)
    alpha = np.empty(values.shape, np.uint8) if isinstance(key, int) else None
    rows = max(1, _STRIP // values.shape[1])
    for start in range(0, len(values), rows):  # in strips: a large image would need gigabytes as floats
        strip: NDArray[np.floating] = values[start : start + rows].astype(dtype)
        levels = strip * (255.0 / white) if white else (strip - low) / (high - low or 1.0) * 255.0
        grey[start : start + rows] = np.rint(levels)
        if alpha is not None:
            alpha[start : start + rows] = np.where(strip == key, 0, 255)
    return Image.fromarray(grey), None if alpha is None else Image.fromarray(alpha)


def _to_srgb(colour: Image.Image, profile_bytes: bytes | None) -> Image.Image:
    """Convert L, RGB or CMYK to RGB, by the ICC profile if there is a usable one."""
    from PIL import ImageCms

    if profile_bytes:
        with contextlib.suppress(Exception):  # profiles are untrusted; `open_image` documents that bad ones are ignored
            profile = ImageCms.ImageCmsProfile(io.BytesIO(profile_bytes))
            channels = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}.get(profile.profile.xcolor_space.strip())
            if (colour.mode, channels) == ("L", "RGB"):
                colour = colour.convert("RGB")
            if colour.mode == channels:
                return _transform(colour, profile, ImageCms.createProfile("sRGB"))
    return colour if colour.mode == "RGB" else colour.convert("RGB")


def _transform(image: Image.Image, source: object, target: object) -> Image.Image:
    from PIL import ImageCms

    transform = ImageCms.buildTransform(
        source,  # type: ignore[arg-type]
        target,  # type: ignore[arg-type]
        image.mode,
        "RGB",
        ImageCms.Intent.PERCEPTUAL,
    )
    return transform.apply(image)


def _turn_upright(canvas: Image.Image, original: Image.Image) -> Image.Image:
    """Apply the original's EXIF orientation (Pillow applies and removes that of a TIFF when it loads the file).

    That of XMP is ignored, as browsers do; Pillow takes it where EXIF has none.
    """
    from PIL import Image

    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    turn = None
    with contextlib.suppress(Exception):  # EXIF is untrusted; `open_image` documents that bad EXIF is ignored
        exif = original.getexif()
        if any(key in original.info for key in XMP):
            exif = Image.Exif()
            exif.load(original.info.get("exif") or b"")
        turn = turns.get(exif.get(0x0112, 1))
    return canvas if turn is None else canvas.transpose(turn)
