"""What would cost a decoder minutes is read otherwise, or refused before it is opened."""

from __future__ import annotations

import io
import tracemalloc

import numpy as np
import pytest
from helpers.hostile import slow_files
from helpers.hostile.files import chunk, samples, segment
from helpers.images import encoded, smooth
from PIL import BmpImagePlugin, DdsImagePlugin, Image, PpmImagePlugin

from treering_verify.errors import ImageError
from treering_verify.media.array_decoders import decoded_quickly
from treering_verify.media.decoder_limits import MAX_PARTS, MAX_SECONDS, estimated_seconds
from treering_verify.media.formats import decoded_formats, register
from treering_verify.media.headers.declared_sizes import count_jpeg2000, declared_pixels
from treering_verify.media.headers.part_counts import count_parts
from treering_verify.media.images import open_image

WIDTH, HEIGHT = 37, 21
MASKS = [
    (16, (0xF800, 0x7E0, 0x1F, 0)),
    (24, (0xFF0000, 0xFF00, 0xFF, 0)),
    (32, (0xFF, 0xFF00, 0xFF0000, 0)),
    (16, (0xF00, 0xF0, 0xF, 0xF000)),
    (32, (0xFF0000, 0xFF00, 0xFF, 0xFF000000)),
]


def spelled() -> dict[str, bytes]:
    """Return files that Pillow decodes value by value."""
    generator = np.random.default_rng(0)
    files = {}
    for most in (1, 7, 100, 254, 1000, 65534, 65535):
        kind = np.dtype(np.uint8 if most < 256 else ">u2")
        for name, bands in ((b"P5", 1), (b"P6", 3)):
            values = generator.integers(0, most + 1, WIDTH * HEIGHT * bands)
            head = b" %d %d %d\n" % (WIDTH, HEIGHT, most)
            files[f"{name!r} {most}"] = name + head + values.astype(kind).tobytes()
            files[f"plain {name!r} {most}"] = (
                {b"P5": b"P2", b"P6": b"P3"}[name] + head + b"\n#x 12\r\t".join(b"%d" % value for value in values)
            )
    bits = generator.integers(0, 2, WIDTH * HEIGHT)
    files["P1"] = b"P1 %d %d\n" % (WIDTH, HEIGHT) + b"".join(b"1#c\n" if bit else b"0 " for bit in bits)
    for size, masks in MASKS:
        pixels = generator.bytes(WIDTH * HEIGHT * size // 8)
        files[f"dds {size} {masks}"] = slow_files.dds((WIDTH, HEIGHT), size, masks, pixels)
    return files


def test_pixels_that_numpy_decodes_are_those_of_pillow() -> None:
    seen = 0
    for name, data in spelled().items():
        image = Image.open(io.BytesIO(data))
        found = decoded_quickly(image, data)
        assert found is not None, name
        seen += 1
        image.load()
        assert (found.mode, found.size) == (image.mode, image.size), name
        assert np.array_equal(np.asarray(found), np.asarray(image)), name
    assert seen == 34


def test_pillow_decodes_no_value_in_python(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> tuple[int, int]:
        raise AssertionError("value by value")

    for decoder in (PpmImagePlugin.PpmDecoder, PpmImagePlugin.PpmPlainDecoder, DdsImagePlugin.DdsRgbDecoder):
        monkeypatch.setattr(decoder, "decode", refuse)
    for name, data in spelled().items():
        assert open_image(data).size == (WIDTH, HEIGHT), name
    monkeypatch.setattr(BmpImagePlugin.BmpRleDecoder, "decode", refuse)
    with pytest.raises(ImageError, match="AssertionError"):  # so the decoders are those that Pillow uses
        open_image(slow_files.bmp_rle(16))


@pytest.mark.parametrize("change", ["letters", "too large"])
def test_numbers_that_are_none_make_an_image_corrupt(change: str) -> None:
    data = b"P2 16 16 99\n" + b"7 " * 256
    damaged = {"letters": data.replace(b"7", b"x", 9), "too large": data[:-3] + b"1234567890123 7 7"}
    assert open_image(data).size == (16, 16)
    with pytest.raises(ImageError) as caught:
        open_image(damaged[change])
    assert caught.value.code == "corrupt"


def test_what_is_split_between_parts_of_a_text_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    data = b"P2 16 16 65535\n# twelve\n" + b"12345 # seven\n" * 256
    for size in range(1, 20):
        monkeypatch.setattr("treering_verify.media.array_decoders._STRIP", size)
        found = decoded_quickly(Image.open(io.BytesIO(data)), data)
        assert found is not None and (np.asarray(found) == 12345).all()


def test_files_that_would_cost_minutes_are_refused_by_name() -> None:
    register()
    for case in slow_files.slow():
        if case.name.endswith("jxl") and "JXL" not in decoded_formats():
            continue
        with pytest.raises(ImageError) as caught:
            open_image(case.data)
        assert caught.value.code in case.codes, case.name


def test_files_of_programs_are_far_from_the_limits() -> None:
    image = smooth(512, 512)
    frames = [smooth(64, 64).rotate(10 * i) for i in range(30)]
    files = {
        "gif": encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "strips": encoded(image, "TIFF", tiffinfo={278: 1}),
        "deflate": encoded(image, "TIFF", compression="tiff_adobe_deflate"),
        "jp2": encoded(image, "JPEG2000"),
        "j2k": encoded(image, "JPEG2000", no_jp2=True),
        "tiled jp2": encoded(image, "JPEG2000", tile_size=(64, 64), codeblock_size=(16, 16), precinct_size=(32, 32)),
        "tiles": slow_files.tiled_tiff(256, 16, 256),
    }
    for name, data in (samples() | files).items():
        assert count_parts(data, MAX_PARTS) < 2000, name
        assert open_image(data)
    assert count_parts(files["gif"], MAX_PARTS) >= 60 and count_parts(files["tiles"], MAX_PARTS) >= 256
    assert count_jpeg2000(files["tiled jp2"], MAX_PARTS) >= 64


def test_declared_sizes_are_those_that_pillow_reads() -> None:
    register()
    kinds = ["WEBP", "ICO", *(["JXL"] if "JXL" in decoded_formats() else [])]
    for size in ((16, 16), (24, 40), (256, 8), (200, 113)):
        for kind in kinds:
            options = [{}, {"lossless": True}] if kind != "ICO" else [{}, {"bitmap_format": "bmp"}]
            for option in options:
                image = smooth(*size) if kind != "ICO" else smooth(32, 32)
                data = encoded(image, kind, **option)
                with Image.open(io.BytesIO(data)) as opened:
                    wide = 2 if option.get("bitmap_format") else 1  # a bitmap in an ICO has a mask as high as itself
                    assert declared_pixels(data) == opened.width * opened.height * wide, (kind, size, option)


def test_slow_formats_have_an_estimate_by_their_size() -> None:
    with Image.open(io.BytesIO(encoded(smooth(64, 64), "JPEG2000"))) as image:
        assert 0 < estimated_seconds(image, 10_000) < 0.01
        assert estimated_seconds(image, 40_000_000) > MAX_SECONDS
    with Image.open(io.BytesIO(encoded(smooth(64, 64), "PNG"))) as image:
        assert estimated_seconds(image, 100_000_000) == 0


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG"])
def test_exif_that_lists_the_same_bytes_again_and_again_costs_no_memory(kind: str) -> None:
    plain, exif = encoded(smooth(32, 32), kind), slow_files.repeating_exif()
    if kind == "PNG":
        data = plain[:33] + chunk(b"eXIf", exif) + plain[33:]
    elif kind == "WEBP":
        data = encoded(smooth(32, 32), kind, exif=b"Exif\0\0" + exif)
    else:
        data = plain[:2] + segment(0xE1, b"Exif\0\0" + exif) + plain[2:]
    tracemalloc.start()
    try:
        assert open_image(data).size == (32, 32)
        assert tracemalloc.get_traced_memory()[1] < 20 << 20
    finally:
        tracemalloc.stop()
