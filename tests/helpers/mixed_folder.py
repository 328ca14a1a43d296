"""A folder of mixed files, judged by verify, identify and audit.

`PYTHONPATH=.:tests python tests/helpers/mixed_folder.py 200 [FOLDER]` makes them, and judges them by all three.

It makes 200 files in FOLDER (or a temporary one) and judges them by all three at the level `quick`. It prints how many agree
in status, verdict, code and key, each disagreement, and processor seconds. The exit code is 1 if there is any disagreement.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

import treering_verify as tv
from helpers.images import encoded
from helpers.places import SAMPLES

if TYPE_CHECKING:
    from treering_verify.audit.output.rows import Row
    from treering_verify.models import LatentModel
    from treering_verify.results import Verdict

SEARCH = "quick"
BICUBIC = Image.Resampling.BICUBIC


def screenshot(image: Image.Image, left: int = 31, top: int = 43) -> Image.Image:
    """Return a grey noisy page of 260 x 220 pixels with the image on it."""
    noise = np.random.default_rng(0).normal(128, 60, (220, 260)).clip(0, 255).astype(np.uint8)
    page = Image.fromarray(noise).convert("RGB")
    page.paste(image, (left, top))
    return page


def _photograph() -> Image.Image:
    with Image.open(SAMPLES / "photograph.png") as file:
        return file.convert("RGB")


def _resized(image: Image.Image, width: int, height: int) -> Image.Image:
    return image.resize((width, height), BICUBIC)


def _text(image: Image.Image) -> Image.Image:
    shown = image.copy()
    ImageDraw.Draw(shown).text((12, 52), "for sale", "white", font=ImageFont.load_default(24))
    return shown


def _animated(image: Image.Image, format_name: str, **options: Any) -> bytes:
    frames = [ImageOps.mirror(image), ImageOps.invert(image)]
    return encoded(image, format_name, save_all=True, append_images=frames, duration=100, **options)


def _png(change: Callable[[Image.Image], Image.Image]) -> tuple[str, Callable[[Image.Image], bytes]]:
    return "png", lambda image: encoded(change(image), "PNG")


def _saved(suffix: str, format_name: str, **options: Any) -> tuple[str, Callable[[Image.Image], bytes]]:
    return suffix, lambda image: encoded(image, format_name, **options)


def _cut(suffix: str, format_name: str, share: float) -> tuple[str, Callable[[Image.Image], bytes]]:
    def made(image: Image.Image) -> bytes:
        data = encoded(image, format_name)
        return data[: int(share * len(data))]

    return suffix, made


def _bytes(suffix: str, data: bytes) -> tuple[str, Callable[[Image.Image], bytes]]:
    return suffix, lambda image: data


KINDS: dict[str, tuple[str, Callable[[Image.Image], bytes]]] = {
    "as-it-is": _png(lambda image: image),
    "mirrored": _png(ImageOps.mirror),
    "turned": _png(lambda image: image.rotate(90)),
    "page": _png(screenshot),
    "cropped": _png(lambda image: _resized(image.crop((13, 13, 115, 115)), 128, 128)),
    "enlarged": _png(lambda image: _resized(image, 192, 192)),
    "photograph": _png(lambda image: _photograph()),
    "tiny": _png(lambda image: _resized(_photograph(), 24, 24)),
    "broken": _cut("png", "PNG", 0.002),
    "notes": _bytes("txt", b"no image"),
    "empty": _bytes("png", b""),
    "page-as-image": _bytes("jpg", b"<!DOCTYPE html><title>404 Not Found</title>"),
    "qoi": _bytes("qoi", b"qoif" + bytes(60)),
    "svg": _bytes("svg", b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'),
    "pdf": _bytes("pdf", b"%PDF-1.7\n%%EOF\n"),
    "video": _bytes("mp4", b"\0\0\0\x18ftypisom" + bytes(60)),
    "magic-alone": _bytes("png", b"\x89PNG\r\n\x1a\n" + bytes(64)),
    "too-small": _png(lambda image: _resized(image, 6, 6)),
    "jpeg-cut-early": _cut("jpg", "JPEG", 0.3),
    "jpeg": _saved("jpg", "JPEG", quality=75),
    "jpeg-cut-late": _cut("jpg", "JPEG", 0.85),
    "png-cut-late": _cut("png", "PNG", 0.85),
    "gif": _saved("gif", "GIF"),
    "animated-gif": ("gif", lambda image: _animated(image, "GIF")),
    "webp": _saved("webp", "WEBP", quality=80),
    "tiff": _saved("tiff", "TIFF", compression="tiff_lzw"),
    "tga": _saved("tga", "TGA"),
    "tga-without-footer": ("tga", lambda image: encoded(image, "TGA").removesuffix(b"\0" * 8 + b"TRUEVISION-XFILE.\0")),
    "wrong-suffix": ("txt", lambda image: encoded(image, "PNG")),
    "with-text": _png(_text),
    "animated-png": ("png", lambda image: _animated(image, "PNG")),
    "animated-webp": ("webp", lambda image: _animated(image, "WEBP", lossless=True)),
    "wide": _png(lambda image: image.crop((0, 24, 128, 104))),
    "shrunk": _png(lambda image: _resized(image, 96, 96)),
    "grey": _png(lambda image: image.convert("L")),
    "palette": _png(lambda image: image.quantize(64)),
    "transparent": _png(
        lambda image: Image.merge("RGBA", (*image.split(), Image.linear_gradient("L").resize(image.size)))
    ),
    "framed": _png(lambda image: ImageOps.expand(image, 16, "black")),
    "covered": _png(lambda image: Image.composite(image, Image.new("RGB", image.size), _lower_half(image.size))),
    "flat": _png(lambda image: Image.new("RGB", (128, 128), "navy")),
    "jpeg-of-low-quality": _saved("jpg", "JPEG", quality=15),
}
"""Names, suffixes and makers of files from an image. A maker may ignore its image."""


def _lower_half(size: tuple[int, int]) -> Image.Image:
    mask = Image.new("L", size)
    mask.paste(255, (0, size[1] // 2, *size))
    return mask


def fill(folder: Path, count: int, images: Sequence[Image.Image], kinds: Sequence[str] = tuple(KINDS)) -> list[Path]:
    """Write files of these kinds in turn, each kind from another image in each round, and return them in order."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(count):
        turn, kind = divmod(number, len(kinds))
        name = kinds[kind]
        suffix, made = KINDS[name]
        path = folder / f"{number:06d}-{name}.{suffix}"
        path.write_bytes(made(images[(kind + turn) % len(images)]))
        paths.append(path)
    return paths


def sources(model: LatentModel, keys: Sequence[tv.Key], count: int = 12) -> list[Image.Image]:
    """Generate images: of three in a row, one has the first key, one the second, and one none."""
    marks = [(*keys[:2], None)[i % 3] for i in range(count)]
    return [made.image for i, key in enumerate(marks) for made in tv.generation.generate(model, key, seeds=[1000 + i])]


@dataclass(frozen=True)
class Judged:
    """What the three said of a folder's files, in order, and what it cost."""

    verified: list[Verdict]
    identified: list[Verdict]
    rows: list[Row]
    seconds: dict[str, float]

    def answers(self) -> list[tuple[str, dict[str, tuple[Any, ...]]]]:
        """Return for each file status, verdict, code and detected key of each of the three.

        An audit calls a file `skipped` where the others say `error`, if it is none that it judges. Both count as "no".
        """
        found = []
        for verdict, other, row in zip(self.verified, self.identified, self.rows, strict=True):
            assert str(verdict.path) == str(other.path) == row.path
            said = {
                name: (one.status == "ok", one.verdict, one.code, one.key if one.verdict == "detected" else None)
                for name, one in (("verify", verdict), ("identify", other), ("audit", row))
            }
            found.append((row.path, said))
        return found

    def disagreements(self) -> list[str]:
        """Return a line for each file on which the three do not agree."""
        return [f"{Path(path).name}: {said}" for path, said in self.answers() if len(set(said.values())) > 1]


def judge(
    files: Sequence[Path],
    keys: Sequence[tv.Key],
    model: LatentModel,
    search: str = SEARCH,
    screening: Literal["auto"] | None = "auto",
) -> Judged:
    """Judge files by verify, identify and audit at one level of search. `screening` is the audit's."""
    seconds: dict[str, float] = {}

    def timed(name: str, judged: Callable[[], Any]) -> list[Any]:
        started = _processor_seconds()
        found = list(judged())
        seconds[name] = _processor_seconds() - started
        return found

    asked: dict[str, Any] = {"model": model, "search": search}
    return Judged(
        timed("verify", lambda: tv.verify_many(files, keys, **asked)),
        timed("identify", lambda: tv.detection.identify_many(files, keys, top=1, **asked)),
        timed("audit", lambda: tv.audit.audit_folder(files, keys, screening=screening, **asked)),
        seconds,
    )


def _processor_seconds() -> float:
    """Return processor seconds of this process and its finished children: readers end with an audit."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def judge_mixed(folder: Path, count: int) -> Judged:
    """Make a mixed folder of generated images, marked with two keys and unmarked, and judge it by three keys."""
    model = tv.load_model("landscape")
    keys = [
        tv.Key.generate(model.latent_shape, name=name, seed=i) for i, name in enumerate(("first", "second", "third"))
    ]
    return judge(fill(folder, count, sources(model, keys)), keys, model)


def main(count: int, folder: Path) -> int:
    judged = judge_mixed(folder, count)
    differing, answers = judged.disagreements(), judged.answers()
    print(
        f"{count} files, search {SEARCH} in all three: {count - len(differing)} agree in status, verdict, code and key"
    )
    outcomes = Counter(
        " ".join(filter(None, (verdict or "not judged", code)))
        for _, said in answers
        for _, verdict, code, _ in [said["verify"]]
    )
    print("verify:", ", ".join(f"{number} {outcome}" for outcome, number in outcomes.most_common()))
    print("processor seconds:", ", ".join(f"{name} {value:.1f}" for name, value in judged.seconds.items()))
    print(*differing, sep="\n")
    return 1 if differing else 0


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        sys.exit(main(int(sys.argv[1]), Path(sys.argv[2] if len(sys.argv) > 2 else temporary)))
