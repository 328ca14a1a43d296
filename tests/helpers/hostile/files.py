"""Hostile files: a corpus of known attacks on decoders, and an endless seeded stream of mutated images.

`python tests/hostile.py COUNT SEED MEGABYTES` decodes COUNT mutated files within an address space of so many megabytes, 30 s
each, and prints what came of them as JSON.
"""

from __future__ import annotations

import faulthandler
import json
import resource
import struct
import sys
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from helpers.images import encoded, png, smooth

SECRET = "CANARY-5f1e0c9d7b3a42688e6d-KEY"
"""Stands for what must not leave a file: it is in metadata, names and headers of the corpus."""

PATIENCE = 30
FORMATS = {
    "png": ("PNG", {}),
    "jpeg": ("JPEG", {}),
    "jpeg progressive": ("JPEG", {"progressive": True}),
    "webp": ("WEBP", {}),
    "webp lossless": ("WEBP", {"lossless": True}),
    "gif": ("GIF", {}),
    "tiff": ("TIFF", {}),
    "tiff lzw": ("TIFF", {"compression": "tiff_lzw"}),
    "tiff deflate": ("TIFF", {"compression": "tiff_adobe_deflate"}),
    "tiff jpeg": ("TIFF", {"compression": "jpeg"}),
    "bmp": ("BMP", {}),
    "ppm": ("PPM", {}),
    "avif": ("AVIF", {}),
}


@dataclass(frozen=True)
class Hostile:
    """A file's bytes, and the codes that may come of it ("ok" is an image)."""

    name: str
    data: bytes
    codes: frozenset[str]


DAMAGED = frozenset(
    {"ok", "corrupt", "not_an_image", "unread_format", "empty", "too_small", "too_many_pixels", "too_many_parts"}
    | {"cut_short"}
)


def samples() -> dict[str, bytes]:
    """Return small sound files of every format that is read."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8))
    return {name: encoded(noise, kind, **options) for name, (kind, options) in FORMATS.items()}


# --- the corpus -------------------------------------------------------------------------------------------------------


def damaged() -> Iterator[Hostile]:
    """Yield every format cut at each of its markers, with each bit of its head flipped, and under the others' magic."""
    sound = samples()
    for name, data in sound.items():
        for place in sorted({p + d for p in markers(data) for d in (-1, 0, 1) if 0 <= p + d <= len(data)}):
            yield Hostile(f"{name} cut at {place}", data[:place], DAMAGED)
        for bit in range(8 * 48):
            flipped = bytearray(data)
            flipped[bit // 8] ^= 1 << bit % 8
            yield Hostile(f"{name} with bit {bit} flipped", bytes(flipped), DAMAGED)
        for other, magic in sound.items():
            if other != name:
                yield Hostile(f"{name} as {other}", magic[:12] + data[12:], DAMAGED)


def markers(data: bytes) -> list[int]:
    """Return where the parts of a file begin: chunks, segments, blocks, directory entries."""
    if data.startswith(b"\x89PNG"):
        return _steps(data, 8, lambda p: 12 + int.from_bytes(data[p : p + 4], "big"))
    if data.startswith(b"RIFF"):
        return _steps(data, 12, lambda p: 8 + (int.from_bytes(data[p + 4 : p + 8], "little") + 1) // 2 * 2)
    if data[4:8] == b"ftyp":
        return _steps(data, 0, lambda p: max(8, int.from_bytes(data[p : p + 4], "big")))
    if data.startswith(b"\xff\xd8"):
        return [p for p in range(len(data) - 1) if data[p] == 0xFF and data[p + 1]]
    if data.startswith(b"II"):
        start = int.from_bytes(data[4:8], "little")
        count = int.from_bytes(data[start : start + 2], "little")
        return [0, 4, 8, start, *range(start + 2, start + 2 + 12 * count + 1, 12), len(data)]
    return [0, 2, 6, 10, 13, 14, 18, 26, 54, len(data) // 2, len(data) - 1, len(data)]


def _steps(data: bytes, place: int, size: object) -> list[int]:
    places = [0]
    while place < len(data):
        places += [place, place + 4, place + 8]
        place += size(place)  # type: ignore[operator]
    return [*places, len(data)]


def tricks() -> Iterator[Hostile]:
    """Yield bombs, odd modes and sizes, and metadata that is huge, active or secret."""
    ok, corrupt, pixels = frozenset({"ok"}), frozenset({"corrupt"}), frozenset({"too_many_pixels"})
    parts, small = frozenset({"too_many_parts"}), frozenset({"too_small"})
    row = b"\0" * 49
    image = smooth()
    jpeg, gif = encoded(image, "JPEG"), encoded(image, "GIF")
    palette = 13 + 3 * (2 << (gif[10] & 7))

    yield Hostile("no bytes", b"", frozenset({"empty"}))
    yield Hostile("bomb.png", png(50_000, 50_000, 8, 2, b"\0" * 10_000_000), pixels)
    yield Hostile("bomb.gif", gif[:6] + b"\xff\xff\xff\xff" + gif[10:], pixels)
    yield Hostile("frame bomb.gif", gif.replace(b",\0\0\0\0\x30\0\x28\0", b",\0\0\0\0\xff\xff\xff\xff"), DAMAGED)
    yield Hostile("bomb.tiff", tiff(60_000, 60_000), pixels)
    yield Hostile("bomb.webp", animated_webp(16_383, 16_383), pixels)
    yield Hostile("wide bomb.webp", animated_webp(1 << 24, 200), pixels)
    yield Hostile("ten scans.jpg", scans(64, 10), ok)
    yield Hostile("scan bomb.jpg", scans(8000, 100_000), frozenset({"too_many_scans"}))
    yield Hostile("scans in metadata.jpg", jpeg[:2] + segment(0xE7, b"\xff\xda" * 30_000) + jpeg[2:], ok)
    yield Hostile("part bomb.png", png(16, 16, 8, 2, row * 16, chunk(b"tEXt", b"") * 200_000), parts)
    yield Hostile("part bomb.jpg", jpeg[:2] + segment(0xE1, b"") * 200_000 + jpeg[2:], parts)
    yield Hostile("fill bomb.jpg", jpeg[:2] + (b"\xff" * 1000 + segment(0xE1, b"")) * 200 + jpeg[2:], parts)
    for name, junk in (
        ("fill", b"\xff" * 4_000_000),
        ("fill and zero", b"\xff" * 4_000_000 + b"\0"),
        ("zeros", bytes(4_000_000)),
    ):
        yield Hostile(f"{name}.jpg", jpeg[:2] + junk + jpeg[2:], ok)
        yield Hostile(f"erased with {name}.jpg", jpeg[:20] + junk, frozenset({"cut_short"}))
    yield Hostile("part bomb.gif", gif[:palette] + b"\x21\xfe\x01a\0" * 100_000 + gif[palette:], parts)
    yield Hostile("comment bomb.ppm", b"P6\n" + b"#\n" * 100_000 + b"16 16 255\n" + b"\0" * 768, parts)
    yield Hostile("text bomb.png", png(16, 16, 8, 2, row * 16, text_bomb(b"zTXt")), frozenset({"ok", "corrupt"}))
    yield Hostile("profile bomb.png", png(16, 16, 8, 2, row * 16, text_bomb(b"iCCP")), frozenset({"ok", "corrupt"}))
    for width, height in ((0, 0), (0, 16), (16, 0)):
        yield Hostile(f"{width}x{height}.png", png(width, height, 8, 2, b""), frozenset({"corrupt", "too_small"}))
    yield Hostile("1x1.png", encoded(image.resize((1, 1)), "PNG"), small)
    yield Hostile("30000x1.png", encoded(Image.new("RGB", (30_000, 1)), "PNG"), small)
    yield Hostile("30000x9.png", encoded(Image.new("RGB", (30_000, 9)), "PNG"), ok)
    for mode in ("1", "L", "LA", "P", "I;16", "RGBA"):
        yield Hostile(f"{mode}.png", encoded(Image.new(mode, (32, 32)), "PNG"), ok)
    yield Hostile("16 bits.png", png(16, 16, 16, 2, (b"\0" + bytes(range(96))) * 16), ok)
    for mode in ("CMYK", "LAB", "YCbCr", "F"):
        yield Hostile(f"{mode}.tiff", encoded(Image.new(mode, (32, 32)), "TIFF"), ok)
    nan = Image.fromarray(np.full((16, 16), np.nan, np.float32))
    yield Hostile("nan.tiff", encoded(nan, "TIFF"), corrupt)
    yield Hostile("profile.jpg", encoded(image, "JPEG", icc_profile=SECRET.encode() * 100), ok)
    first, *others = (Image.new("RGB", (32, 32), (50 * i, 0, 255 - 50 * i)) for i in range(5))
    for kind in ("GIF", "WEBP", "PNG", "AVIF", "TIFF"):
        yield Hostile(f"animated.{kind.lower()}", encoded(first, kind, save_all=True, append_images=others), ok)
    for turn in (*range(10), 65535):
        exif = Image.Exif()
        exif[0x0112] = turn
        exif[0x010E] = exif[0x9286] = f'{SECRET}<script>alert("x")</script>\x1b[31m'
        yield Hostile(f"turned {turn}.jpg", encoded(image, "JPEG", exif=exif, comment=SECRET), ok)
        if turn % 4 == 3:
            yield Hostile(f"turned {turn}.png", encoded(image, "PNG", exif=exif), ok)
    broken = b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + SECRET.encode() * 50
    yield Hostile("broken exif.jpg", encoded(image, "JPEG", exif=broken), ok)
    yield Hostile("secret header.ppm", f"P6 {SECRET} 10 255\n".encode() + b"\0" * 300, corrupt)
    yield Hostile("secret.txt", SECRET.encode() * 10, frozenset({"not_an_image"}))
    yield Hostile("secret chunk.png", png(16, 16, 8, 2, row * 16, chunk(SECRET[:4].encode(), b"")[:-1] + b"x"), corrupt)


def heavy() -> Iterator[Hostile]:
    """Yield sound images under 64 MB of metadata."""
    row, image, ok = b"\0" * 49, smooth(), frozenset({"ok"})
    jpeg = encoded(image, "JPEG")
    yield Hostile("64 MB.png", png(16, 16, 8, 2, row * 16, chunk(b"eXIf", b"II*\0\x08\0\0\0" + b"\0" * (64 << 20))), ok)
    yield Hostile("64 MB.webp", encoded(image, "WEBP", exif=b"Exif\0\0II*\0\x08\0\0\0" + b"\0" * (64 << 20)), ok)
    yield Hostile("64 MB.jpg", jpeg[:2] + segment(0xE1, b"\xff\xda" * 32_000) * 1040 + jpeg[2:], ok)


def chunk(kind: bytes, body: bytes) -> bytes:
    """Return a PNG chunk."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def segment(marker: int, body: bytes) -> bytes:
    """Return a JPEG segment."""
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(body) + 2) + body


def text_bomb(kind: bytes) -> bytes:
    """Return 64 KB that are 64 MB when they are unpacked."""
    return chunk(kind, b"name\0\0" + zlib.compress(b"\0" * (64 << 20)))


def tiff(width: int, height: int) -> bytes:
    """Return a TIFF that claims to be so large."""
    entries = [(256, width), (257, height), (258, 8), (259, 8), (262, 1), (273, 8), (278, height), (279, 100)]
    body = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + body + b"\0" * 4


def animated_webp(width: int, height: int) -> bytes:
    """Return a WebP of one small frame on a canvas that claims to be so large."""

    def riff(kind: bytes, body: bytes) -> bytes:
        return kind + struct.pack("<I", len(body)) + body

    def three(number: int) -> bytes:
        return number.to_bytes(3, "little")

    frame = encoded(Image.new("RGB", (16, 16)), "WEBP", lossless=True)[12:]
    body = riff(b"VP8X", b"\x02\0\0\0" + three(width - 1) + three(height - 1)) + riff(b"ANIM", b"\0" * 6)
    body += riff(b"ANMF", b"\0" * 6 + three(15) * 2 + three(100) + b"\0" + frame)
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def scans(side: int, count: int) -> bytes:
    """Return a progressive JPEG, grey, that passes `count` times over its image and says nothing."""
    table = bytes([1] + [0] * 15)
    head = segment(0xDB, b"\0" + bytes([1] * 64)) + segment(0xC2, struct.pack(">BHHB", 8, side, side, 1) + b"\1\x11\0")
    head += segment(0xC4, b"\x00" + table + b"\0") + segment(0xC4, b"\x10" + table + b"\xe0")
    return b"\xff\xd8" + head + segment(0xDA, b"\1\1\0\0\0\0") + segment(0xDA, b"\1\1\0\1\x3f\0") * count + b"\xff\xd9"


# --- the stream -------------------------------------------------------------------------------------------------------


def mutations(count: int, seed: int) -> Iterator[bytes]:
    """Yield mutated images, always the same for a seed."""
    yield from mutated(list(samples().values()), count, seed)


def mutated(sound: list[bytes], count: int, seed: int) -> Iterator[bytes]:
    """Yield mutations of sound files, always the same for a seed."""
    generator = np.random.default_rng(seed)
    for _ in range(count):
        data = bytearray(sound[generator.integers(len(sound))])
        for _ in range(generator.choice([1, 1, 2, 4, 16])):
            _mutate(data, sound, generator)
        if data.startswith(b"\x89PNG") and generator.integers(2):
            data = _with_checksums(data)
        yield bytes(data)


def _mutate(data: bytearray, sound: list[bytes], generator: np.random.Generator) -> None:
    reach = min(len(data), int(generator.choice([40, 200, max(1, len(data))])))
    place = int(generator.integers(max(1, reach)))
    kind = generator.integers(8)
    size = int(generator.integers(1, 33))
    if kind == 0:
        data[place : place + 1] = generator.bytes(1)
    elif kind == 1 and data:
        data[place % len(data)] ^= 1 << int(generator.integers(8))
    elif kind == 2:
        extremes = [b"\0" * 4, b"\xff" * 4, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\1", b"\1\0", b"\xff\xff"]
        extreme = extremes[generator.integers(len(extremes))]
        data[place : place + len(extreme)] = extreme
    elif kind == 3:
        del data[place : place + size]
    elif kind == 4:
        data[place:place] = generator.bytes(size)
    elif kind == 5:
        data[place:place] = data[place : place + size] * int(generator.integers(1, 20))
    elif kind == 6:
        other = sound[generator.integers(len(sound))]
        start = int(generator.integers(len(other)))
        data[place : place + size] = other[start : start + size]
    elif generator.integers(4) == 0:
        del data[int(generator.integers(len(data) + 1)) :]


def _with_checksums(data: bytearray) -> bytearray:
    """Make a PNG's checksums right again, so that what was changed is reached."""
    place = 8
    while place + 12 <= len(data):
        end = place + 8 + int.from_bytes(data[place : place + 4], "big")
        if end + 4 > len(data):
            break
        data[end : end + 4] = struct.pack(">I", zlib.crc32(data[place + 4 : end]))
        place = end + 4
    return data


def fuzz(count: int, seed: int) -> dict[str, object]:
    """Decode mutated files. A file that takes longer than `PATIENCE` ends the process with a traceback."""
    from treering_verify.errors import ImageError
    from treering_verify.media.images import open_image

    codes: Counter[str] = Counter()
    slowest = 0.0
    for data in mutations(count, seed):
        faulthandler.dump_traceback_later(PATIENCE, exit=True)
        started = time.perf_counter()
        try:
            codes[open_image(data).mode] += 1
        except ImageError as error:
            codes[error.code] += 1
        slowest = max(slowest, time.perf_counter() - started)
        faulthandler.cancel_dump_traceback_later()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"codes": dict(codes), "slowest": round(slowest, 2), "peak_mb": round(peak)}


if __name__ == "__main__":
    wanted, chosen, megabytes = map(int, sys.argv[1:4])
    resource.setrlimit(resource.RLIMIT_AS, (megabytes << 20, megabytes << 20))
    print(json.dumps(fuzz(wanted, chosen)))
