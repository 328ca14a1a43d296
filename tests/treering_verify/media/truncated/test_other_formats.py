"""WebP, AVIF, HEIC, JPEG 2000, compressed TIFF, PNM, DDS, PSD and icons that were cut short are judged by what is left."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from helpers.images import array, encoded
from PIL import Image

from treering_verify.cli.main import main
from treering_verify.errors import ImageError
from treering_verify.generation.generator import generate
from treering_verify.media.conversion import fit
from treering_verify.media.formats import register
from treering_verify.media.images import open_image
from treering_verify.media.isolation.decoding import decode_frames, decode_image
from treering_verify.media.truncated.ends import ends_early
from treering_verify.models import load_model
from treering_verify.watermark.keys.key import Key

SIZE = (256, 192)
TURNED = b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0"


def textured() -> Image.Image:
    generator = np.random.default_rng(0)
    y, x = np.mgrid[: SIZE[1], : SIZE[0]]
    waves = np.stack([128 + 80 * np.sin(x / 17 + y / 29), 128 + 90 * np.cos(x / 40 - y / 11), x * y / 300 % 255], -1)
    return Image.fromarray(np.clip(waves + generator.normal(0, 8, waves.shape), 0, 255).astype(np.uint8))


WHOLE = textured()


def webp(**options: object) -> bytes:
    return encoded(WHOLE, "WEBP", **options)


def heic() -> bytes:
    pytest.importorskip("pillow_heif")
    register()
    return encoded(WHOLE, "HEIF")


def tiff(**options: object) -> bytes:
    """Return a TIFF whose directory comes first, as tifffile writes it."""
    tifffile = pytest.importorskip("tifffile")
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, np.asarray(WHOLE), photometric="rgb", compression="zlib", **options)
    return buffer.getvalue()


def plain_text() -> bytes:
    return b"P3\n%d %d\n255\n" % SIZE + b" ".join(b"%d" % value for value in np.asarray(WHOLE).ravel())


def bits() -> bytes:
    grey = np.asarray(WHOLE.convert("L")) > 128
    return b"P1\n%d %d\n" % SIZE + b"\n".join(b" ".join(b"%d" % bit for bit in row) for row in grey)


def psd(packed: bool) -> bytes:
    """Return a flat PSD, its planes one after another, packed in runs (of 128 bytes as they are) or not."""
    planes = np.moveaxis(np.asarray(WHOLE), -1, 0)
    head = b"8BPS" + struct.pack(">H6xHLLHHLLLH", 1, 3, *SIZE[::-1], 8, 3, 0, 0, 0, packed)
    if not packed:
        return head + planes.tobytes()
    rows = planes.reshape(-1, SIZE[0] // 128, 128)
    runs = np.concatenate([np.full((*rows.shape[:2], 1), 127, np.uint8), rows], -1)
    return head + struct.pack(">H", runs[0].size) * len(runs) + runs.tobytes()


ROWS: dict[str, Callable[[], bytes]] = {
    "webp": webp,
    "webp lossless": lambda: webp(lossless=True),
    "avif": lambda: encoded(WHOLE, "AVIF"),
    "heic": heic,
    "tiff in strips": lambda: tiff(rowsperstrip=8),
    "pnm of 16 bits": lambda: b"P6\n%d %d\n65535\n" % SIZE + (np.asarray(WHOLE).astype(">u2") * 257).tobytes(),
    "pnm in ascii": plain_text,
    "pbm in ascii": bits,
    "psd": lambda: psd(packed=False),
    "psd in runs": lambda: psd(packed=True),
    "dds": lambda: encoded(WHOLE, "DDS"),
    "dds in blocks": lambda: encoded(WHOLE, "DDS", pixel_format="DXT1"),
    "icon": lambda: encoded(WHOLE, "ICO", sizes=[(64, 48), SIZE]),
}


@pytest.mark.parametrize("kind", ROWS)
def test_rows_that_are_there_are_read_and_the_others_are_grey_and_counted(kind: str) -> None:
    data = ROWS[kind]()
    whole = array(open_image(data))
    cut = data[: int(0.85 * len(data))]
    assert ends_early(cut, ValueError("pixels are missing")) and not ends_early(data)
    image = open_image(cut)
    missing = image.info["cut_short"]
    there = round((1 - missing) * len(whole)) - 1
    assert 0.1 < missing < 0.5 and image.size == SIZE
    assert (array(image)[:there] == whole[:there]).all()
    assert len(np.unique(array(image)[there + 2 :].reshape(-1, 3), axis=0)) == 1  # one colour, which is masked
    assert fit(image, SIZE[::-1])[1] == f"cut short: {missing:.0%} of the image is missing"
    again = decode_image(cut)  # by a process
    assert (array(again) == array(image)).all() and again.info["cut_short"] == missing


@pytest.mark.parametrize("kind", [*ROWS, "jpeg 2000"])
def test_with_too_little_left_the_refusal_says_that_the_file_was_cut_short(kind: str) -> None:
    data = ROWS[kind]() if kind in ROWS else encoded(WHOLE, "JPEG2000")
    for share in (0.2, 0.4):
        with pytest.raises(ImageError, match=r"cut short.* copy or download it again") as caught:
            open_image(data[: int(share * len(data))])
        assert caught.value.code == "cut_short" and "damaged" not in caught.value.reason


def test_a_tiff_without_its_directory_and_an_icon_without_its_mask_are_refused_as_cut_short() -> None:
    icon = encoded(WHOLE, "ICO", sizes=[SIZE], bitmap_format="bmp")
    for data in (encoded(WHOLE, "TIFF", compression="tiff_lzw"), icon):
        with pytest.raises(ImageError) as caught:
            open_image(data[: int(0.9 * len(data))])
        assert caught.value.code == "cut_short" and "too little of the image can be read" in caught.value.reason


def test_whole_tiles_of_a_tiff_are_shown_and_the_image_is_turned_upright() -> None:
    data = tiff(tile=(64, 64), extratags=[(274, "H", 1, 6, True)])
    whole = array(open_image(data))
    image = open_image(data[: int(0.85 * len(data))])
    assert image.size == SIZE[::-1] and image.info["cut_short"] == pytest.approx(2 / 12)
    same = (array(image) == whole).all(axis=2)
    assert same.mean() == pytest.approx(10 / 12, abs=0.01)


@pytest.mark.parametrize("options", [{}, {"tile_size": (64, 64)}, {"irreversible": True, "no_jp2": True}])
def test_a_jpeg_2000_is_less_sharp_where_its_data_are_missing(options: dict[str, object]) -> None:
    data = encoded(WHOLE, "JPEG2000", **options)
    whole = array(open_image(data))
    image = open_image(data[: int(0.8 * len(data))])
    assert 0.15 < image.info["cut_short"] < 0.25
    assert fit(image, SIZE[::-1])[1].startswith("cut short: 20% of its data are missing")
    assert abs(array(image) - whole).mean() < 16
    if "tile_size" in options:  # tiles that are there are whole
        assert (array(image)[:128] == whole[:128]).all()


def test_a_webp_without_its_last_chunks_has_all_of_its_pixels() -> None:
    data = webp(exif=TURNED, xmp=b"x" * 5000)
    image = open_image(data[:-3000])
    assert (array(image) == array(open_image(data))).all()
    assert "cut_short" not in image.info
    assert fit(image, image.size[::-1])[1] == "the end of the file is missing, and all rows are there"


def test_a_webp_that_names_another_length_has_all_of_its_pixels() -> None:
    data = webp(lossless=True)
    for wrong in (data[:4] + struct.pack("<L", len(data) + 92) + data[8:], webp(lossless=True, xmp=b"x" * 10)[:-15]):
        assert (array(open_image(wrong)) == array(WHOLE)).all()


def of_length(data: bytes, length: int) -> bytes:
    """Return a WebP whose header says that the file has this length."""
    return data[:4] + struct.pack("<L", length - 8) + data[8:]


def test_a_webp_that_ends_within_its_metadata_by_its_own_header_is_judged() -> None:
    data = webp(exif=TURNED, xmp=b"x" * 5000)
    whole, exif, xmp = array(open_image(data)), data.index(b"EXIF"), data.index(b"XMP ")
    for end in (exif + 4, exif + 20, exif + 33, xmp + 3, xmp + 900, len(data) - 1, 600, 8):
        image = open_image(of_length(data, end))
        assert (array(image) == whole).all() and "cut_short" not in image.info
        assert image.info["file_note"] == "the header says too small a length of the file, and all rows are there"
    for end in (xmp + 900, len(data) - 2):  # and nothing follows
        image = open_image(of_length(data, end)[:end])
        assert (array(image) == whole).all()
        assert image.info["file_note"] == "the end of the file is missing, and all rows are there"
    image = open_image(of_length(data, 600) + b"what was appended: 12345")
    assert (array(image) == whole).all()
    assert 0.05 < open_image(of_length(data, exif - 900)[: exif - 900]).info["cut_short"] < 0.2


def test_frames_of_a_webp_that_ends_within_its_metadata_are_whole() -> None:
    data = webp(save_all=True, append_images=[WHOLE.rotate(180)], exif=TURNED)
    exif = data.index(b"EXIF")
    for broken, said in (
        (of_length(data, exif + 12), "the header says too small a length of the file, and all frames are there"),
        (of_length(data, exif + 12)[: exif + 12], "the end of the file is missing, and all frames are there"),
        (data[: exif + 12], "the end of the file is missing, and all frames are there"),
    ):
        found = decode_frames(broken)
        assert [frame.number for frame in found.frames] == [1, 2] and found.total == 2
        assert {frame.image.info["file_note"] for frame in found.frames} == {said}


def test_large_images_are_not_decoded_three_times(monkeypatch: pytest.MonkeyPatch) -> None:
    data = webp(lossless=True)
    monkeypatch.setattr("treering_verify.media.truncated.padding.MOST_PIXELS", SIZE[0] * SIZE[1] - 1)
    with pytest.raises(ImageError) as caught:
        open_image(data[: int(0.9 * len(data))])
    assert caught.value.code == "cut_short"


def test_a_text_chunk_says_nothing_of_what_is_missing() -> None:
    from PIL.PngImagePlugin import PngInfo

    text = PngInfo()
    text.add_text("cut_short", "1.0")
    text.add_text("file_note", "cut short: all of it")
    opened = Image.open(io.BytesIO(encoded(WHOLE, "PNG", pnginfo=text)))
    opened.load()
    assert fit(open_image(opened), SIZE[::-1])[1] == ""


def test_a_mark_is_found_in_a_webp_that_was_cut_short(tmp_path: Path) -> None:
    model = load_model("landscape")
    key = Key.generate(model.latent_shape, name="mark", seed=1)
    (made,) = generate(model, key, seeds=[1])
    for name, options in (("x.webp", {"lossless": True}), ("x.jp2", {})):
        data = encoded(made.image, {"webp": "WEBP", "jp2": "JPEG2000"}[name[2:]], **options)
        (tmp_path / name).write_bytes(data[: int(0.8 * len(data))])
    key.save(tmp_path / "key.json")
    command = ["verify", str(tmp_path / "x.webp"), str(tmp_path / "x.jp2"), "--key", str(tmp_path / "key.json")]
    result = CliRunner().invoke(main, [*command, "--format", "json"])
    assert result.exit_code == 0, result.output
    for record in json.loads(result.stdout):
        assert record["verdict"] == "detected" and record["note"].startswith("cut short: 2"), record
