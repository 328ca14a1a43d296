"""Pages that the search was not made with, an image somewhere on each: what it finds of them.

`PYTHONPATH=.:tests python tests/helpers/measuring/pages.py [--images 1] [PAGE ...]` does with pages of text, charts, codes,
tables, chats, slides, players and patterns what `other_changes` does with changes. None of these pages may become an example
that the search is tuned by.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from skimage import data

from helpers.measuring.other_changes import jpeg, main

WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "with", "wizards", "and", "quartz"]
PHOTOGRAPHS = (data.astronaut, data.coffee, data.chelsea, data.rocket)
Box = tuple[float, float, float, float]
RNG = np.random.default_rng(5)


def _sheet(width: float, height: float, colour: str = "white") -> Image.Image:
    return Image.new("RGB", (round(width * 128), round(height * 128)), colour)


def _text(page: Image.Image, box: Box, size: int, colour: str = "black") -> Image.Image:
    """Fill a box, in sides of the image, with words."""
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(size)
    left, top, right, bottom = (round(side * 128) for side in box)
    for y in range(top, bottom - size, round(1.3 * size)):
        x = float(left)
        while x < right:
            word = f"{WORDS[RNG.integers(len(WORDS))]} "
            if x + draw.textlength(word, font) > right:
                break
            draw.text((x, y), word, colour, font)
            x += draw.textlength(word, font)
    return page


def _put(
    page: Image.Image, image: Image.Image, left: float, top: float, scale: float = 1, radius: int = 0
) -> Image.Image:
    """Put the image on a page, at a place in its own sides, with rounded corners if there is a radius."""
    shown = image.resize((round(image.width * scale),) * 2, Image.Resampling.LANCZOS)
    mask = Image.new("L", shown.size, 255 if not radius else 0)
    if radius:
        ImageDraw.Draw(mask).rounded_rectangle((0, 0, shown.width - 1, shown.height - 1), radius, 255)
    page.paste(shown, (round(left * 128), round(top * 128)), mask)
    return page


def _squares(width: float, height: float, cell: int, colours: int) -> Image.Image:
    """Return squares of random colours; 2 colours are black and white."""
    shape = round(height * 128 / cell), round(width * 128 / cell)
    drawn = RNG.integers(2, size=shape) * 255 if colours == 2 else RNG.integers(256, size=(*shape, 3))
    return Image.fromarray(drawn.astype(np.uint8)).convert("RGB").resize((shape[1] * cell, shape[0] * cell), 0)


def _photograph(number: int, side: int = 128) -> Image.Image:
    return Image.fromarray(PHOTOGRAPHS[number % len(PHOTOGRAPHS)]()).resize((side, side))


def _beside(drawn: Image.Image, image: Image.Image) -> Image.Image:
    page = _sheet(4, 3)
    page.paste(drawn, (40, 40))
    return _put(page, image, 2.6, 1.03)


def _article(image: Image.Image) -> Image.Image:
    page = _text(_sheet(5, 6), (0.2, 0.2, 4.8, 2), 13)
    return jpeg(_put(_text(_text(page, (0.2, 2.2, 1.8, 6), 13), (3, 2.2, 4.8, 6), 13), image, 1.9, 2.26), 90)


def _spreadsheet(image: Image.Image) -> Image.Image:
    page = _sheet(6, 5)
    draw = ImageDraw.Draw(page)
    for y in range(0, page.height, 20):
        draw.line((0, y, page.width, y), "silver")
        for x in range(0, page.width, 72):
            draw.line((x, 0, x, page.height), "silver")
            draw.text((x + 3, y + 3), str(RNG.integers(10**6)), "black", ImageFont.load_default(12))
    return _put(page, image, 2.04, 1.13, 1.6)


def _chat(image: Image.Image) -> Image.Image:
    page = _sheet(3, 6, "#e6f0e6")
    for i in range(4):
        ImageDraw.Draw(page).rounded_rectangle((20, 20 + 70 * i, 256, 75 + 70 * i), 12, "white")
        _text(page, (0.23, 0.22 + 0.55 * i, 1.9, 0.58 + 0.55 * i), 12)
    return jpeg(_put(page, image, 0.84, 2.9, 1.9, 18), 80)


def _collage(image: Image.Image) -> Image.Image:
    page = _sheet(3.0625, 2.03)
    for i in range(5):
        page.paste(_photograph(i), (i % 3 * 132, i // 3 * 132))
    return jpeg(_put(page, image, 2.0625, 1.03), 90)


def _player(image: Image.Image) -> Image.Image:
    page = _put(_sheet(4, 4), image, 0, 0, 4)
    draw = ImageDraw.Draw(page, "RGBA")
    draw.ellipse((216, 216, 296, 296), (0, 0, 0, 150))
    draw.polygon([(242, 234), (242, 278), (280, 256)], "white")
    draw.rectangle((0, 478, 512, 512), (0, 0, 0, 160))
    draw.rectangle((12, 492, 205, 497), "red")
    return jpeg(page, 80)


def _lines(image: Image.Image) -> Image.Image:
    page = _sheet(5, 4)
    for ends in RNG.random((400, 4)) * [640, 512, 640, 512]:
        ImageDraw.Draw(page).line(ends.round().tolist(), "black", int(RNG.integers(1, 3)))
    return _put(page, image, 2.1, 1.16)


def _desktop(image: Image.Image) -> Image.Image:
    page = _photograph(0).resize((1280, 716))
    ImageDraw.Draw(page).rectangle((256, 128, 768, 640), "whitesmoke")
    ImageDraw.Draw(page).rectangle((256, 128, 768, 158), "dimgray")
    return jpeg(_text(_put(page, image, 2.3, 1.47, 2.5), (5, 1.47, 5.9, 5), 12), 85)


def _wall(image: Image.Image) -> Image.Image:
    page = _squares(4, 4, 4, 64).filter(ImageFilter.GaussianBlur(2))
    ImageDraw.Draw(page).rectangle((108, 108, 340, 340), "#3c2814")
    return jpeg(_put(page, image, 1, 1, 1.5), 85)


PAGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "beside a chart of squares": lambda image: _beside(_squares(2, 2, 10, 64), image),
    "beside a code": lambda image: _beside(_squares(2, 2, 8, 2), image),
    "amid small squares": lambda image: _put(_squares(2, 2, 6, 64), image, 0.5, 0.5),
    "on a chessboard": lambda image: _put(
        Image.fromarray((np.indices((512, 640)).sum(0) // 8 % 2 * 255).astype(np.uint8)).convert("RGB"),
        image,
        1.1,
        1.07,
    ),
    "on static": lambda image: _put(_squares(4, 4, 1, 64), image, 1.1, 1.07),
    "among lines": _lines,
    "in an article, JPEG 90": _article,
    "beside code on black, JPEG 90": lambda image: jpeg(
        _put(_text(_sheet(6, 4, "#1e1e1e"), (0.2, 0.2, 3, 4), 12, "#c8dc78"), image, 3.6, 1, 1.3), 90
    ),
    "on a spreadsheet": _spreadsheet,
    "in a chat, JPEG 80": _chat,
    "among photographs, JPEG 90": _collage,
    "on a slide, JPEG 85": lambda image: jpeg(
        _put(_text(_sheet(10, 5.625), (0.5, 1.5, 4, 4), 28), image, 6, 1.3, 3), 85
    ),
    "in a player, JPEG 80": _player,
    "in a browser of 1920 x 1080, JPEG 80": lambda image: jpeg(
        _put(_text(_text(_sheet(15, 8.44), (0.3, 1, 6, 8.3), 18), (9, 1, 14.7, 8.3), 18), image, 6.4, 2.3, 2), 80
    ),
    "in a window on a photograph, JPEG 85": _desktop,
    "in a frame on a wall, JPEG 85": _wall,
}


if __name__ == "__main__":
    main(PAGES, __doc__)
