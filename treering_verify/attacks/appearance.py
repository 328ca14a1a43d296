"""Attacks on the values of pixels: noise, blur, tone and colour. None moves a pixel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image


def noise(image: Image.Image, *, sigma: float = 0.05, seed: int = 0) -> Image.Image:
    """Add white Gaussian noise of this standard deviation (black = 0, white = 1), then clamp and round."""
    import numpy as np

    pixels = np.asarray(image) / 255.0
    return _to_image(pixels + sigma * np.random.default_rng(seed).standard_normal(pixels.shape))


def blur(image: Image.Image, *, radius: float = 2.0, seed: int = 0) -> Image.Image:
    """Blur with a Gaussian of this standard deviation in pixels (Pillow's approximation by three box filters)."""
    from PIL import ImageFilter

    return image.filter(ImageFilter.GaussianBlur(radius))


def brightness(image: Image.Image, *, factor: float = 1.5, seed: int = 0) -> Image.Image:
    """Multiply every value by `factor`; what exceeds white becomes white."""
    from PIL import ImageEnhance

    return ImageEnhance.Brightness(image).enhance(factor)


def contrast(image: Image.Image, *, factor: float = 1.5, seed: int = 0) -> Image.Image:
    """Multiply each value's distance from the image's mean grey by `factor`; 0 leaves nothing but that grey."""
    from PIL import ImageEnhance

    return ImageEnhance.Contrast(image).enhance(factor)


def colour_jitter(image: Image.Image, *, strength: float = 0.4, seed: int = 0) -> Image.Image:
    """Change brightness, contrast, saturation and hue, in this order, by amounts that the seed draws.

    With u uniform in [-1, 1], drawn for each: the three factors are 1 + strength u, and the hue turns by strength u / 4
    of the colour circle.
    """
    import numpy as np
    from PIL import Image, ImageEnhance

    if strength == 0:
        return image.copy()  # the way through hue and back rounds
    light, spread, saturation, hue = strength * np.random.default_rng(seed).uniform(-1.0, 1.0, 4)
    image = ImageEnhance.Brightness(image).enhance(1.0 + light)
    image = ImageEnhance.Contrast(image).enhance(1.0 + spread)
    image = ImageEnhance.Color(image).enhance(1.0 + saturation)
    bands = np.array(image.convert("HSV"))
    bands[..., 0] += np.uint8(round(hue / 4.0 * 256.0) % 256)  # the hue is a circle of 256: wrapping is meant here
    return Image.fromarray(bands, "HSV").convert("RGB")


def quantise(image: Image.Image, *, levels: int = 8, seed: int = 0) -> Image.Image:
    """Round each channel to `levels` equally spaced values from black to white; 256 changes nothing."""
    import numpy as np

    steps = levels - 1
    return _to_image(np.rint(np.asarray(image) / 255.0 * steps) / steps)


def _to_image(pixels: Any) -> Image.Image:
    """Return the image of values with black = 0 and white = 1, clamped and rounded, never wrapped."""
    import numpy as np
    from PIL import Image

    return Image.fromarray(np.rint(pixels.clip(0.0, 1.0) * 255.0).astype(np.uint8))
