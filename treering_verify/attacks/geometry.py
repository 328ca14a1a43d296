"""Attacks that move pixels. All preserve the image's size; each says what fills the parts that it leaves empty."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image


def crop_scale(image: Image.Image, *, share: float = 0.75, seed: int = 0) -> Image.Image:
    """Keep the central `share` of each side and scale it up to the original size (Lanczos)."""
    return _scaled(image, _window(image, share, 0.5, 0.5))


def random_crop_scale(image: Image.Image, *, share: float = 0.75, seed: int = 0) -> Image.Image:
    """Keep `share` of each side, at a place that the seed draws, and scale it up to the original size (Lanczos)."""
    return _scaled(image, _window(image, share, *_place(seed)))


def centre_crop(image: Image.Image, *, share: float = 0.75, seed: int = 0) -> Image.Image:
    """Keep the central `share` of each side where it is; what was cut off is black, so the size stays.

    A crop that also makes the file smaller is scaled up by whoever verifies it: that is `crop_scale`.
    """
    return _framed(image, _window(image, share, 0.5, 0.5))


def random_crop(image: Image.Image, *, share: float = 0.75, seed: int = 0) -> Image.Image:
    """Keep `share` of each side where it is, at a place that the seed draws; what was cut off is black."""
    return _framed(image, _window(image, share, *_place(seed)))


def rotate(image: Image.Image, *, degrees: float = 5.0, seed: int = 0) -> Image.Image:
    """Rotate counter-clockwise about the centre (bicubic); the corners that open are black."""
    from PIL import Image

    return image.rotate(degrees, Image.Resampling.BICUBIC, expand=False, fillcolor=(0, 0, 0))


def resize(image: Image.Image, *, share: float = 0.5, seed: int = 0) -> Image.Image:
    """Scale both sides down to `share` and back up (antialiased Lanczos both ways)."""
    from PIL import Image

    small = image.resize(_shrunk(image, share), Image.Resampling.LANCZOS)
    return small.resize(image.size, Image.Resampling.LANCZOS)


def flip(image: Image.Image, *, seed: int = 0) -> Image.Image:
    """Mirror left to right."""
    from PIL import Image

    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def _shrunk(image: Image.Image, share: float) -> tuple[int, int]:
    """Return `share` of (width, height) in whole pixels, at least one."""
    return max(1, round(image.width * share)), max(1, round(image.height * share))


def _place(seed: int) -> tuple[float, float]:
    """Draw where a window stands: 0 at the left or the top, 1 at the right or the bottom."""
    import numpy as np

    across, down = np.random.default_rng(seed).random(2)
    return float(across), float(down)


def _window(image: Image.Image, share: float, across: float, down: float) -> tuple[int, int, int, int]:
    """Return (left, top, right, bottom) of `share` of each side. Windows of one place are nested by their share."""
    width, height = _shrunk(image, share)
    left, top = int((image.width - width) * across), int((image.height - height) * down)
    return left, top, left + width, top + height


def _scaled(image: Image.Image, box: tuple[int, int, int, int]) -> Image.Image:
    from PIL import Image

    return image.crop(box).resize(image.size, Image.Resampling.LANCZOS)


def _framed(image: Image.Image, box: tuple[int, int, int, int]) -> Image.Image:
    from PIL import Image

    frame = Image.new("RGB", image.size)
    frame.paste(image.crop(box), box)
    return frame
