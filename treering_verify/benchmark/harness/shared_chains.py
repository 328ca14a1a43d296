"""The chains of the benchmark `shared`, in groups."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from treering_verify.benchmark.harness.shared_images import (
    as_it_is,
    banner,
    beside_squares,
    caption,
    collage,
    cornered,
    cropped,
    cut,
    dithered,
    framed,
    in_article,
    in_place,
    inset,
    inverted,
    looked,
    loose_crop,
    meme,
    on_blur,
    outpainted,
    resaved,
    screenshot,
    squares,
    stamped,
    stretched,
    turned,
    warped,
)

if TYPE_CHECKING:
    from PIL import Image

    from treering_verify.benchmark.harness.shared_images import Shared


@dataclass(frozen=True)
class Chain:
    """One chain.

    Attributes
    ----------
    name, group : str
    apply : callable
        (images, i) -> the page on which image i is, other images beside it where the chain wants some, and its box on the
        page (left, top, right, bottom); None where the image is turned.
    """

    name: str
    group: str
    apply: Callable[[Sequence[Image.Image], int], Shared]


def _swapped(image: Image.Image) -> Image.Image:
    from PIL import Image

    return Image.merge("RGB", image.split()[::-1])


def _threshold(image: Image.Image) -> Image.Image:
    return image.convert("L").point(lambda value: 255 * (value >= 128))


def _posterised(image: Image.Image) -> Image.Image:
    from PIL import ImageOps

    return ImageOps.posterize(image, 3)


CHAINS = (
    Chain("as it is", "size", as_it_is),
    Chain("at 1:1 on a page of 3.1 x 2.3", "screenshot", partial(screenshot, page=(3.125, 2.34), width=1)),
    Chain(
        "at 3.1 on a page of 10 x 5.6, JPEG 80",
        "screenshot",
        partial(screenshot, page=(10, 5.625), width=3.125, quality=80),
    ),
    Chain("full width on a phone, JPEG 80", "screenshot", partial(screenshot, page=(2.8, 6.1), width=2.8, quality=80)),
    Chain("cropped loosely out of a screenshot", "screenshot", loose_crop),
    Chain("collage of four, JPEG 90", "composite", partial(collage, columns=2, rows=2, quality=90)),
    Chain("side by side", "composite", partial(collage, columns=2, rows=1)),
    Chain("outpainted by half", "composite", outpainted),
    Chain("caption above", "frame", caption),
    Chain("border of 1/64, JPEG 85", "frame", partial(framed, border=1 / 64)),
    Chain("white border of 1/16, JPEG 85", "frame", partial(framed, border=1 / 16, colour="white")),
    Chain("enlarged, border of 1/8, JPEG 85", "frame", partial(framed, border=1 / 8, enlarged=2.25)),
    Chain("shrunk to .8 in place", "frame", partial(in_place, scale=0.8, left=0.1, top=0.1)),
    Chain("moved by 1/8", "geometry", partial(in_place, scale=1, left=1 / 8, top=0)),
    Chain("mirrored, cropped to .85", "geometry", partial(cropped, keep=0.85, mirrored=True)),
    Chain("middle half of each side", "geometry", partial(cropped, keep=0.5)),
    Chain("turned by 90 degrees, cropped to .85", "geometry", partial(cropped, keep=0.85, degrees=90)),
    Chain("turned by 10 degrees, cropped to .8", "geometry", partial(cropped, keep=0.8, degrees=10)),
    Chain("turned by 10 degrees on white", "geometry", partial(turned, degrees=10, colour="white")),
    Chain("turned by 45 degrees on black", "geometry", partial(turned, degrees=45, colour="black")),
    Chain("stretched to 16:9", "aspect", partial(stretched, width=16 / 9, height=1)),
    Chain("banner 2:1, four times as large", "aspect", banner),
    Chain("colours inverted", "look", inverted),
    Chain("black-and-white dither", "look", dithered),
    Chain("one line of text, JPEG 85", "text", partial(meme, lines=1)),
    Chain("two lines of text, JPEG 85", "text", partial(meme, lines=2)),
    Chain("half as large", "size", partial(resaved, scales=(0.5,), qualities=(0,))),
    Chain("half as large, JPEG 85", "size", partial(resaved, scales=(0.5,), qualities=(85,))),
    Chain("three times as large, JPEG 75", "size", partial(resaved, scales=(3,), qualities=(75,))),
    Chain("squeezed to 3:4", "aspect", partial(stretched, width=1, height=4 / 3)),
    Chain("stretched to 16:9 at 4 times, JPEG 80", "aspect", partial(stretched, width=64 / 9, height=4, quality=80)),
    Chain("cut to 4:5", "aspect", partial(cut, box=(0.1, 0, 0.9, 1))),
    Chain("cut to 16:9, three times as large", "aspect", partial(cut, box=(0, 0.2, 1, 0.7625), scale=3)),
    Chain("cut to 9:16, three times as large", "aspect", partial(cut, box=(0.3, 0, 0.8625, 1), scale=3)),
    Chain("story of 9:16 on a blur, twice as large", "frame", partial(on_blur, page=(2, 3.56), width=2)),
    Chain("letterbox of 16:9 on a blur", "frame", partial(on_blur, page=(1.78, 1), width=1)),
    Chain("rounded corners on white", "frame", partial(cornered, radius=0.12)),
    Chain("circle on white", "frame", partial(cornered, radius=0.5)),
    Chain("grey border of 1/4, JPEG 85", "frame", partial(framed, border=1 / 4, colour="#888888")),
    Chain("at 2 on a page of 4 x 3, JPEG 70", "screenshot", partial(screenshot, page=(4, 3), width=2, quality=70)),
    Chain("at .9 on a page of 3 x 2", "screenshot", partial(screenshot, page=(3, 2), width=0.9)),
    Chain("at .6 on a page of 3 x 2", "screenshot", partial(screenshot, page=(3, 2), width=0.6)),
    Chain("beside a code of black and white squares", "screenshot", partial(beside_squares, colours=2)),
    Chain("beside a chart of coloured squares", "screenshot", partial(beside_squares, colours=6)),
    Chain("stretched to 16:9 in an article, JPEG 85", "screenshot", partial(in_article, width=4, height=2.25)),
    Chain(
        "cut to 16:9 in an article, JPEG 85",
        "screenshot",
        partial(in_article, width=4, height=2.25, part=(0, 0.2, 1, 0.7625)),
    ),
    Chain("nine squares of .8, JPEG 85", "composite", partial(squares, keep=0.8, side=1.6)),
    Chain("at 1.5, JPEG 80 twice", "social", partial(resaved, scales=(1.5, 1.5), qualities=(80, 80))),
    Chain(
        "JPEG 60, 75 and 70 at changing sizes", "social", partial(resaved, scales=(1.2, 0.9, 1), qualities=(60, 75, 70))
    ),
    Chain("enlarged to 8, JPEG 75, and back", "social", partial(resaved, scales=(8, 1), qualities=(75, 0))),
    Chain("JPEG 40", "social", partial(resaved, scales=(1,), qualities=(40,))),
    Chain("greyscale", "look", partial(looked, change=lambda image: image.convert("L"))),
    Chain("red and blue swapped", "look", partial(looked, change=_swapped)),
    Chain("16 colours in dots", "look", partial(looked, change=lambda image: image.quantize(16))),
    Chain("black and white by a threshold", "look", partial(looked, change=_threshold)),
    Chain("8 levels a channel", "look", partial(looked, change=_posterised)),
    Chain("mirrored", "geometry", partial(cropped, keep=1, mirrored=True)),
    Chain("moved by 3/8 on black", "geometry", partial(in_place, scale=1, left=3 / 8, top=0)),
    Chain("upper left of .6 of each side", "geometry", partial(cut, box=(0, 0, 0.6, 0.6))),
    Chain(
        "mirrored, turned by 25 degrees, cropped to .7",
        "geometry",
        partial(cropped, keep=0.7, degrees=25, mirrored=True),
    ),
    Chain("turned by 30 degrees on white", "geometry", partial(turned, degrees=30, colour="white")),
    Chain("sheared by .05", "geometry", partial(warped, shear=0.05)),
    Chain("tilted by .08", "geometry", partial(warped, tilt=0.08)),
    Chain("nine together, JPEG 85", "composite", partial(collage, columns=3, rows=3, quality=85)),
    Chain("one over the other", "composite", partial(collage, columns=1, rows=2)),
    Chain("another image of .4 over a corner", "composite", partial(inset, size=0.4)),
    Chain("half-transparent words all over, JPEG 90", "text", partial(stamped, opacity=0.5)),
)
