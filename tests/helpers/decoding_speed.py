"""`PYTHONPATH=.:tests python tests/helpers/decoding_speed.py`
prints what formats cost to decode, by 64 megapixels and by bytes.

Each image is 1500 x 1500: a smooth one with noise of 12 grey levels, and noise alone. CPU time, one process.
`treering_verify.media.decoder_limits` holds bounds that follow from it.
"""

from __future__ import annotations

import time

import numpy as np
from PIL import Image

from helpers.images import encoded
from treering_verify.media.formats import register
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


def main() -> None:
    register()
    generator = np.random.default_rng(0)
    small = Image.fromarray(generator.integers(0, 256, (60, 60, 3), dtype=np.uint8))
    smooth = np.asarray(small.resize((SIDE, SIDE), Image.Resampling.BICUBIC)).astype(int)
    grained = np.clip(smooth + generator.integers(0, 12, smooth.shape), 0, 255).astype(np.uint8)
    noise = generator.integers(0, 256, smooth.shape, dtype=np.uint8)
    for what, pixels in (("smooth", grained), ("noise", noise)):
        for kind, options in CASES:
            data = encoded(Image.fromarray(pixels), kind, **options)
            started = time.process_time()
            open_image(data)
            seconds = time.process_time() - started
            of_64, of_byte = seconds / SIDE**2 * 64e6, seconds / len(data) * 1e9
            print(
                f"{what:7} {kind:9} {len(data) / 1e6:6.2f} MB  {of_64:6.1f} s for 64 MP  {of_byte:5.0f} ns/byte  {options}"
            )


if __name__ == "__main__":
    main()
