"""`PYTHONPATH=.:tests python tests/helpers/hostile/fuzz.py COUNT SEED [FOLDER]`
verifies COUNT mutated images, and prints as JSON what came of them.

Seeds are small sound files of every format that is read, animations too. Each is changed in one to sixteen places: bits,
bytes, extremes in header fields, removed and repeated pieces, pieces of other files, and truncations; checksums of PNG are
often made right again. Each goes through `verify_many` with a model that does nothing: decoding is what is tried. An image
that raises an exception is written to FOLDER.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from helpers.hostile import slow_files
from helpers.hostile.files import mutated, samples
from helpers.images import encoded
from treering_verify.benchmark.speed.null_model import NULL_INVERSION, NullModel
from treering_verify.detection.verification import verify_many
from treering_verify.media.formats import decoded_formats, register
from treering_verify.media.isolation import decoding
from treering_verify.watermark.keys.key import Key


def seeds() -> dict[str, bytes]:
    """Return a small sound file of each format and kind."""
    register()
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 256, (24, 32, 3), dtype=np.uint8))
    frames = [noise, noise.rotate(90), noise.rotate(180)]
    found = samples()
    plain: list[tuple[str, dict[str, Any]]] = [
        ("JPEG2000", {}),
        ("JPEG2000", {"tile_size": (16, 16), "no_jp2": True}),
        ("ICO", {}),
        ("ICO", {"bitmap_format": "bmp"}),
        ("TGA", {}),
        ("TGA", {"compression": "tga_rle"}),
        ("TIFF", {"compression": "group4"}),
        ("TIFF", {"compression": "packbits"}),
        ("TIFF", {"compression": "zstd"}),
        ("DDS", {}),
        ("DDS", {"pixel_format": "DXT5"}),
        ("HEIF", {}),
        ("JXL", {}),
        ("JXL", {"lossless": True}),
    ]
    for kind, options in plain:
        if kind in decoded_formats():
            mode = {"group4": "1"}.get(options.get("compression", ""), "RGBA" if kind == "DDS" else "RGB")
            found[f"{kind} {options}"] = encoded(noise.convert(mode), kind, **options)
    for kind in ("GIF", "PNG", "WEBP", "AVIF", "TIFF"):
        found[f"animated {kind}"] = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    for mode, kind in (("I;16", "PNG"), ("LA", "PNG"), ("P", "PNG"), ("CMYK", "JPEG"), ("CMYK", "TIFF"), ("F", "TIFF")):
        found[f"{mode} {kind}"] = encoded(noise.convert("L").convert(mode) if mode != "I;16" else _wide(), kind)
    found["tiles"] = slow_files.tiled_tiff(32, 16, 4)
    found["dds masks"] = slow_files.dds((16, 16), 16, (0xF800, 0x7E0, 0x1F, 0), bytes(range(256)) * 2)
    found["plain pnm"] = b"P3 16 16 99\n" + b" ".join(b"%d" % (i % 100) for i in range(768))
    found["16 bits pnm"] = b"P6 16 16 65535\n" + bytes(1536)
    found["runs.bmp"] = slow_files.bmp_rle(16)
    found["psd"] = _psd()
    return found


def _wide() -> Image.Image:
    return Image.fromarray(np.arange(768, dtype=np.uint16).reshape(24, 32))


def _psd() -> bytes:
    """Return a PSD without layers: header, three empty sections, and raw planes."""
    head = b"8BPS\0\1" + bytes(6) + b"\0\3" + (16).to_bytes(4, "big") * 2 + b"\0\x08\0\3"
    return head + bytes(4) * 3 + b"\0\0" + bytes(range(256)) * 3


def fuzz(count: int, seed: int, folder: Path | None = None) -> dict[str, Any]:
    """Verify mutated images; return counts of what came of them, seconds and memory."""
    sound = list(seeds().values())
    key, model = Key.generate(NullModel().latent_shape, seed=1), NullModel()
    outcomes: Counter[str] = Counter()
    slowest, uncaught, apart, began = 0.0, 0, 0, time.perf_counter()
    for number, data in enumerate(mutated(sound, count, seed)):
        started = time.perf_counter()
        apart += not decoding.is_cheap(data)
        try:
            (verdict,) = verify_many([data], key, model=model, inversion=NULL_INVERSION, search="off")
            outcomes[verdict.code if verdict.status == "error" else "judged"] += 1
        except Exception as error:
            uncaught += 1
            outcomes[f"uncaught {type(error).__name__}"] += 1
            if folder:
                (folder / f"{seed}-{number}").write_bytes(data)
        slowest = max(slowest, time.perf_counter() - started)
    decoding._decoder.close()
    here, there = (
        resource.getrusage(who).ru_maxrss // 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return {
        "images": count,
        "seed": seed,
        "seeds": len(sound),
        "outcomes": dict(outcomes.most_common()),
        "uncaught": uncaught,
        "decoded_apart": apart,
        "seconds": round(time.perf_counter() - began, 1),
        "slowest": round(slowest, 2),
        "peak_mb": here,
        "peak_mb_of_the_decoder": there,
    }


if __name__ == "__main__":
    place = Path(sys.argv[3]) if len(sys.argv) > 3 else None
    if place:
        place.mkdir(exist_ok=True)
    print(json.dumps(fuzz(int(sys.argv[1]), int(sys.argv[2]), place)))
