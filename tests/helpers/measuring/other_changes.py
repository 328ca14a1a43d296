"""Changes of images that the search was not made with: what it finds of them.

`PYTHONPATH=.:tests python tests/helpers/measuring/other_changes.py [--images 2] [CHANGE ...]` marks images by `landscape`,
each under a key of its own, changes each in every way below (or in those that are named), and judges it by `fast`, and
by `thorough` where `fast` finds nothing. It prints a line for each change, with the verdicts of images that were not found,
and the counts with Clopper-Pearson intervals. None of these changes may become an example that the search is tuned by.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageEnhance, ImageFilter, ImageFont, ImageOps
from treering_detectors import Rate

import treering_verify as tv
from helpers.places import SAMPLES
from treering_verify.media.images import open_image
from treering_verify.results import DETECTED

BICUBIC = Image.Resampling.BICUBIC
FIRST = 7 << 33  # of seeds and keys: far from those of benchmarks and samples
Change = Callable[[Image.Image], Image.Image]


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def _wood(width: int, height: int) -> Image.Image:
    """Return a table's top: brown, with grain."""
    rng = np.random.default_rng(5)
    grain = np.cumsum(rng.normal(0, 3, (height, 1)), axis=0) + rng.normal(0, 4, (height, width))
    pixels = np.array([132, 94, 60]) + (grain - grain.mean())[..., None].clip(-50, 50)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def _on_table(image: Image.Image, degrees: float) -> Image.Image:
    print_ = ImageOps.expand(image.resize((192, 192), BICUBIC), 10, "white")
    shape = Image.new("L", print_.size, 255)
    page = _wood(420, 340)
    turned, mask = (one.rotate(degrees, BICUBIC, True) for one in (print_, shape))
    page.paste(turned, ((420 - turned.width) // 2, (340 - turned.height) // 2), mask)
    return jpeg(page, 85)


def _sticker(image: Image.Image, share: float) -> Image.Image:
    made, side = image.copy(), int(image.width * share**0.5)
    draw = ImageDraw.Draw(made)
    left, top = image.width - side - 6, image.height - side - 6
    draw.ellipse((left, top, left + side, top + side), "yellow", "black", 2)
    draw.arc((left + side // 4, top + side // 4, left + 3 * side // 4, top + 3 * side // 4), 20, 160, "black", 3)
    return made


def _bubble(image: Image.Image) -> Image.Image:
    made = image.copy()
    draw = ImageDraw.Draw(made)
    draw.rounded_rectangle((10, 8, 96, 44), 12, "white", "black")
    draw.polygon([(40, 43), (52, 43), (36, 58)], "white")
    draw.text((20, 16), "not mine!", "black", font=ImageFont.load_default(14))
    return made


def _contact_sheet(image: Image.Image, columns: int, cell: int) -> Image.Image:
    sheet = Image.new("RGB", (columns * (cell + 6) + 6,) * 2, "white")
    others = [open_image(SAMPLES / f"{name}.png") for name in ("unmarked-0", "unmarked-1", "photograph")]
    for i in range(columns**2):
        shown = image if i == columns + 1 else others[i % 3]
        place = (6 + i % columns * (cell + 6), 6 + i // columns * (cell + 6))
        sheet.paste(shown.resize((cell, cell), Image.Resampling.LANCZOS), place)
    return sheet


def _turned_and_cropped(image: Image.Image, degrees: float, share: float) -> Image.Image:
    turned = image.resize((256, 256), BICUBIC).rotate(degrees, BICUBIC)
    edge = 128 * (1 - share)
    return turned.crop((round(edge), round(edge), round(256 - edge), round(256 - edge)))


def _hue(image: Image.Image, by: int) -> Image.Image:
    hue, saturation, value = image.convert("HSV").split()
    return Image.merge("HSV", (hue.point(lambda one: (one + by) % 256), saturation, value)).convert("RGB")


def _halftone(image: Image.Image) -> Image.Image:
    grey = np.asarray(image.convert("L").resize((512, 512), BICUBIC), float) / 255
    y, x = np.mgrid[:512, :512]
    screen = (np.cos((x + y) * np.pi / 6) * np.cos((x - y) * np.pi / 6) + 1) / 2
    return Image.fromarray(((grey > screen) * 255).astype(np.uint8)).convert("RGB")


def _of_a_screen(image: Image.Image) -> Image.Image:
    """Return a photograph of a screen: its lines of pixels, seen a little askew, with a gleam."""
    pixels = np.asarray(image.resize((512, 512), BICUBIC), float)
    pixels[:, ::3] *= 0.8
    pixels[::3] *= 0.85
    y, x = np.mgrid[:512, :512]
    pixels += 40 * np.exp(-((x - 120) ** 2 + (y - 90) ** 2) / 9000)[..., None]
    shown = Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).rotate(1.5, BICUBIC)
    return jpeg(shown.crop((24, 24, 488, 488)).resize((300, 300), BICUBIC), 80)


def _polaroid(image: Image.Image) -> Image.Image:
    page = Image.new("RGB", (300, 350), (248, 246, 240))
    page.paste(image.resize((260, 260), BICUBIC), (20, 20))
    ImageDraw.Draw(page).text((90, 300), "summer", (60, 60, 70), font=ImageFont.load_default(26))
    return jpeg(page, 85)


def _slide(image: Image.Image) -> Image.Image:
    page = Image.new("RGB", (640, 360), (24, 40, 82))
    draw = ImageDraw.Draw(page)
    draw.text((24, 18), "Quarterly results", "white", font=ImageFont.load_default(30))
    for i in range(5):
        draw.text((24, 90 + 44 * i), "- one more point to make", "white", font=ImageFont.load_default(18))
    page.paste(image.resize((220, 220), BICUBIC), (390, 90))
    return jpeg(page, 85)


def _mosaic(image: Image.Image) -> Image.Image:
    made = image.copy()
    part = image.crop((44, 40, 84, 80))
    made.paste(part.resize((5, 5), Image.Resampling.BOX).resize((40, 40), Image.Resampling.NEAREST), (44, 40))
    return made


def _sepia(image: Image.Image) -> Image.Image:
    return ImageOps.colorize(image.convert("L"), (40, 22, 8), (255, 240, 205))


def _vignette(image: Image.Image) -> Image.Image:
    y, x = np.mgrid[-1 : 1 : image.height * 1j, -1 : 1 : image.width * 1j]
    return Image.fromarray((np.asarray(image) * (1 - 0.45 * (x**2 + y**2).clip(0, 1))[..., None]).astype(np.uint8))


def _double_exposure(image: Image.Image) -> Image.Image:
    return Image.blend(image, ImageOps.mirror(image).filter(ImageFilter.GaussianBlur(3)), 0.3)


def _red_circle(image: Image.Image) -> Image.Image:
    made = image.resize((256, 256), BICUBIC)
    draw = ImageDraw.Draw(made)
    draw.ellipse((90, 60, 190, 150), outline="red", width=7)
    draw.line((30, 220, 90, 150), "red", 7)
    return jpeg(made, 80)


CHANGES: dict[str, Change] = {
    "inverted and mirrored": lambda image: ImageOps.mirror(ImageOps.invert(image)),
    "red and blue swapped, mirrored": lambda image: ImageOps.mirror(Image.merge("RGB", image.split()[::-1])),
    "inverted, turned by 90 degrees": lambda image: ImageOps.invert(image).rotate(90),
    "sepia": _sepia,
    "four colours": lambda image: image.quantize(4).convert("RGB"),
    "hues turned by a quarter": lambda image: _hue(image, 64),
    "halftone at four times": _halftone,
    "vignette": _vignette,
    "colours at .3, contrast 1.4": lambda image: ImageEnhance.Contrast(ImageEnhance.Color(image).enhance(0.3)).enhance(
        1.4
    ),
    "embossed into itself": lambda image: ImageChops.blend(image, image.filter(ImageFilter.EMBOSS), 0.25),
    "sharpened": lambda image: image.filter(ImageFilter.UnsharpMask(3, 200, 0)),
    "double exposure": _double_exposure,
    "mosaic over the middle": _mosaic,
    "sticker of a tenth": lambda image: _sticker(image, 0.1),
    "sticker of a quarter": lambda image: _sticker(image, 0.25),
    "speech bubble": _bubble,
    "red circle and arrow, JPEG 80": _red_circle,
    "sixteen on a sheet, .63 each": lambda image: _contact_sheet(image, 4, 80),
    "nine on a sheet, .78 each": lambda image: _contact_sheet(image, 3, 100),
    "turned by 60 degrees, cropped": lambda image: _turned_and_cropped(image, 60, 0.7),
    "turned by 5 degrees, cropped": lambda image: _turned_and_cropped(image, 5, 0.9),
    "photograph of a screen": _of_a_screen,
    "polaroid": _polaroid,
    "slide": _slide,
    "print on a table, straight": lambda image: _on_table(image, 0),
    "print on a table, askew": lambda image: _on_table(image, 17),
}


def main(changes: dict[str, Change], description: str | None) -> None:
    """Run the script: `changes` by their names, which its arguments choose from."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("changes", nargs="*", metavar="CHANGE", help="what to try; default: all")
    parser.add_argument("--images", type=int, default=2)
    chosen = parser.parse_args()
    if unknown := set(chosen.changes) - set(changes):
        parser.error(f"no change {', '.join(unknown)}: choose {', '.join(changes)}")
    model = tv.load_model("landscape")
    keys = [tv.Key.generate(model.latent_shape, seed=FIRST + i) for i in range(chosen.images)]
    images = [next(iter(tv.generate(model, key, seeds=[FIRST + i]))).image for i, key in enumerate(keys)]
    counts = {"fast": 0, "thorough": 0}
    tried = 0
    for name in chosen.changes or changes:
        said = []
        for key, image in zip(keys, images, strict=True):
            tried += 1
            page = changes[name](image)
            for level in counts:
                verdict = tv.verify(page, key, model=model, search=level)
                assert verdict.best is not None
                if verdict.verdict == DETECTED:
                    for other in list(counts)[list(counts).index(level) :]:
                        counts[other] += 1
                    said.append(f"{level} 1e{verdict.best.log10_adjusted:.0f}")
                    break
                said.append(f"{level}: {verdict.verdict} {verdict.code}".rstrip())
        print(f"{name}: {'; '.join(said)}", flush=True)
    for level, count in counts.items():
        print(f"{level}: {Rate(count, tried)}")


if __name__ == "__main__":
    main(CHANGES, __doc__)
