"""Tell the kind of a file by its first bytes: an image that is read here, another image, a container, a video, or none.

Pillow's own checks recognise the formats that are read. The table here names the others, so that a photograph in a format
that is not decoded is never counted as a text file.
"""

from __future__ import annotations

import functools
import re
from importlib.util import find_spec
from typing import NamedTuple

from treering_verify.media.headers.jpeg_segments import unread_coding
from treering_verify.media.headers.tiff_directory import unread_samples

SIGNATURE_BYTES = 544  # a PICT names itself at byte 522
_ALWAYS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM", "JPEG2000", "ICO", "DDS", "PSD", "TGA")
_EXTRAS = {
    "HEIF": "pillow_heif",
    "JXL": "pillow_jxl",
}  # Pillow's name of the format -> module that registers its decoder
_INSTALL = "pip install 'treering-verify[formats]'"
_ZEROS = 64  # bytes at least
_AN = re.compile("[aeiouAEIO]|MP4|MPEG|HDF|HTTP|LZ4|xz")
_TGA_FOOTER = b"TRUEVISION-XFILE.\0"


class Kind(NamedTuple):
    """The kind of a file.

    Attributes
    ----------
    code : {"image", "unread_format", "container", "video_file", "not_an_image", "corrupt", ""}
        "not_an_image" for what stands for an image, such as a pointer of Git LFS; "corrupt" for an image that a transfer as
        text changed; "" for anything else.
    name : str
        Name of the format, for messages.
    advice : str
        How to get the file tested, for messages.
    """

    code: str
    name: str = ""
    advice: str = ""

    @property
    def sentence(self) -> str:
        """What the file is, and how to get it tested."""
        return f"this is {'an' if _AN.match(self.name) else 'a'} {self.name}: {self.advice}"


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
        variant = unread_variant(head)
        return _unread(variant) if variant else Kind("image")
    if len(head) >= _ZEROS and not any(head):
        return Kind(
            "not_an_image", "file that begins with zero bytes", "its content was lost; copy or download it again"
        )
    for offset, signature, kind in _SIGNATURES:
        if head[offset : offset + len(signature)] == signature:
            return kind
    if head[:4] == b"\0\0\2\0" and head[4:5] > b"\0":  # of a TGA that begins so, the next byte is zero
        return _unread("Windows cursor")
    if head[:1] == b"\n" and head[1:2] < b"\6" and head[2:3] == b"\1" and head[3:4] in (b"\1", b"\2", b"\4", b"\x08"):
        return _unread("PCX")
    if head.startswith(b"#define ") and b"_width " in head[:256]:
        return _unread("XBM")
    if head[4:8] in _MOV_ATOMS and head[0] < ord(" "):  # and no text
        return _video("MOV")
    brand = head[8:12] if head[4:8] == b"ftyp" and len(head) >= 12 else b""
    if brand:
        return _kind_of_brand(brand, head)
    return _unread("SVG") if _is_svg(head) else Kind("")


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


def is_surely_none(head: bytes, name: str = "") -> bool:
    """Return whether no decoder takes a file with these first bytes; a TGA without a signature is told by its header."""
    return kind_of(head, name).code != "image" and not _may_be_tga(head)


def _may_be_tga(head: bytes) -> bool:
    """Return whether the 18 bytes of a TGA header are plausible (Truevision TGA 2.0, section "TGA file header")."""
    if len(head) < 18:
        return False
    map_type, image_type, depth = head[1], head[2], head[16]
    return map_type in (0, 1) and image_type in (1, 2, 3, 9, 10, 11) and depth in (8, 15, 16, 24, 32)


def _unread(name: str, advice: str = "convert it to PNG or JPEG") -> Kind:
    return Kind("unread_format", f"file of the format {name}", advice)


def _video(name: str, advice: str = "judge it with a model that makes videos, or give its frames") -> Kind:
    return Kind("video_file", name, advice)


def _container(name: str, advice: str) -> Kind:
    return Kind("container", name, advice)


def _kind_of_brand(brand: bytes, head: bytes) -> Kind:
    """Return the kind of a file of the ISO base media format, by its brand (ISO/IEC 14496-12)."""
    if brand in (
        b"heic",
        b"heix",
        b"heim",
        b"heis",
        b"hevc",
        b"hevx",
        b"mif1",
        b"msf1",
        b"mif2",
        b"MiHE",
        b"MiHB",
        b"MiPr",
    ):
        return _unread("HEIF", f"{_INSTALL} reads it")
    if brand in (b"avci", b"avcs", b"jpeg", b"jpgs", b"j2ki", b"j2is", b"vvic", b"vvis", b"evbi", b"evbs", b"jxsi"):
        return _unread("HEIF without HEVC")
    if brand == b"avif" or b"avif" in head[8:64]:
        return Kind("image")
    if brand == b"crx ":
        return _unread("Canon CR3 raw")
    return _video("MP4 or MOV")


def _is_svg(head: bytes) -> bool:
    """Return whether the root of an XML document, after its declaration, comments and type, is an SVG."""
    text = head[:4096]
    if text.startswith((b"\xff\xfe", b"\xfe\xff")):
        text = text.decode("utf-16", "replace").encode()
    text = text.removeprefix(b"\xef\xbb\xbf").lower()
    while True:
        text = text.lstrip(b" \t\r\n")
        end = next((end for begin, end in _XML_PROLOGUE if text.startswith(begin)), b"")
        if not end or text.startswith((b"<svg", b"<!doctype svg")):
            return text.startswith((b"<svg", b"<!doctype svg"))
        text = text.partition(end)[2]


def unread_variant(data: bytes) -> str:
    """Return the name of an image's variant if it cannot be read though its format can; "" if it can, or is not known.

    Parameters
    ----------
    data : bytes
        An image of `decoded_formats`, whole or its beginning.
    """
    if data.startswith(b"\xff\xd8"):
        return unread_coding(data)
    if data.startswith(b"8BPS"):
        return _unread_psd(data)
    if data.startswith((b"II", b"MM")):
        return unread_samples(data)
    if data[:16].endswith(b"CgBI"):  # it has no header of zlib, and blue and red are swapped
        return "PNG of Apple's (CgBI)"
    return ""


def _unread_psd(data: bytes) -> str:
    """Return the name of a PSD's variant that Pillow refuses, by its header (Adobe's "Photoshop File Formats")."""
    if len(data) < 26:
        return ""
    version, (bits, mode) = data[5], (data[23], data[25])
    if version == 2:
        return "Photoshop PSB"
    return f"PSD of {bits} bits in colour mode {mode}" if (mode, bits) not in _PSD_MODES else ""


_PSD_MODES = {(0, 1), *((mode, 8) for mode in (0, 1, 2, 3, 4, 7, 8, 9))}
_MOV_ATOMS = (b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")
_XML_PROLOGUE = ((b"<svg", b">"), (b"<?", b"?>"), (b"<!--", b"-->"), (b"<!doctype", b">"))
_UNPACK = "unpack it"
_AS_TEXT = "a transfer as text changed it; transfer it again, as binary"
_SIGNATURES: tuple[tuple[int, bytes, Kind], ...] = (
    (0, b"\x89PNG\r\r\n", Kind("corrupt", "damaged PNG", _AS_TEXT)),
    (0, b"\x89PNG\n\x1a", Kind("corrupt", "damaged PNG", _AS_TEXT)),
    (0, b"\xc2\x89PNG", Kind("corrupt", "damaged PNG", _AS_TEXT)),
    (0, b"\xef\xbf\xbdPNG", Kind("corrupt", "damaged PNG", _AS_TEXT)),
    (0, b"\xc3\xbf\xc3\x98\xc3\xbf", Kind("corrupt", "damaged JPEG", _AS_TEXT)),
    (0, b"\xef\xbf\xbd" * 4 + b"\0\x10JFIF", Kind("corrupt", "damaged JPEG", _AS_TEXT)),
    (0, b"version https://git-lfs", Kind("not_an_image", "pointer of Git LFS", "git lfs pull fetches the file")),
    (0, b"data:image/", Kind("not_an_image", "data URL in text", "decode what follows its comma (base64 -d)")),
    (0, b"iVBORw0KGgo", Kind("not_an_image", "PNG in base64", "decode it (base64 -d)")),
    (0, b"/9j/", Kind("not_an_image", "JPEG in base64", "decode it (base64 -d)")),
    (0, b"HTTP/1.", Kind("not_an_image", "response of a server with its headers", "store its body alone")),
    (0, b"\0\5\x16\7\0\2", Kind("not_an_image", "companion file of macOS", "the image has its name without ._")),
    (0, b"\xff\x0a", _unread("JPEG XL", f"{_INSTALL} reads it")),
    (0, b"\x00\x00\x00\x0cJXL \r\n\x87\n", _unread("JPEG XL", f"{_INSTALL} reads it")),
    (0, b"qoif", _unread("QOI")),
    (0, b"\x76\x2f\x31\x01", _unread("OpenEXR")),
    (0, b"#?RADIANCE", _unread("Radiance HDR")),
    (0, b"#?RGBE", _unread("Radiance HDR")),
    (0, b"gimp xcf ", _unread("GIMP XCF", "export it as PNG")),
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
    (0, b"\x8aMNG\r\n\x1a\n", _unread("MNG")),
    (0, b"\x8bJNG\r\n\x1a\n", _unread("JNG")),
    (0, b"P7\n", _unread("PAM")),
    (0, b"PF\n", _unread("PFM in colour")),
    (0, b"\1\0\x09\0\0\3", _unread("Windows metafile")),
    (40, b" EMF", _unread("Windows metafile")),
    (0, b"\x01\xda", _unread("SGI image")),
    (0, b"\x59\xa6\x6a\x95", _unread("Sun raster")),
    (0, b"BLP1", _unread("Blizzard texture")),
    (0, b"BLP2", _unread("Blizzard texture")),
    (0, b"SDPX", _unread("DPX")),
    (0, b"XPDS", _unread("DPX")),
    (0, b"\x80\x2a\x5f\xd7", _unread("Cineon")),
    (0, b"\x13\xab\xa1\x5c", _unread("ASTC texture")),
    (0, b"PVR\3", _unread("PVR texture")),
    (0, b"/* XPM */", _unread("XPM")),
    (0, b"DanM", _unread("Microsoft Paint 1")),
    (0, b"LinS", _unread("Microsoft Paint 2")),
    (4, b"\x11\xaf", _unread("FLI")),
    (4, b"\x12\xaf", _unread("FLC")),
    (0, b"Paint Shop Pro Image File", _unread("Paint Shop Pro image")),
    (0, b"PDN3", _unread("Paint.NET image")),
    (0, b"\0MRM", _unread("Minolta raw")),
    (8, b"ILBM", _unread("IFF ILBM")),
    (128, b"DICM", _unread("DICOM")),
    (522, b"\0\x11\2\xff\x0c\0", _unread("PICT")),
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
    (0, b"PK\5\6", _container("empty ZIP archive", _UNPACK)),
    (0, b"PK\7\x08PK\3\4", _container("part of a ZIP archive", "join its parts, and unpack it")),
    (0, b"\x1f\x9d", _container("compressed file", _UNPACK)),
    (0, b"LZIP", _container("lzip file", _UNPACK)),
    (0, b"\x04\x22\x4d\x18", _container("LZ4 file", _UNPACK)),
    (0, b"MSCF", _container("Windows cabinet", _UNPACK)),
    (0, b"ARROW1", _container("Arrow file", "give it to an audit as --manifest")),
    (0, b"FEA1", _container("Feather file", "store it as Parquet, for --manifest of an audit")),
    (0, b"\x89HDF\r\n\x1a\n", _container("HDF5 file", "extract its images")),
    (0, b"\x93NUMPY", _container("NumPy array", "give its images to Python's verify, or save them as PNG")),
    (0, b"\x1a\x45\xdf\xa3", _video("Matroska or WebM", "judge it with a model that makes videos")),
    (0, b"FLV\x01", _video("Flash video", "convert it to MP4, for a model that makes videos")),
    (0, b"\0\0\1\xba", _video("MPEG")),
    (0, b"\0\0\1\xb3", _video("MPEG")),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", _video("Windows Media")),
    (0, b".RMF", _video("RealMedia")),
    (0, b"YUV4MPEG2", _video("Y4M")),
    (8, b"AVI LIST", _video("AVI")),
)
