"""What people do to images before they share them; each gives the page and the box in which it shows the image.

They work on images of any size; lengths scale with the image's side.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

    Box = tuple[int, int, int, int]
    Shared = tuple[Image.Image, Box | None]

_TEXT = "the quick brown fox jumps over the lazy dog "
_GREY = (246, 246, 248)


def _jpeg(image: Image.Image, quality: int) -> Image.Image:
    from PIL import Image

    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def resized(image: Image.Image, width: int, height: int) -> Image.Image:
    """Resize an image, antialiased where it shrinks."""
    from PIL import Image

    kind = Image.Resampling.LANCZOS if width < image.width else Image.Resampling.BICUBIC
    return image.resize((width, height), kind)


def text_page(width: int, height: int, colour: tuple[int, int, int] = _GREY) -> Image.Image:
    """Return a page of text."""
    from PIL import Image, ImageDraw, ImageFont

    page = Image.new("RGB", (width, height), colour)
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(10)
    for top in range(6, height, 13):
        draw.text((8, top), _TEXT * (width // 200 + 1), font=font, fill=(90, 90, 90))
    return page


def _pasted(page: Image.Image, image: Image.Image, left: int, top: int) -> Shared:
    page.paste(image, (left, top))
    box = (max(0, left), max(0, top), min(page.width, left + image.width), min(page.height, top + image.height))
    return page, box


def as_it_is(images: Sequence[Image.Image], i: int) -> Shared:
    """Leave the image alone."""
    return images[i], (0, 0, *images[i].size)


def screenshot(
    images: Sequence[Image.Image], i: int, *, page: tuple[float, float], width: float, quality: int = 0
) -> Shared:
    """Put the image on a page of text; sizes in sides of the image."""
    side = images[i].width
    shown = resized(images[i], round(width * side), round(width * images[i].height))
    sheet = text_page(round(page[0] * side), round(page[1] * side))
    free = sheet.width - shown.width, sheet.height - shown.height
    left, top = (
        (31 + step * i) % max(1, length) if length > 0 else 0 for step, length in zip((13, 5), free, strict=True)
    )
    made, box = _pasted(sheet, shown, left, top)
    return (_jpeg(made, quality) if quality else made), box


def beside_squares(images: Sequence[Image.Image], i: int, *, colours: int) -> Shared:
    """Put the image beside squares of strong colours, as in a chart or a code: 2 colours are black and white."""
    import numpy as np
    from PIL import Image

    side = images[i].width
    rng = np.random.default_rng(i)
    palette = np.array([(0, 0, 0), (255, 255, 255), (178, 24, 43), (33, 102, 172), (253, 219, 199), (209, 229, 240)])
    drawn = Image.fromarray(palette[rng.integers(colours, size=(24, 24))].astype(np.uint8))
    sheet = Image.new("RGB", (3 * side, 2 * side), "white")
    sheet.paste(drawn.resize((3 * side // 2, 3 * side // 2), Image.Resampling.NEAREST), (side // 8, side // 8))
    return _pasted(sheet, images[i], 7 * side // 4 + 5, side // 2 + 3)


def loose_crop(images: Sequence[Image.Image], i: int) -> Shared:
    """Cut the image out of a screenshot, with some of what lies around."""
    side = images[i].width
    page, box = screenshot(images, i, page=(3.1, 2.3), width=1)
    assert box is not None
    margin = (side // 6, side // 8, side // 5, side // 4)
    left, top = max(0, box[0] - margin[0]), max(0, box[1] - margin[1])
    cut = page.crop((left, top, min(page.width, box[2] + margin[2]), min(page.height, box[3] + margin[3])))
    return cut, (box[0] - left, box[1] - top, box[2] - left, box[3] - top)


def collage(images: Sequence[Image.Image], i: int, *, columns: int, rows: int, quality: int = 0) -> Shared:
    """Put several images together; this one is the first but one, or the first."""
    from PIL import Image

    width, height = images[i].size
    sheet, box = Image.new("RGB", (columns * width, rows * height)), None
    own = 1 % (columns * rows)
    for k in range(columns * rows):
        left, top = width * (k % columns), height * (k // columns)
        sheet.paste(images[(i + k - own) % len(images)], (left, top))
        if k == own:
            box = (left, top, left + width, top + height)
    return (_jpeg(sheet, quality) if quality else sheet), box


def outpainted(images: Sequence[Image.Image], i: int) -> Shared:
    """Continue the image by half of its sides, with another image."""
    width, height = images[i].size
    around = resized(images[(i + 1) % len(images)], width * 3 // 2, height * 3 // 2)
    return _pasted(around, images[i], width // 4, height // 4)


def in_article(
    images: Sequence[Image.Image],
    i: int,
    *,
    width: float,
    height: float,
    part: tuple[float, float, float, float] = (0, 0, 1, 1),
    quality: int = 85,
) -> Shared:
    """Cut a part of the image out, stretch it to a size, and put it between paragraphs; all in sides of the image."""
    image = cut(images, i, box=part)[0]
    side = images[i].width
    shown = resized(image, round(width * side), round(height * side))
    page = text_page(shown.width + side // 2, shown.height + 2 * side, (255, 255, 255))
    page.paste("white", (0, side - side // 16, page.width, page.height - side + side // 16))
    made, box = _pasted(page, shown, side // 4, side)
    return (_jpeg(made, quality) if quality else made), box


def squares(images: Sequence[Image.Image], i: int, *, keep: float, side: float, quality: int = 85) -> Shared:
    """Cut the middles out of nine images, resize them, and put them side by side on white; sizes in sides of the image."""
    from PIL import Image

    length, gap, edge = round(side * images[i].width), images[i].width // 25, (1 - keep) / 2
    page, box = Image.new("RGB", (3 * length + 4 * gap,) * 2, "white"), None
    for k in range(9):
        shown = resized(cut(images, (i + k - 4) % len(images), box=(edge, edge, 1 - edge, 1 - edge))[0], length, length)
        page, placed = _pasted(page, shown, gap + k % 3 * (length + gap), gap + k // 3 * (length + gap))
        box = placed if k == 4 else box
    return (_jpeg(page, quality) if quality else page), box


def caption(images: Sequence[Image.Image], i: int) -> Shared:
    """Put a white bar with two lines of text above the image."""
    from PIL import Image, ImageDraw, ImageFont

    width, height = images[i].size
    bar = height // 4
    page = Image.new("RGB", (width, height + bar), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(round(0.4 * bar))
    for line, text in enumerate(("When the model", "draws a landscape")):
        draw.text((3, 1 + line * bar // 2), text, font=font, fill="black")
    return _pasted(page, images[i], 0, bar)


def framed(
    images: Sequence[Image.Image],
    i: int,
    *,
    border: float,
    enlarged: float = 1,
    colour: str = "black",
    quality: int = 85,
) -> Shared:
    """Draw a border around the image, which may be enlarged first; widths in sides of the image."""
    from PIL import Image

    side = images[i].width
    shown = (
        resized(images[i], round(enlarged * side), round(enlarged * images[i].height)) if enlarged != 1 else images[i]
    )
    edge = round(border * side)
    page = Image.new("RGB", (shown.width + 2 * edge, shown.height + 2 * edge), colour)
    made, box = _pasted(page, shown, edge, edge)
    return (_jpeg(made, quality) if quality else made), box


def in_place(images: Sequence[Image.Image], i: int, *, scale: float, left: float, top: float) -> Shared:
    """Shrink or move the image within its own frame, on black."""
    from PIL import Image

    width, height = images[i].size
    shown = images[i] if scale == 1 else resized(images[i], round(scale * width), round(scale * height))
    return _pasted(Image.new("RGB", (width, height)), shown, round(left * width), round(top * height))


def cropped(
    images: Sequence[Image.Image], i: int, *, keep: float, mirrored: bool = False, degrees: float = 0
) -> Shared:
    """Turn or mirror the image, cut out the middle, and resize it to the image's size."""
    from PIL import Image, ImageOps

    image = ImageOps.mirror(images[i]) if mirrored else images[i]
    image = image.rotate(degrees, Image.Resampling.BICUBIC) if degrees % 90 else image.rotate(degrees)
    x, y = round(image.width * (1 - keep) / 2), round(image.height * (1 - keep) / 2)
    cut = resized(image.crop((x, y, image.width - x, image.height - y)), *images[i].size)
    return cut, None if degrees % 90 else (0, 0, *images[i].size)


def turned(images: Sequence[Image.Image], i: int, *, degrees: float, colour: str) -> Shared:
    """Turn the image on a canvas that is large enough."""
    from PIL import Image

    return images[i].rotate(degrees, Image.Resampling.BICUBIC, True, fillcolor=colour), None


def stretched(images: Sequence[Image.Image], i: int, *, width: float, height: float, quality: int = 0) -> Shared:
    """Change the aspect ratio."""
    page = resized(images[i], round(width * images[i].width), round(height * images[i].height))
    return (_jpeg(page, quality) if quality else page), (0, 0, *page.size)


def banner(images: Sequence[Image.Image], i: int) -> Shared:
    """Cut a banner out of the middle, half as high as wide, and enlarge it four times."""
    width, height = images[i].size
    page = resized(images[i].crop((0, height // 4, width, height // 4 + height // 2)), 4 * width, 2 * height)
    return page, (0, 0, *page.size)


def inverted(images: Sequence[Image.Image], i: int) -> Shared:
    """Invert the colours."""
    from PIL import ImageOps

    return ImageOps.invert(images[i]), (0, 0, *images[i].size)


def dithered(images: Sequence[Image.Image], i: int) -> Shared:
    """Draw the image in black and white dots."""
    return images[i].convert("1").convert("RGB"), (0, 0, *images[i].size)


def meme(images: Sequence[Image.Image], i: int, *, lines: int, quality: int = 85) -> Shared:
    """Write outlined white text over the image, below, and above too."""
    from PIL import ImageDraw, ImageFont

    image = images[i].copy()
    size = round(0.11 * image.height)
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(size)
    tops = {"THE LANDSCAPE": image.height - round(1.6 * size), "NOBODY EXPECTS": round(0.3 * size)}
    for text, top in list(tops.items())[:lines]:
        draw.text((3, top), text, font=font, fill="white", stroke_width=max(1, size // 7), stroke_fill="black")
    return (_jpeg(image, quality) if quality else image), (0, 0, *image.size)


def resaved(images: Sequence[Image.Image], i: int, *, scales: Sequence[float], qualities: Sequence[int]) -> Shared:
    """Resize and save as JPEG, once for each scale, in sides of the image; a quality of 0 saves nothing."""
    image = images[i]
    for scale, quality in zip(scales, qualities, strict=True):
        size = round(scale * images[i].width), round(scale * images[i].height)
        image = image if size == image.size else resized(image, *size)
        image = _jpeg(image, quality) if quality else image
    return image, (0, 0, *image.size)


def cut(images: Sequence[Image.Image], i: int, *, box: tuple[float, float, float, float], scale: float = 1) -> Shared:
    """Cut a box out, in sides of the image, and resize what is left; it shows a part of the image and nothing else."""
    width, height = images[i].size
    left, top, right, bottom = box
    part = images[i].crop((round(left * width), round(top * height), round(right * width), round(bottom * height)))
    page = resized(part, round(scale * part.width), round(scale * part.height)) if scale != 1 else part
    return page, (0, 0, *page.size)


def on_blur(images: Sequence[Image.Image], i: int, *, page: tuple[float, float], width: float) -> Shared:
    """Put the image on a blurred, enlarged copy of itself, as stories do; sizes in sides of the image."""
    from PIL import ImageFilter

    side = images[i].width
    size = round(page[0] * side), round(page[1] * side)
    sheet = resized(images[i], max(size), max(size)).filter(ImageFilter.GaussianBlur(max(size) / 16))
    left, top = (max(size) - size[0]) // 2, (max(size) - size[1]) // 2
    sheet = sheet.crop((left, top, left + size[0], top + size[1]))
    shown = resized(images[i], round(width * side), round(width * images[i].height))
    return _pasted(sheet, shown, (size[0] - shown.width) // 2, (size[1] - shown.height) // 2)


def cornered(images: Sequence[Image.Image], i: int, *, radius: float, edge: float = 0.06) -> Shared:
    """Round the corners and put the image on white; at a radius of 1/2 it is a circle."""
    from PIL import Image, ImageDraw

    width, height = images[i].size
    mask = Image.new("L", (4 * width, 4 * height), 0)
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, 4 * width - 1, 4 * height - 1), 4 * radius * width, fill=255)
    left = round(edge * width)
    page = Image.new("RGB", (width + 2 * left, height + 2 * left), "white")
    page.paste(images[i], (left, left), mask.resize(images[i].size))
    return page, (left, left, left + width, left + height)


def looked(images: Sequence[Image.Image], i: int, *, change: Callable[[Image.Image], Image.Image]) -> Shared:
    """Change the colours."""
    return change(images[i]).convert("RGB"), (0, 0, *images[i].size)


def warped(images: Sequence[Image.Image], i: int, *, shear: float = 0, tilt: float = 0) -> Shared:
    """Shear the image, or tilt it in perspective."""
    from PIL import Image

    height = images[i].height
    data = (1, shear, -shear * height / 2, 0, 1, 0, 0, tilt / height)
    return images[i].transform(images[i].size, Image.Transform.PERSPECTIVE, data, Image.Resampling.BICUBIC), None


def inset(images: Sequence[Image.Image], i: int, *, size: float) -> Shared:
    """Put another image over a corner."""
    page = images[i].copy()
    small = resized(images[(i + 1) % len(images)], round(size * page.width), round(size * page.height))
    page.paste(small, (page.width - small.width - 4, 4))
    return page, (0, 0, *page.size)


def stamped(images: Sequence[Image.Image], i: int, *, opacity: float, quality: int = 90) -> Shared:
    """Write half-transparent words all over the image, as stock agencies do."""
    from PIL import Image, ImageDraw, ImageFont

    width, height = images[i].size
    layer = Image.new("RGBA", images[i].size, (255, 255, 255, 0))
    draw, font = ImageDraw.Draw(layer), ImageFont.load_default(round(0.14 * height))
    for top in range(0, height, round(0.3 * height)):
        draw.text((round(0.05 * width), top), "STOCK PHOTO", font=font, fill=(255, 255, 255, round(255 * opacity)))
    page = Image.alpha_composite(images[i].convert("RGBA"), layer.rotate(20)).convert("RGB")
    return _jpeg(page, quality), (0, 0, *page.size)


def contact_sheet(pages: dict[str, Image.Image], side: int = 128, columns: int = 10) -> bytes:
    """Return a PNG file of thumbnails with their names."""
    from textwrap import wrap

    from PIL import Image, ImageDraw, ImageFont

    font, row = ImageFont.load_default(10), side + 40
    sheet = Image.new("RGB", (columns * (side + 8), -(-len(pages) // columns) * row), "white")
    draw = ImageDraw.Draw(sheet)
    for k, (name, page) in enumerate(pages.items()):
        left, top = k % columns * (side + 8) + 4, k // columns * row
        small = page.copy()
        small.thumbnail((side, side))
        sheet.paste(small, (left, top + 36))
        draw.rectangle((left - 1, top + 35, left + small.width, top + 36 + small.height), outline="#bbbbbb")
        draw.text((left, top), "\n".join(wrap(name, 24)[:3]), font=font, fill="black", spacing=1)
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def overlap(found: Box, true: Box) -> float:
    """Return the intersection over union of two boxes."""
    width = min(found[2], true[2]) - max(found[0], true[0])
    height = min(found[3], true[3]) - max(found[1], true[1])
    both = max(0, width) * max(0, height)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (found, true)]
    return both / (sum(areas) - both)
