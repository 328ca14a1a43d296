"""`PYTHONPATH=.:tests python tests/helpers/measuring/decoding_speed.py [MEGAPIXELS]`
prints what formats cost to decode: by 64 megapixels and by bytes, or of whole images of so many megapixels.

Without MEGAPIXELS each image is 1500 x 1500: a smooth one with noise of 12 grey levels, and noise alone.
`treering_verify.media.decoder_limits` holds bounds that follow from it. With MEGAPIXELS, such as 64, images of more formats
and modes are decoded whole, or refused. CPU time, one process.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image, ImageCms

from helpers.images import encoded
from treering_verify.errors import ImageError
from treering_verify.media.formats import decoded_formats, register
from treering_verify.media.images import open_image

SIDE = 1500
CASES = [
    ("PNG", {}),
    ("JPEG", {"quality": 100, "subsampling": 0}),
    ("WEBP", {"quality": 100, "method": 0}),
    ("WEBP", {"lossless": True, "quality": 20, "method": 1}),
    ("JPEG2000", {"irreversible": False}),
    ("JPEG2000", {"irreversible": True, "quality_mode": "rates", "quality_layers": [20]}),
    ("AVIF", {"quality": 100, "speed": 10}),
    ("JXL", {"lossless": True, "effort": 2}),
    ("JXL", {"quality": 90, "effort": 2}),
    ("TIFF", {"compression": "tiff_lzw"}),
    ("TIFF", {"compression": "lzma"}),
]
# Of whole images: how programs write them, with a mode, and options.
WHOLE: list[tuple[str, str, dict[str, Any]]] = [
    ("JPEG", "RGB", {"quality": 90}),
    ("JPEG", "RGB", {"quality": 95, "progressive": True}),
    ("JPEG", "RGB", {"quality": 90, "turned": 6, "profile": True}),
    ("JPEG", "CMYK", {"quality": 90}),
    ("PNG", "RGB", {"compress_level": 1}),
    ("PNG", "RGBA", {"compress_level": 1}),
    ("PNG", "P", {"compress_level": 1}),
    ("PNG", "I;16", {"compress_level": 1}),
    ("PNG", "1", {"compress_level": 1}),
    ("WEBP", "RGB", {"quality": 90, "method": 0}),
    ("WEBP", "RGBA", {"quality": 90, "method": 0}),
    ("WEBP", "RGB", {"lossless": True, "quality": 0, "method": 0}),
    ("GIF", "P", {}),
    ("BMP", "RGB", {}),
    ("PPM", "L", {}),
    ("TGA", "L", {"compression": "tga_rle"}),
    ("TIFF", "RGB", {"compression": "tiff_lzw"}),
    ("TIFF", "RGB", {"compression": "tiff_adobe_deflate"}),
    ("TIFF", "RGB", {"compression": "zstd"}),
    ("TIFF", "RGB", {"compression": "jpeg"}),
    ("TIFF", "L", {"compression": "lzma"}),
    ("TIFF", "L", {"compression": "packbits"}),
    ("TIFF", "1", {"compression": "group4"}),
    ("TIFF", "CMYK", {"compression": "tiff_adobe_deflate", "profile": False}),
    ("TIFF", "F", {"compression": "tiff_adobe_deflate"}),
    ("JPEG2000", "RGB", {"irreversible": True, "quality_mode": "rates", "quality_layers": [40]}),
    ("AVIF", "RGB", {"quality": 60, "speed": 10}),
    ("HEIF", "RGB", {"quality": 50}),
    ("JXL", "RGB", {"quality": 90, "effort": 1}),
]


def examples(side: int) -> Iterator[tuple[str, np.ndarray]]:
    """Yield a smooth image with noise of 12 grey levels, and noise alone, (side, side, 3)."""
    generator = np.random.default_rng(0)
    small = Image.fromarray(generator.integers(0, 256, (60, 60, 3), dtype=np.uint8))
    smooth = np.asarray(small.resize((side, side), Image.Resampling.BICUBIC))
    grain = generator.integers(0, 12, smooth.shape, dtype=np.uint8)
    yield "smooth", np.minimum(smooth, 255 - grain) + grain
    yield "noise", generator.integers(0, 256, smooth.shape, dtype=np.uint8)


def by_pixel_and_byte() -> None:
    """Print what 64 megapixels and a byte would cost, from images of `SIDE`."""
    for what, pixels in examples(SIDE):
        for kind, options in CASES:
            data = encoded(Image.fromarray(pixels), kind, **options)
            started = time.process_time()
            open_image(data)
            seconds = time.process_time() - started
            of_64, of_byte = seconds / SIDE**2 * 64e6, seconds / len(data) * 1e9
            print(
                f"{what:7} {kind:9} {len(data) / 1e6:6.2f} MB  {of_64:6.1f} s for 64 MP  {of_byte:5.0f} ns/byte  {options}"
            )


def whole(megapixels: float) -> None:
    """Print what whole images cost, or how they are refused."""
    what, pixels = next(examples(math.isqrt(int(megapixels * 1e6))))
    image = Image.fromarray(pixels)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for kind, mode, options in WHOLE:
        if kind not in decoded_formats():
            continue
        settings = {name: value for name, value in options.items() if name not in ("turned", "profile")}
        if options.get("profile"):
            settings["icc_profile"] = profile
        if "turned" in options:
            exif = Image.Exif()
            exif[0x0112] = options["turned"]
            settings["exif"] = exif
        if mode == "I;16":
            changed = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
        else:
            changed = image.convert("L").convert("F") if mode == "F" else image.convert(mode)
        try:
            data = encoded(changed, kind, **settings)
        except (ValueError, OSError, RuntimeError) as error:
            print(f"{what:7} {kind:9} {mode:5} is not written so: {error}", flush=True)
            continue
        started = time.process_time()
        try:
            size = open_image(data).size
            said = f"{size[0]} x {size[1]}"
        except ImageError as error:
            said = error.code
        seconds = time.process_time() - started
        print(
            f"{what:7} {kind:9} {mode:5} {len(data) / 1e6:6.1f} MB  {seconds:5.1f} s  {said:12} {options}", flush=True
        )


if __name__ == "__main__":
    register()
    whole(float(sys.argv[1])) if len(sys.argv) > 1 else by_pixel_and_byte()
