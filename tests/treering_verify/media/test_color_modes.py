"""Every mode, alpha, profile, orientation and frame, in a real format that carries it."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from helpers.images import array, encoded, png, smooth
from PIL import Image, ImageCms

from treering_verify.errors import ImageError
from treering_verify.media import images
from treering_verify.media.images import (
    open_image,
)


def code_of(source: object) -> str:
    with pytest.raises(ImageError) as caught:
        open_image(source)  # type: ignore[arg-type]
    assert caught.value.code in images.CODES
    return caught.value.code


# --- every mode, in a real format that carries it ---------------------------------------------------------------------

GREY = smooth().convert("L")
CASES = {
    "1.png": (GREY.convert("1"), 0),
    "L.png": (GREY, 0),
    "L.pgm": (GREY, 0),
    "LA.png": (Image.merge("LA", [GREY, Image.new("L", GREY.size, 255)]), 0),
    "La.tiff": (Image.merge("LA", [GREY, Image.new("L", GREY.size, 255)]).convert("La"), 0),
    "P.png": (smooth().quantize(64), 0),
    "P.gif": (smooth().quantize(64), 0),
    "PA.tiff": (smooth().quantize(64).convert("PA"), 0),
    "RGB.png": (smooth(), 0),
    "RGB.bmp": (smooth(), 0),
    "RGB.ppm": (smooth(), 0),
    "RGB.tiff": (smooth(), 0),
    "RGB.jpg": (smooth(), 12),
    "RGB.webp": (smooth(), 16),
    "RGB.avif": (smooth(), 16),
    "RGBA.png": (smooth().convert("RGBA"), 0),
    "RGBA.webp": (smooth().convert("RGBA"), 16),
    "RGBa.tiff": (smooth().convert("RGBa"), 0),
    "RGBX.tiff": (smooth().convert("RGBX"), 0),
    "CMYK.tiff": (smooth().convert("CMYK"), 1),
    "CMYK.jpg": (smooth().convert("CMYK"), 12),
    "YCbCr.tiff": (smooth().convert("YCbCr"), 3),
}


@pytest.mark.parametrize("name", CASES)
def test_every_mode_is_converted_to_the_rgb_image_it_displays(name: str, tmp_path: Path) -> None:
    image, tolerance = CASES[name]
    path = tmp_path / name
    save = image.convert("RGBA") if name == "RGBa.tiff" else image.convert("LA") if name == "La.tiff" else image
    save.save(path)
    expected = image.convert("LA").convert("RGB") if image.mode == "La" else image.convert("RGBA").convert("RGB")
    if image.mode in ("CMYK", "YCbCr", "PA"):
        expected = image.convert("RGB")
    for opened in (open_image(path), open_image(str(path)), open_image(path.read_bytes())):
        assert opened.mode == "RGB"
        assert np.abs(array(opened) - array(expected)).max() <= tolerance
    assert np.abs(array(open_image(image)) - array(expected)).max() <= tolerance
    assert array(open_image(opened)).tolist() == array(opened).tolist()


@pytest.mark.parametrize("mode", ["HSV", "YCbCr", "RGBa", "La", "RGBX", "LAB"])
def test_modes_that_files_rarely_carry_are_converted(mode: str) -> None:
    if mode == "LAB":
        to_lab = ImageCms.buildTransform(
            ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB", ImageCms.Intent.PERCEPTUAL
        )
        muted = smooth().point(lambda v: 96 + v // 4)  # 8-bit LAB is coarse, and videos, at saturated colours
        image, expected, tolerance = to_lab.apply(muted), muted, 4
    elif mode == "La":
        image, expected, tolerance = GREY.convert("LA").convert("La"), GREY.convert("RGB"), 0
    else:
        middle = smooth().convert("RGBA") if mode == "RGBa" else smooth()
        image, expected, tolerance = middle.convert(mode), smooth(), 12
    assert image.mode == mode
    assert np.abs(array(open_image(image)) - array(expected)).max() <= tolerance


def test_lab_tiff_files_are_colour_managed(tmp_path: Path) -> None:
    Image.new("LAB", (16, 16), (255, 128, 128)).save(tmp_path / "white.tiff")
    assert array(open_image(tmp_path / "white.tiff")).min() >= 253


@pytest.mark.parametrize("suffix", ["png", "tiff", "pgm"])
def test_sixteen_bit_greys_keep_their_order_and_are_not_clipped(suffix: str, tmp_path: Path) -> None:
    values = np.linspace(0, 65535, 16 * 256).round().astype(np.uint16).reshape(16, 256)
    Image.fromarray(values).save(tmp_path / f"grey.{suffix}")
    grey = array(open_image(tmp_path / f"grey.{suffix}"))[..., 0]
    assert (grey == np.rint(values / 257)).all()
    assert (grey.min(), grey.max()) == (0, 255)
    assert (np.diff(grey.ravel()) >= 0).all()


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I;16L", "I;16N", "I"])
def test_every_spelling_of_sixteen_bits_is_scaled_alike(mode: str) -> None:
    assert array(open_image(Image.new(mode, (8, 8), 0x8080))).tolist() == np.full((8, 8, 3), 128).tolist()


def test_numbers_without_a_declared_range_are_stretched_in_order_and_nan_is_corrupt(tmp_path: Path) -> None:
    ramp = np.arange(64, dtype=np.float32).reshape(8, 8)
    for values, expected in (
        (ramp / 63, np.rint(ramp / 63 * 255)),
        (ramp, ramp),
        (ramp * 1e6 - 5.0, np.rint(ramp / 63 * 255)),
        (np.full((8, 8), -3.0, np.float32), np.zeros((8, 8))),
    ):
        Image.fromarray(values).save(tmp_path / "f.tiff")
        assert (array(open_image(tmp_path / "f.tiff"))[..., 0] == expected).all()
    assert (array(open_image(Image.fromarray((ramp * 1e6).astype(np.int32))))[..., 0] == np.rint(ramp / 63 * 255)).all()
    assert code_of(Image.fromarray(np.full((8, 8), np.nan, np.float32))) == "corrupt"


# --- alpha, orientation, colour, frames -------------------------------------------------------------------------------


@pytest.mark.parametrize(("alpha", "expected"), [(0, 255), (128, 177), (255, 100)])
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_composited_over_white(mode: str, alpha: int, expected: int, tmp_path: Path) -> None:
    Image.new(mode, (9, 9), (100,) * (len(mode) - 1) + (alpha,)).save(tmp_path / "a.png")
    assert (array(open_image(tmp_path / "a.png")) == expected).all()


@pytest.mark.parametrize("suffix", ["png", "gif"])
def test_transparent_palette_entries_show_white(suffix: str, tmp_path: Path) -> None:
    image = Image.new("P", (16, 16), 1)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.paste(0, (0, 0, 8, 16))
    image.save(tmp_path / f"p.{suffix}", transparency=0)
    opened = open_image(tmp_path / f"p.{suffix}")
    assert opened.getpixel((0, 0)) == (255, 255, 255)
    assert opened.getpixel((12, 0)) == (0, 0, 255)


def test_palette_with_partial_transparency_is_blended(tmp_path: Path) -> None:
    image = Image.new("P", (16, 16), 0)
    image.putpalette([0, 0, 0])
    image.save(tmp_path / "p.png", transparency=bytes([128]))
    assert (array(open_image(tmp_path / "p.png")) == 127).all()


@pytest.mark.parametrize(("depth", "colour", "key"), [(8, 0, (7,)), (8, 2, (7, 7, 7)), (16, 0, (0x0707,))])
def test_a_colour_key_is_transparent(depth: int, colour: int, key: tuple[int, ...]) -> None:
    kind = ">B" if depth == 8 else ">H"
    pixel = b"".join(struct.pack(kind, k) for k in key)
    other = b"".join(struct.pack(kind, 2 * k) for k in key)
    body = b"".join(struct.pack(">H", k) for k in key)
    chunk = struct.pack(">I", len(body)) + b"tRNS" + body + struct.pack(">I", zlib.crc32(b"tRNS" + body))
    opened = open_image(png(8, 8, depth, colour, (b"\0" + pixel * 4 + other * 4) * 8, chunk))
    assert opened.getpixel((0, 0)) == (255, 255, 255)
    assert opened.getpixel((7, 0)) == (14, 14, 14)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tiff"])
def test_exif_orientation_is_applied_once(orientation: int, suffix: str, tmp_path: Path) -> None:
    upright = array(smooth(48, 40))
    stored = {  # how a camera in that orientation stores the upright scene, by numpy alone
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: np.rot90(upright, 1),
        7: np.rot90(upright, 2).swapaxes(0, 1),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"turned.{suffix}"
    Image.fromarray(np.ascontiguousarray(stored).astype(np.uint8)).save(path, exif=exif)
    opened = open_image(path)
    assert opened.size == (48, 40)
    assert np.abs(array(opened) - upright).max() <= 24  # a wrong turn is off by 255 somewhere
    assert array(open_image(opened)).tolist() == array(opened).tolist()


def test_broken_exif_and_broken_profiles_are_ignored(tmp_path: Path) -> None:
    data = encoded(smooth(), "PNG", exif=b"Exif\0\0II*\0garbage", icc_profile=b"no profile at all")
    assert array(open_image(data)).tolist() == array(smooth()).tolist()


def test_an_embedded_profile_is_converted_to_srgb() -> None:
    # A matrix profile is sRGB's own with red's and blue's names swapped, so that the colours must trade places.
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert profile.count(b"rXYZ") == profile.count(b"bXYZ") == 1
    swapped = profile.replace(b"rXYZ", b"tmpT").replace(b"bXYZ", b"rXYZ").replace(b"tmpT", b"bXYZ")
    red = Image.new("RGB", (8, 8), (255, 0, 0))
    opened = open_image(encoded(red, "PNG", icc_profile=swapped))
    assert np.abs(array(opened) - [0, 0, 255]).max() <= 2
    assert "icc_profile" not in opened.info
    same = open_image(encoded(smooth(), "PNG", icc_profile=profile))
    assert np.abs(array(same) - array(smooth())).max() <= 1
    grey_with_colour_profile = open_image(encoded(GREY, "PNG", icc_profile=profile))
    assert np.abs(array(grey_with_colour_profile) - array(GREY.convert("RGB"))).max() <= 1
    foreign = open_image(encoded(smooth().convert("CMYK"), "TIFF", icc_profile=profile))
    assert array(foreign).tolist() == array(smooth().convert("CMYK").convert("RGB")).tolist()


@pytest.mark.parametrize("format_name", ["GIF", "WEBP", "PNG", "TIFF", "MPO"])
def test_the_first_frame_of_an_animation_is_read(format_name: str) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue", "lime")]
    data = encoded(frames[0], format_name, save_all=True, append_images=frames[1:])
    with Image.open(io.BytesIO(data)) as check:
        assert getattr(check, "n_frames", 1) == 3
    assert np.abs(array(open_image(data)) - [255, 0, 0]).max() <= 3


def test_the_callers_image_is_left_as_it_is_and_never_returned() -> None:
    image = smooth()
    opened = open_image(image)
    opened.paste("black", (0, 0, 48, 40))
    assert array(image).tolist() == array(smooth()).tolist()


@pytest.mark.parametrize("suffix", ["jpg", "webp", "avif", "tiff"])
def test_an_orientation_of_xmp_alone_is_ignored_as_browsers_do(suffix: str, tmp_path: Path) -> None:
    xmp = (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        b'<rdf:Description rdf:about="" xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/>'
        b"</rdf:RDF></x:xmpmeta>"
    )
    path = tmp_path / f"x.{suffix}"
    options = {"tiffinfo": {700: xmp}} if suffix == "tiff" else {"xmp": xmp}
    smooth().save(path, **options)
    assert xmp in path.read_bytes() and open_image(path).size == smooth().size
    exif = Image.Exif()
    exif[0x0112] = 8
    if suffix != "tiff":
        options["exif"] = exif.tobytes()
    else:
        options["tiffinfo"][0x0112] = 8  # type: ignore[index]
    smooth().save(path, **options)
    assert abs(array(open_image(path)) - array(smooth().transpose(Image.Transpose.ROTATE_90))).mean() < 6
