"""What files are, as people have them: resized, cropped, of other aspects, compressed, framed, on pages, under text."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from treering_verify.benchmark.harness.shared_chains import Chain
from treering_verify.benchmark.harness.shared_images import (
    as_it_is,
    framed,
    in_place,
    resized,
    screenshot,
    stretched,
    turned,
)

if TYPE_CHECKING:
    from PIL import Image

    from treering_verify.benchmark.harness.shared_images import Shared


def scaled(images: Sequence[Image.Image], i: int, *, scale: float) -> Shared:
    """Resize the whole image."""
    page = resized(images[i], round(scale * images[i].width), round(scale * images[i].height))
    return page, (0, 0, *page.size)


def cut(images: Sequence[Image.Image], i: int, *, width: float, height: float, enlarged: float = 1) -> Shared:
    """Cut out a part, of shares of the sides, at a place that differs from image to image, and enlarge it."""
    across, down = round(width * images[i].width), round(height * images[i].height)
    left, top = (31 * i) % (images[i].width - across + 1), (17 * i) % (images[i].height - down + 1)
    page = images[i].crop((left, top, left + across, top + down))
    if enlarged != 1:
        page = resized(page, round(enlarged * across), round(enlarged * down))
    return page, (0, 0, *page.size)


def compressed(images: Sequence[Image.Image], i: int, *, codec: str, quality: int, scale: float = 1) -> Shared:
    """Resize and compress the image; `info[FILE]` holds the file."""
    from PIL import Image

    buffer, (page, box) = io.BytesIO(), scaled(images, i, scale=scale)
    page.save(buffer, codec, quality=quality)
    page = Image.open(buffer).convert("RGB")
    page.info[FILE] = buffer.getvalue()
    return page, box


def written(images: Sequence[Image.Image], i: int, *, lines: int, quality: int = 85) -> Shared:
    """Write lines of outlined white text over the image, from the bottom up; each covers about a tenth of it."""
    from PIL import Image, ImageDraw, ImageFont

    image = images[i].copy()
    size = round(0.1 * image.height)
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(size)
    for line in range(lines):
        top = image.height - round(1.25 * size * (line + 1)) - 2
        text = _TEXT[7 * line % 20 :][:13]
        draw.text((3, top), text, font=font, fill="white", stroke_width=max(1, size // 7), stroke_fill="black")
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB"), (0, 0, *image.size)


FILE = "file"
"""Entry of `info` of a page that is a file in a lossy format: its bytes."""
TEXT = "text"
"""Group of the pages with text on top."""
_TEXT = "THE QUICK BROWN FOX JUMPS OVER THE LAZY DOG AND RUNS ON"

PAGES = (
    Chain("as it is", "size", as_it_is),
    *(Chain(f"sides of {scale:g}", "size", partial(scaled, scale=scale)) for scale in (0.35, 0.5, 0.7, 1.5, 4, 12)),
    *(Chain(f"cropped to {keep:g}", "crop", partial(cut, width=keep, height=keep)) for keep in (0.9, 0.8, 0.7, 0.5)),
    Chain("cut to 4:3, 6 times as large", "aspect", partial(cut, width=1, height=3 / 4, enlarged=6)),
    Chain("cut to 16:9, 6 times as large", "aspect", partial(cut, width=1, height=9 / 16, enlarged=6)),
    Chain("cut to 2:5", "aspect", partial(cut, width=0.4, height=1)),
    Chain("stretched to 4:3", "aspect", partial(stretched, width=4 / 3, height=1)),
    *(Chain(f"{codec} {q}", "quality", partial(compressed, codec=codec, quality=q)) for codec, q in (
        ("JPEG", 75), ("JPEG", 50), ("JPEG", 25), ("JPEG", 15), ("JPEG", 10), ("JPEG", 8), ("JPEG", 5), ("WEBP", 50),
        ("WEBP", 10), ("WEBP", 5), ("WEBP", 0), ("AVIF", 50), ("AVIF", 20), ("AVIF", 10), ("AVIF", 5))),
    *(Chain(f"sides of {s:g}, JPEG {q}", "quality", partial(compressed, codec="JPEG", quality=q, scale=s)) for s, q in (
        (0.35, 75), (0.35, 50), (0.35, 25), (0.5, 50), (0.5, 25), (0.5, 10), (2, 10), (2, 5), (2, 1), (4, 5), (4, 1))),
    Chain("border of 1/16", "frame", partial(framed, border=1 / 16, quality=0)),
    *(Chain(f"shrunk to {s:g} on black", "frame", partial(in_place, scale=s, left=(1 - s) / 2, top=(1 - s) / 2))
      for s in (0.9, 0.8, 0.6)),
    Chain("turned by 10 degrees on white", "frame", partial(turned, degrees=10, colour="white")),
    *(Chain(f"{n} line{'s' * (n > 1)} of text, JPEG 85", TEXT, partial(written, lines=n)) for n in (1, 2, 3, 4, 5)),
    Chain("on a page 1.5 times as wide", "page", partial(screenshot, page=(1.5, 1.5), width=1)),
    Chain("on a page 3 times as wide", "page", partial(screenshot, page=(3, 2.3), width=1)),
)  # fmt: skip
