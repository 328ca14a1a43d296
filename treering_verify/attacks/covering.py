"""Attacks that cover parts of an image: rectangles, and a visible text mark as image agencies use."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

# Drawn by hand on 5 x 7 cells, so that the mark is the same with every font library.
_WORD = (
    " ###   ###  #   # ####  #     #####",
    "#     #   # ## ## #   # #     #    ",
    "#     #   # # # # #   # #     #    ",
    " ###  ##### #   # ####  #     #### ",
    "    # #   # #   # #     #     #    ",
    "    # #   # #   # #     #     #    ",
    "####  #   # #   # #     ##### #####",
)


def mask(image: Image.Image, *, share: float = 0.25, count: int = 1, seed: int = 0) -> Image.Image:
    """Cover with `count` opaque rectangles, each of share / count of the area; the seed draws place, shape and colour.

    Rectangles may overlap, so together they cover at most `share`. From one seed, a larger share covers everything that
    a smaller one covers.
    """
    import numpy as np
    from PIL import Image

    generator = np.random.default_rng(seed)
    pixels = np.array(image)
    height, width = pixels.shape[:2]
    part = share / count
    for _ in range(count):
        across, down, shape = generator.random(3)
        colour = generator.integers(0, 256, 3)
        # Sides are part^e and part^(1 - e) of the image's: their product is the area, and neither exceeds the image.
        exponent = 0.3 + 0.4 * shape
        w, h = round(width * part**exponent), round(height * part ** (1.0 - exponent))
        left, top = int((width - w) * across), int((height - h) * down)
        pixels[top : top + h, left : left + w] = colour
    return Image.fromarray(pixels)


def overlay(image: Image.Image, *, opacity: float = 0.5, share: float = 0.5, seed: int = 0) -> Image.Image:
    """Draw the word SAMPLE in white all over, as a visible mark; `share` is its width, as a share of the image's.

    Rows are shifted against each other; the seed draws where the first word stands. About a third of the image is white
    at opacity 1.
    """
    import numpy as np
    from PIL import Image

    word = np.array([[cell == "#" for cell in row] for row in _WORD], dtype=np.uint8)
    tile = np.pad(word, ((2, 1), (3, 3)))
    tile = np.concatenate([tile, np.roll(tile, tile.shape[1] // 2, axis=1)])
    # The side of a letter's cell in pixels; the word is as wide as asked for, whatever the image's size.
    cell = image.width * share / word.shape[1]
    across, down = np.random.default_rng(seed).random(2)
    rows = ((np.arange(image.height) + 0.5) / cell + down * tile.shape[0]).astype(int) % tile.shape[0]
    columns = ((np.arange(image.width) + 0.5) / cell + across * tile.shape[1]).astype(int) % tile.shape[1]
    drawn = tile[np.ix_(rows, columns)][..., None] * opacity
    pixels = np.asarray(image)
    return Image.fromarray(np.rint(pixels + drawn * (255.0 - pixels)).astype(np.uint8))
