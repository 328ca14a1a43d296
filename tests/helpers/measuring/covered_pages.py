"""Images that lie on a page under text or stickers: what the search finds of them.

`PYTHONPATH=.:tests python tests/helpers/measuring/covered_pages.py [--images 2] [PAGE ...]` does with memes, stories and
frames of videos what `other_changes` does with changes.
"""

from __future__ import annotations

from collections.abc import Callable

from PIL import Image, ImageDraw, ImageFilter, ImageFont

from helpers.measuring.other_changes import jpeg, main

BICUBIC = Image.Resampling.BICUBIC
LINES = ("nobody at all:", "a landscape, made", "by a small model", "in a quiet hour", "of the morning")


def _enlarged(image: Image.Image, side: int) -> Image.Image:
    return image.resize((side, side), BICUBIC)


def _outlined(image: Image.Image, text: str, top: float, size: int) -> Image.Image:
    """Write white text with a black outline across an image; `top` in its heights."""
    place, font = (round(0.06 * image.width), round(top * image.height)), ImageFont.load_default(size)
    ImageDraw.Draw(image).text(place, text, "white", font, stroke_width=max(1, size // 8), stroke_fill="black")
    return image


def _meme(image: Image.Image, side: int) -> Image.Image:
    return _outlined(_outlined(_enlarged(image, side), "NOT A PHOTO", 0.02, side // 9), "LOOK AGAIN", 0.84, side // 9)


def _written(page: Image.Image, left: int, top: int, lines: int, size: int) -> Image.Image:
    for i in range(lines):
        place = (left, top + round(1.4 * i * size))
        ImageDraw.Draw(page).text(place, f"{LINES[i % 5]} {LINES[(i + 2) % 5]}", "black", ImageFont.load_default(size))
    return page


def _under_a_caption(image: Image.Image) -> Image.Image:
    page = _written(Image.new("RGB", (400, 490), "white"), 8, 8, 2, 24)
    page.paste(_meme(image, 400), (0, 90))
    return jpeg(page, 80)


def _in_a_screenshot(image: Image.Image) -> Image.Image:
    page = _written(_written(Image.new("RGB", (390, 700), "white"), 20, 60, 3, 15), 20, 470, 9, 15)
    ImageDraw.Draw(page).rectangle((0, 0, 390, 50), "#1e50a0")
    page.paste(_meme(image, 320), (35, 130))
    return jpeg(page, 75)


def _story(image: Image.Image) -> Image.Image:
    page = _enlarged(image, 480).filter(ImageFilter.GaussianBlur(18)).crop((105, 0, 375, 480))
    page.paste(_enlarged(image, 230), (20, 120))
    draw = ImageDraw.Draw(page)
    draw.ellipse((160, 270, 240, 350), "gold", "black", 2)
    draw.arc((180, 290, 220, 335), 20, 160, "black", 3)
    draw.rounded_rectangle((30, 300, 120, 330), 8, "white")
    draw.text((38, 306), "@somebody", "black", ImageFont.load_default(14))
    return jpeg(_outlined(page, "so pretty!!", 0.19, 34), 75)


def _subtitled(image: Image.Image) -> Image.Image:
    page = Image.new("RGB", (854, 480))
    page.paste(_outlined(_enlarged(image, 480), "and this is the valley", 0.86, 40), (187, 0))
    ImageDraw.Draw(page).text((760, 20), "NEWS 24", "white", ImageFont.load_default(20))
    return jpeg(page, 60)


PAGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "meme under a caption, JPEG 80": _under_a_caption,
    "meme in a screenshot, JPEG 75": _in_a_screenshot,
    "story with stickers, JPEG 75": _story,
    "frame of a video with a subtitle, JPEG 60": _subtitled,
}


if __name__ == "__main__":
    main(PAGES, __doc__)
