"""Tell the kind of a file by its first bytes: an image that is read here, another image, a container, a video, or none.

Pillow's own checks recognise the formats that are read. The table here names the others, so that a photograph in a format
that is not decoded is never counted as a text file.
"""

from __future__ import annotations

import functools
from importlib.util import find_spec
from typing import NamedTuple

SIGNATURE_BYTES = 512  # a tar archive names itself at byte 257
_ALWAYS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM", "JPEG2000", "ICO", "DDS", "PSD", "TGA")
_EXTRAS = {
    "HEIF": "pillow_heif",
    "JXL": "pillow_jxl",
}  # Pillow's name of the format -> module that registers its decoder
_INSTALL = "pip install 'treering-verify[formats]'"
_TGA_FOOTER = b"TRUEVISION-XFILE.\0"


class Kind(NamedTuple):
    """The kind of a file.

    Attributes
    ----------
    code : {"image", "unread_format", "container", "video_file", ""}
        "" for anything else.
    name : str
        Name of the format, for messages.
    advice : str
        How to get the file tested, for messages.
    """

    code: str
    name: str = ""
    advice: str = ""


@functools.cache
def decoded_formats() -> tuple[str, ...]:
    """Return Pillow's names of the formats that are decoded, those of installed extras included.

    JPEG includes MPO; PPM includes PBM, PGM, PNM and PFM.
    """
    return (*_ALWAYS, *(name for name, module in _EXTRAS.items() if find_spec(module)))


@functools.cache
def register() -> None:
    """Register the decoders of all `decoded_formats` with Pillow, those of the extra `formats` included."""
    from importlib import import_module

    from PIL import Image

    Image.init()
    if "HEIF" in decoded_formats():
        import_module(_EXTRAS["HEIF"]).register_heif_opener(thumbnails=False)
    if "JXL" in decoded_formats():
        import_module(_EXTRAS["JXL"])  # registers itself


def kind_of(head: bytes, name: str = "") -> Kind:
    """Return the kind of a file.

    Parameters
    ----------
    head : bytes
        The file's first bytes, at least `SIGNATURE_BYTES`, or all if it has fewer.
    name : str
        The file's name. Old TGA files have no signature: only a name ending in .tga tells them.
    """
    if is_image(head, name):
        return Kind("image")
    for offset, signature, kind in _SIGNATURES:
        if head[offset : offset + len(signature)] == signature:
            return kind
    brand = head[8:12] if head[4:8] == b"ftyp" and len(head) >= 12 else b""
    if brand:
        return _kind_of_brand(brand, head)
    text = head[:256].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith(b"<svg") or (text.startswith(b"<?xml") and b"<svg" in head.lower()):
        return _unread("SVG")
    return Kind("")


def is_image(head: bytes, name: str = "") -> bool:
    """Return whether a file with these first bytes is an image of `decoded_formats`, by its signature or TGA name."""
    from PIL import Image

    register()
    prefix = head[:16].ljust(16, b"\0")  # the checks read up to its end
    for format_name in decoded_formats():
        if format_name == "TGA":  # no signature at its beginning
            continue
        check = Image.OPEN[format_name][1]
        if check is not None and check(prefix) is True:
            return True
    return head.endswith(_TGA_FOOTER) or (name.lower().endswith(".tga") and _may_be_tga(head))


def _may_be_tga(head: bytes) -> bool:
    """Return whether the 18 bytes of a TGA header are plausible (Truevision TGA 2.0, section "TGA file header")."""
    if len(head) < 18:
        return False
    map_type, image_type, depth = head[1], head[2], head[16]
    return map_type in (0, 1) and image_type in (1, 2, 3, 9, 10, 11) and depth in (8, 15, 16, 24, 32)


def _unread(name: str, advice: str = "convert it to PNG or JPEG") -> Kind:
    return Kind("unread_format", f"file of the format {name}", advice)


def _container(name: str, advice: str) -> Kind:
    return Kind("container", name, advice)


def _kind_of_brand(brand: bytes, head: bytes) -> Kind:
    """Return the kind of a file of the ISO base media format, by its brand (ISO/IEC 14496-12)."""
    if brand in (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"):
        return _unread("HEIF", f"{_INSTALL} reads it")
    if brand == b"avif" or b"avif" in head[8:64]:
        return Kind("image")
    if brand == b"crx ":
        return _unread("Canon CR3 raw")
    return Kind("video_file", "MP4 or MOV", "judge it with a model that makes videos, or give its frames")


_UNPACK = "unpack it"
_SIGNATURES: tuple[tuple[int, bytes, Kind], ...] = (
    (0, b"\xff\x0a", _unread("JPEG XL", f"{_INSTALL} reads it")),
    (0, b"\x00\x00\x00\x0cJXL \r\n\x87\n", _unread("JPEG XL", f"{_INSTALL} reads it")),
    (0, b"qoif", _unread("QOI")),
    (0, b"\x76\x2f\x31\x01", _unread("OpenEXR")),
    (0, b"#?RADIANCE", _unread("Radiance HDR")),
    (0, b"#?RGBE", _unread("Radiance HDR")),
    (0, b"gimp xcf ", _unread("GIMP XCF", "export it as PNG")),
    (0, b"8BPB", _unread("Photoshop PSB", "export it as PNG")),
    (0, b"SIMPLE  =", _unread("FITS")),
    (0, b"AT&TFORM", _unread("DjVu")),
    (0, b"BPG\xfb", _unread("BPG")),
    (0, b"FLIF", _unread("FLIF")),
    (0, b"II\xbc\x01", _unread("JPEG XR")),
    (0, b"icns", _unread("Apple icon")),
    (0, b"FUJIFILMCCD-RAW", _unread("Fujifilm raw")),
    (0, b"IIRO", _unread("Olympus raw")),
    (0, b"IIRS", _unread("Olympus raw")),
    (0, b"IIU\x00", _unread("Panasonic raw")),
    (0, b"FOVb", _unread("Sigma raw")),
    (0, b"%!PS-Adobe", _unread("PostScript")),
    (0, b"\xc5\xd0\xd3\xc6", _unread("Encapsulated PostScript")),
    (0, b"\xd7\xcd\xc6\x9a", _unread("Windows metafile")),
    (0, b"\x97JB2\r\n\x1a\n", _unread("JBIG2")),
    (0, b"\xabKTX ", _unread("Khronos texture")),
    (0, b"%PDF-", _container("PDF document", "extract its images (pdfimages -png FILE PREFIX)")),
    (0, b"PK\x03\x04", _container("ZIP archive", "name it as PATH of an audit with the ending .zip, or unpack it")),
    (0, b"Rar!\x1a\x07", _container("RAR archive", _UNPACK)),
    (0, b"7z\xbc\xaf\x27\x1c", _container("7z archive", _UNPACK)),
    (0, b"\x1f\x8b", _container("gzip file", _UNPACK)),
    (0, b"BZh", _container("bzip2 file", _UNPACK)),
    (0, b"\xfd7zXZ\x00", _container("xz file", _UNPACK)),
    (0, b"\x28\xb5\x2f\xfd", _container("Zstandard file", _UNPACK)),
    (257, b"ustar", _container("tar archive", "name it as PATH of an audit with the ending .tar, or unpack it")),
    (0, b"PAR1", _container("Parquet file", "give it to an audit as --manifest")),
    (0, b"\x1a\x45\xdf\xa3", Kind("video_file", "Matroska or WebM", "judge it with a model that makes videos")),
    (0, b"FLV\x01", Kind("video_file", "Flash video", "convert it to MP4, for a model that makes videos")),
)
