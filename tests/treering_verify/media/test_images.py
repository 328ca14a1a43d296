"""From image files to tensors: invariants, real formats, and hostile input."""

from __future__ import annotations

import os
import pickle
import struct
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.hostile.files import FORMATS
from helpers.images import array, encoded, png, smooth
from helpers.places import ROOT
from PIL import Image, ImageFile

from treering_verify.errors import ImageError, ModelError, TreeringError, UsageError
from treering_verify.media import decoder_limits, images
from treering_verify.media import formats as formats_module
from treering_verify.media.conversion import fit, save_png, to_pil, to_tensor
from treering_verify.media.images import open_image, read_bytes


def code_of(source: object) -> str:
    with pytest.raises(ImageError) as caught:
        open_image(source)  # type: ignore[arg-type]
    assert caught.value.code in images.CODES
    return caught.value.code


# --- hostile files ----------------------------------------------------------------------------------------------------


def textured() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8))


@pytest.mark.parametrize("kind", FORMATS)
def test_a_truncated_file_decodes_fully_or_says_so_or_is_refused(kind: str) -> None:
    format_name, options = FORMATS[kind]
    data = encoded(textured(), format_name, **options)
    whole = array(open_image(data))
    refused, completed = 0, 0
    for length in {*range(0, len(data), max(1, len(data) // 100)), *range(1, 40), *range(len(data) - 20, len(data))}:
        try:
            image = open_image(data[:length])
            missing = image.info.get("cut_short", 0.0)
            assert missing <= 0.5 and array(image).shape == whole.shape
            completed += "cut_short" in image.info
            there = max(
                0, round(len(whole) * (1 - missing)) - ("cut_short" in image.info)
            )  # the last row may be half there
            if format_name in ("WEBP", "AVIF") and "cut_short" in image.info:
                there = max(0, there - 16)  # a block's last bits may be missing
            shown, all_of_it = (array(image)[::-1], whole[::-1]) if kind == "bmp" else (array(image), whole)
            if (
                format_name not in ("JPEG", "GIF") or "cut_short" not in image.info
            ):  # JPEG smooths over the edge, or refines the whole; a GIF is interlaced
                assert (shown[:there] == all_of_it[:there]).all()
        except ImageError as error:
            assert error.code in ("empty", "not_an_image", "cut_short", *(["corrupt"] if length < 100 else []))
            refused += 1
    assert refused > (50 if completed else 100)
    assert bool(completed) == (not kind.startswith("tiff "))  # Pillow writes their directory at the end
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


@pytest.mark.parametrize("kind", FORMATS)
def test_damaged_bytes_never_raise_anything_else(kind: str) -> None:
    format_name, options = FORMATS[kind]
    data = np.frombuffer(encoded(textured(), format_name, **options), np.uint8)
    generator = np.random.default_rng(1)
    for _ in range(60):
        damaged = data.copy()
        where = generator.integers(0, min(len(data), generator.choice([40, 200, len(data)])), 4)
        damaged[where] = generator.integers(0, 256, 4)
        try:
            assert open_image(damaged.tobytes()).mode == "RGB"
        except ImageError as error:
            assert error.code in images.CODES


def test_what_is_no_image_is_named_so() -> None:
    generator = np.random.default_rng(2)
    for length in (1, 2, 16, 1000):
        assert code_of(b"\0" + generator.bytes(length)) == "not_an_image"
    for byte in range(256):
        assert code_of(bytes([byte])) in ("not_an_image", "corrupt", "cut_short")
    assert code_of(b"Dear sir or madam,\n") == "not_an_image"
    assert code_of(b"The free lunch\n") == "not_an_image"
    assert code_of(b"<!DOCTYPE html><html><svg/></html>") == "not_an_image"
    assert code_of(b"<svg xmlns='http://www.w3.org/2000/svg'/>") == "unread_format"
    assert code_of(b"\x89PNG\r\n\x1a\n") == "cut_short"
    assert code_of(b"") == "empty"


@pytest.mark.parametrize("suffix", ["ico", "tga", "jp2", "psd", "dds"])
def test_formats_that_pillow_reads_safely_are_read(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x.{suffix}"
    if suffix == "psd":
        path.write_bytes(flat_psd(smooth()))
    else:
        smooth().save(path)
    assert open_image(path).size == (smooth().size if suffix != "ico" else (32, 27))
    if suffix != "tga":  # only its name tells an old one
        assert open_image(path.read_bytes()).size == open_image(path).size


def flat_psd(image: Image.Image) -> bytes:
    """Return a Photoshop file of one flat RGB image, without compression (Adobe's file format specification)."""
    header = b"8BPS\0\1" + b"\0" * 6 + struct.pack(">HIIHH", 3, image.height, image.width, 8, 3)
    planes = b"".join(channel.tobytes() for channel in image.split())
    return header + b"\0" * 12 + b"\0\0" + planes


@pytest.mark.parametrize(("format_name", "suffix"), [("HEIF", "heic"), ("JXL", "jxl")])
def test_formats_of_the_extra_are_read(format_name: str, suffix: str, tmp_path: Path) -> None:
    formats_module.register()
    path = tmp_path / f"x.{suffix}"
    smooth().resize((64, 48)).save(path, format=format_name, quality=95)
    found = open_image(path)
    assert found.size == (64, 48)
    assert abs(array(found).astype(int) - array(smooth().resize((64, 48)))).mean() < 4


@pytest.mark.parametrize(
    ("data", "code", "word"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "unread_format", "HEIF"),
        (b"\xff\x0a\xfa\x7f", "unread_format", "JPEG XL"),
        (b"%PDF-1.7\n", "container", "PDF"),
        (b"PK\3\4" + b"\0" * 30, "container", "ZIP"),
        (b"name" + b"\0" * 253 + b"ustar\00000", "container", "tar"),
        (b"\0\0\0\x18ftypisom\0\0\0\0isom", "video_file", "MP4"),
        (b"\x76\x2f\x31\x01" + b"\0" * 20, "unread_format", "OpenEXR"),
        (b"\x8aMNG\r\n\x1a\n", "unread_format", "MNG"),
        (b"\0\0\2\0\1\0" + b"\0" * 20, "unread_format", "cursor"),
        (b"8BPS\0\2" + b"\0" * 20, "unread_format", "PSB"),
        (b"8BPS\0\1" + b"\0" * 6 + struct.pack(">HIIHH", 3, 9, 9, 16, 3), "unread_format", "16 bits"),
        (b"PF\n9 9\n-1.0\n", "unread_format", "PFM"),
        (b"P7\nWIDTH 9\n", "unread_format", "PAM"),
        (b"\n\5\1\x08" + b"\0" * 124, "unread_format", "PCX"),
        (b"#define a_width 8\n", "unread_format", "XBM"),
        (b"\1\0\0\0" + b"\0" * 36 + b" EMF", "unread_format", "metafile"),
        (b"<!-- by hand -->\n<svg/>", "unread_format", "SVG"),
        (b"<?xml version='1.0'?><!--" + b"x" * 900 + b"--><svg/>", "unread_format", "SVG"),
        ("\ufeff<svg/>".encode("utf-16-le"), "unread_format", "SVG"),
        (b"\0\0\0\x18ftypavci\0\0\0\0mif1", "unread_format", "HEVC"),
        (b"\0\0\0\x08wide\0\0\0\0mdat", "video_file", "MOV"),
        (b"RIFF\0\0\0\0AVI LIST", "video_file", "AVI"),
        (b"PK\5\6" + b"\0" * 18, "container", "empty ZIP"),
        (b"ARROW1\0\0", "container", "Arrow"),
        (b"\0\0\0\x18ftypisom\0\0\0\0isom", "video_file", "this is an MP4"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "not_an_image", "git lfs pull"),
        (b"data:image/png;base64,iVBORw0KGgo=", "not_an_image", "data URL"),
        (b"iVBORw0KGgoAAAANSUhEUgAA", "not_an_image", "PNG in base64"),
        (b"/9j/4AAQSkZJRgABAQ", "not_an_image", "JPEG in base64"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n\r\n", "not_an_image", "body alone"),
        (b"\0\5\x16\7\0\2\0\0Mac OS X" + b"\0" * 40, "not_an_image", "companion file"),
        (bytes(1000), "not_an_image", "begins with zero bytes"),
        (png(8, 8, 8, 2, bytes(25 * 8)).replace(b"\n", b"\r\n"), "corrupt", "a damaged PNG: a transfer as text"),
        (png(8, 8, 8, 2, bytes(25 * 8)).replace(b"\r\n", b"\n"), "corrupt", "a damaged PNG: a transfer as text"),
        (encoded(smooth(), "JPEG").decode("latin-1").encode(), "corrupt", "a damaged JPEG: a transfer as text"),
        (encoded(smooth(), "JPEG").decode(errors="replace").encode(), "corrupt", "a damaged JPEG: a transfer as text"),
        (encoded(smooth(), "PNG").decode(errors="replace").encode(), "corrupt", "a damaged PNG: a transfer as text"),
    ],
)
def test_what_is_not_read_is_named(data: bytes, code: str, word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats_module, "find_spec", lambda name: None)  # as without the extra
    formats_module.decoded_formats.cache_clear()
    try:
        with pytest.raises(ImageError, match=word) as error:
            open_image(data)
        assert error.value.code == code and code in images.CODES
    finally:
        formats_module.decoded_formats.cache_clear()


def test_paths_without_an_image_file_are_refused_without_blocking(tmp_path: Path) -> None:
    assert code_of(tmp_path / "nowhere.png") == "not_found"
    assert code_of("with\0nul.png") == "not_found"
    assert code_of(tmp_path) == "not_a_file"
    assert code_of("/dev/zero") == "not_a_file"
    os.mkfifo(tmp_path / "fifo.png")
    worker = threading.Thread(target=lambda: codes.append(code_of(tmp_path / "fifo.png")), daemon=True)
    codes: list[str] = []
    worker.start()
    worker.join(5)
    assert codes == ["not_a_file"]
    (tmp_path / "empty.png").touch()
    assert code_of(tmp_path / "empty.png") == "empty"
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert code_of(tmp_path / "loop") == "not_readable"
    smooth().save(tmp_path / "file.png")
    assert code_of(tmp_path / "file.png" / "below") == "not_found"
    (tmp_path / "link").symlink_to(tmp_path / "file.png")
    assert open_image(tmp_path / "link").size == (48, 40)


def test_a_file_over_the_size_limit_is_refused_by_its_size(tmp_path: Path) -> None:
    path = tmp_path / "sparse.png"
    path.touch()
    os.truncate(path, images.MAX_BYTES + 1)
    assert code_of(path) == "too_large_file"
    with pytest.raises(ImageError):
        read_bytes(path)


def test_too_many_pixels_are_refused_from_the_header(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("decoded")

    for side in (8001, 9400, 50_000):  # above our limit, Pillow's warning and Pillow's error
        with monkeypatch.context() as patch, warnings.catch_warnings():
            warnings.simplefilter("error")
            patch.setattr(ImageFile.ImageFile, "load", fail)
            assert code_of(png(side, side, 8, 2, b"")) == "too_many_pixels"


def test_limits_are_inclusive(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(smooth(48, 40), "PNG")
    monkeypatch.setattr(decoder_limits, "MAX_PIXELS", 48 * 40)
    monkeypatch.setattr(images, "MAX_BYTES", len(data))
    assert open_image(data).size == (48, 40)
    monkeypatch.setattr(decoder_limits, "MAX_PIXELS", 48 * 40 - 1)
    assert code_of(data) == "too_many_pixels"
    assert code_of(smooth(48, 40)) == "too_many_pixels"
    monkeypatch.setattr(images, "MAX_BYTES", len(data) - 1)
    assert code_of(data) == "too_large_file"
    assert open_image(smooth(8, 8)).size == (8, 8)
    assert code_of(smooth(7, 48)) == "too_small"


def test_warnings_of_pillow_neither_surface_nor_change_the_callers_filters() -> None:
    data = encoded(Image.new("P", (16, 16)), "PNG", transparency=bytes([1, 2]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        before = list(warnings.filters)
        threads = [threading.Thread(target=lambda: [open_image(data) for _ in range(20)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert list(warnings.filters) == before


def test_messages_hold_no_control_characters(tmp_path: Path) -> None:
    path = tmp_path / "a\x1b[31m\u202egnp\n.png"
    path.write_bytes(b"text")
    with pytest.raises(ImageError) as caught:
        open_image(path)
    assert str(caught.value).isprintable()
    assert caught.value.reason == images.CODES["not_an_image"]
    bad_bytes = os.fsencode(tmp_path) + b"/\xff.png"
    assert code_of(os.fsdecode(bad_bytes)) == "not_found"


def test_image_errors_survive_pickling() -> None:
    error = pickle.loads(pickle.dumps(ImageError("empty", "the reason", "a.png")))
    assert isinstance(error, TreeringError)
    assert (error.code, error.reason, str(error)) == ("empty", "the reason", "a.png: the reason")


def test_importing_the_module_imports_neither_torch_nor_pillow() -> None:
    script = (
        "import sys, treering_verify.media.images, treering_verify.attacks; "
        "sys.exit(bool({'torch', 'PIL', 'numpy'} & set(sys.modules)))"
    )
    root = ROOT
    assert subprocess.run([sys.executable, "-c", script], cwd=root, check=False).returncode == 0


# --- tensors ----------------------------------------------------------------------------------------------------------


def test_the_round_trip_is_the_identity_on_all_values() -> None:
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    image = Image.fromarray(np.stack([values, values[::-1], values.T], axis=-1))
    tensor = to_tensor(image)
    assert tensor.shape == (1, 3, 16, 16)
    assert tensor.dtype == torch.float32
    assert (tensor.min().item(), tensor.max().item()) == (-1.0, 1.0)
    assert torch.equal(tensor[0, 0].flatten(), torch.arange(256).float() / 127.5 - 1.0)
    assert array(to_pil(tensor)).tolist() == array(image).tolist()
    assert array(to_pil(tensor[0].double())).tolist() == array(image).tolist()
    assert array(to_pil(tensor.half())).tolist() == array(image).tolist()


def test_to_pil_clamps_and_rounds_half_to_even() -> None:
    x = np.random.default_rng(0).normal(0, 1, (3, 16, 16)).astype(np.float32)
    x[:, 0, :4] = [0.0, 2.0**-7, -40.0, 40.0]  # 127.5, a tie; 128.496; both ends
    expected = np.rint((x.clip(-1, 1) + np.float32(1)) * np.float32(127.5)).astype(int)
    assert expected[0, 0, :4].tolist() == [128, 128, 0, 255]
    assert (array(to_pil(torch.from_numpy(x))) == expected.transpose(1, 2, 0)).all()


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (1, 1, 8, 8), (8, 8, 3), (8, 8)])
def test_to_pil_names_the_shape_it_refuses(shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match=r"\(1, 3, H, W\)"):
        to_pil(torch.zeros(shape))


def test_unusable_values_and_modes_are_refused() -> None:
    for bad in (float("nan"), float("inf")):
        with pytest.raises(ModelError, match="float32"):
            to_pil(torch.full((3, 8, 8), bad))
    with pytest.raises(UsageError, match="open_image"):
        to_tensor(Image.new("L", (8, 8)))


# --- fit --------------------------------------------------------------------------------------------------------------


def test_fit_leaves_the_right_size_alone() -> None:
    image = smooth(48, 40)
    fitted, note = fit(image, (40, 48))
    assert fitted is image
    assert note == ""


@pytest.mark.parametrize(
    ("given", "size", "note"),
    [
        ((64, 48), (24, 32), "resized 64x48 -> 32x24"),
        ((16, 12), (24, 32), "resized 16x12 -> 32x24"),
        ((683, 512), (384, 512), "resized 683x512 -> 512x384"),
        ((64, 48), (24, 24), "cropped 64x48 -> 48x48, resized 48x48 -> 24x24"),
        ((48, 64), (24, 24), "cropped 48x64 -> 48x48, resized 48x48 -> 24x24"),
        ((64, 48), (48, 48), "cropped 64x48 -> 48x48"),
        ((2000, 8), (32, 8), "cropped 2000x8 -> 2x8, resized 2x8 -> 8x32"),
    ],
)
def test_fit_gives_the_size_and_says_how(given: tuple[int, int], size: tuple[int, int], note: str) -> None:
    fitted, said = fit(smooth(*given), size)
    assert fitted.size == size[::-1]
    assert said == note


def test_fit_crops_the_centre_and_averages_when_it_shrinks() -> None:
    image = Image.new("RGB", (64, 32), "red")
    image.paste("white", (16, 0, 48, 32))
    assert array(fit(image, (32, 32))[0]).min() == 255
    checks = Image.fromarray((np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)).convert("RGB")
    assert np.abs(array(fit(checks, (8, 8))[0]) - 127.5).max() < 8
    with pytest.raises(UsageError):
        fit(image, (0, 8))


# --- writing ----------------------------------------------------------------------------------------------------------


def test_png_and_its_metadata_are_read_back(tmp_path: Path) -> None:
    path = tmp_path / "out.png"
    save_png(smooth(), path, {"key": "abc", "prompt": "图 naïve"})
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert image.info == {"key": "abc", "prompt": "图 naïve"}
    assert array(open_image(path)).tolist() == array(smooth()).tolist()
    save_png(smooth(16, 16), path)
    assert open_image(path).size == (16, 16)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("metadata", [{"": "x"}, {"k" * 80: "x"}, {"a\0b": "x"}, {"图": "x"}, {"key": "a\0b"}])
def test_metadata_that_png_cannot_hold_is_refused(metadata: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="PNG metadata"):
        save_png(smooth(), tmp_path / "x.png", metadata)
    assert not list(tmp_path.iterdir())
