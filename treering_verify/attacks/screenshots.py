"""A chain of distortions as by taking a screenshot and posting it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from treering_verify.attacks.compression import jpeg

if TYPE_CHECKING:
    from PIL import Image


def screenshot(
    image: Image.Image,
    *,
    scale: float = 0.8,
    gamma: float = 1.1,
    crop: float = 0.02,
    quality: int = 80,
    rounds: int = 1,
    seed: int = 0,
) -> Image.Image:
    """Scale as a viewer does, change the tone curve, crop, scale to the original size, compress; `rounds` times.

    One round, in this order, with black = 0 and white = 1:

    1. scale both sides by `scale` (bilinear, antialiased: what a viewer does to fit a window),
    2. v -> v^gamma (another display's tone curve; 1 is none),
    3. cut `crop` of each side off every edge,
    4. scale to the original size (bilinear),
    5. JPEG at `quality`.
    """
    import numpy as np
    from PIL import Image

    curve = np.rint(255.0 * (np.arange(256) / 255.0) ** gamma).astype(int).tolist()
    size = image.size
    for _ in range(rounds):
        displayed = image.resize([max(1, round(side * scale)) for side in size], Image.Resampling.BILINEAR)
        displayed = displayed.point(curve * 3)
        across, down = int(displayed.width * crop), int(displayed.height * crop)
        cut = displayed.crop((across, down, displayed.width - across, displayed.height - down))
        image = jpeg(cut.resize(size, Image.Resampling.BILINEAR), quality=quality)
    return image
