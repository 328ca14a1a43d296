"""Repaint a disc of a sample and preserve its background: `python samples/edit.py [OUTPUT.png]`.

Shows the image, the mask, and the edit after two decoder inversions; prints the background error of each.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

import treering_verify as tv
from treering_verify.media.conversion import save_png

HERE = Path(__file__).parent


def main(output: Path) -> None:
    model = tv.load_model("landscape")
    image = Image.open(HERE / "unmarked-0.png").convert("RGB")
    mask = Image.new("L", image.size)
    ImageDraw.Draw(mask).ellipse((28, 4, 100, 76), fill=255)
    edits = {
        method: tv.generation.edit(
            model, image, mask, "lake", strength=1.0, guidance=4.0, inversion=tv.InversionOptions(method=method)
        )
        for method in ("encoder", "auto")
    }
    sheet = Image.new("RGB", (4 * 132 - 4, 128), "white")
    for i, panel in enumerate((image, mask.convert("RGB"), *edits.values())):
        sheet.paste(panel, (132 * i, 0))
    save_png(sheet, output)
    for method, edited in edits.items():
        print(f"{method:14} background error {background_error(image, edited, mask):.1f} dB")


def background_error(image: Image.Image, edited: Image.Image, mask: Image.Image) -> float:
    """Return the NMSE in dB over the pixels outside the mask's box and a border of 16 around it."""
    y, x = np.nonzero(np.asarray(mask))
    rows, columns = np.mgrid[: image.height, : image.width]
    near = (rows > y.min() - 16) & (rows < y.max() + 16) & (columns > x.min() - 16) & (columns < x.max() + 16)
    a, b = (np.asarray(one)[~near] / 127.5 - 1 for one in (image, edited))
    return float(10 * np.log10(((a - b) ** 2).sum() / (a**2).sum()))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("edit.png"))
