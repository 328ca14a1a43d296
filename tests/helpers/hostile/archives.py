"""Archives made to do harm: tar headers as no program writes them, ZIP members that share bytes."""

from __future__ import annotations

import os
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

_SIZE, _CHECKSUM = slice(124, 136), slice(148, 156)


def header(name: str = "a.png", kind: bytes = b"0", size: int = 0) -> bytes:
    """Return a block of 512 bytes that declares any size, in base 256 where octal digits cannot."""
    info = tarfile.TarInfo(name)
    info.type = kind
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    octal = 0 <= size < 8**11
    block[_SIZE] = b"%011o\0" % size if octal else (size % 2**88 | (255 if size < 0 else 128) << 88).to_bytes(12, "big")
    block[_CHECKSUM] = b" " * 8
    block[_CHECKSUM] = b"%06o\0 " % sum(block)
    return bytes(block)


def described(body: bytes, kind: bytes = b"x") -> bytes:
    """Return a member after a header that describes it."""
    return header("x", kind, len(body)) + body + bytes(-len(body) % 512) + header() + bytes(1024)


def record(name: bytes, value: bytes) -> bytes:
    """Return a record of a pax header, which begins with its own length."""
    rest = b" " + name + b"=" + value + b"\n"
    length = len(rest)
    while len(b"%d" % length) + len(rest) != length:
        length = len(b"%d" % length) + len(rest)
    return b"%d" % length + rest


def _written(data: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(data)


def _hole(path: Path) -> None:
    """Write a sparse file whose first header says that the name takes 20 GB."""
    path.write_bytes(header("x", b"x", 20 << 30))
    os.truncate(path, (20 << 30) + 2048)


TARS: dict[str, Callable[[Path], object]] = {
    "a negative size": _written(header(size=-512) + bytes(1024)),
    "a size that leads back": _written(header("b.png") + header(size=-1536) + bytes(1024)),
    "a size that a header makes negative": _written(described(record(b"size", b"-1024")) + bytes(1024)),
    "a name of 20 GB": _hole,
    "a name of megabytes": _written(described(record(b"path", b"A" * 5_000_000))),
    "a GNU name of megabytes": _written(described(b"A" * 5_000_000, b"L")),
    "a hundred thousand headers in a row": _written(header("x", b"x") * 100_000 + header() + bytes(1024)),
    "a hundred thousand names in a row": _written(header("x", b"L") * 100_000 + header() + bytes(1024)),
    "digits without end": _written(described(b"0" * 60_000)),
    "a map of holes": _written(described(record(b"GNU.sparse.map", b",".join([b"0"] * 10_000)))),
    "a map of holes in the data": _written(
        described(record(b"GNU.sparse.major", b"1") + record(b"GNU.sparse.minor", b"0")) + b"1" * 5_000_000
    ),
    "an old map of holes": _written(header(kind=b"S") + bytes(1024)),
}


def shared_zip(path: Path, count: int) -> None:
    """Write a ZIP archive of so many names for the same 50 MB, which take 50 kB."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("0.png", bytes(50_000_000))
    data = path.read_bytes()
    place = data.index(b"PK\1\2")
    end = data.index(b"PK\5\6")
    listed = data[place:end]
    tail = bytearray(data[end:])
    struct.pack_into("<HHL", tail, 8, count, count, len(listed) * count)
    path.write_bytes(data[:place] + listed * count + bytes(tail))
