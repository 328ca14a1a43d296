"""Checks of archives that must come before zipfile and tarfile work on them.

Both believe what a header says. A header of a tar archive may belong to the member after it, and say its name in gigabytes,
or be one of a hundred thousand in a row. In a ZIP archive a million members may be the same bytes.
"""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

if TYPE_CHECKING:
    from zipfile import ZipInfo

_LONGEST_HEADER = 1 << 16  # bytes that describe a member beside its block of 512: long names, times, owners
_MOST_HEADERS = 8  # of them in a row; two are usual
_DESCRIBING = frozenset(b"xgXLK")  # types of headers for the member that follows
_SPARSE = ord("S")  # a file of holes, which image files are not: its map may go on and on
# Digits: Python before 3.11.10 takes quadratic time for them (CVE-2024-6232). Maps of sparse files: they may go on and on.
_REFUSED = re.compile(rb"\d{257}| GNU\.sparse\.")


def is_tar(path: str) -> bool:
    """Return whether a file begins as a tar archive does; one that would be refused begins so too."""
    with open(path, "rb") as file:
        block = file.read(tarfile.BLOCKSIZE)
    if block == bytes(tarfile.BLOCKSIZE):  # an archive without members
        return True
    try:
        tarfile.TarInfo.frombuf(block, tarfile.ENCODING, "surrogateescape")
    except (tarfile.HeaderError, ValueError):
        return False
    return True


def tar_members(path: str) -> Iterator[tarfile.TarInfo]:
    """Yield the regular files of a tar archive.

    Raises
    ------
    tarfile.TarError, OSError, EOFError, ValueError, MemoryError, RecursionError
        If it is damaged, or has headers that no program writes.
    """
    with _Read(io.FileIO(path)) as file, tarfile.open(fileobj=file, mode="r:", tarinfo=_member_type()) as archive:
        for member in archive:
            if member.size < 0:  # by a header before it; tarfile would go back
                raise tarfile.ReadError("a member of negative size")
            if member.isreg():
                yield member
            archive.members = []  # type: ignore[attr-defined]  # tarfile remembers every member otherwise


class _Read(io.BufferedReader):
    """A file of which tarfile reads headers only; what takes it too long is refused."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Return so many bytes."""
        data = super().read(size)
        if _REFUSED.search(data):
            raise tarfile.ReadError("a header that takes too long to read")
        return data


def _member_type() -> type[tarfile.TarInfo]:
    """Return a class of members that refuses headers as no program writes them."""
    in_a_row = 0

    class Member(tarfile.TarInfo):
        @classmethod
        def frombuf(cls, buf: Any, encoding: str, errors: str) -> Any:
            nonlocal in_a_row
            member = super().frombuf(buf, encoding, errors)
            kind = member.type[0]
            in_a_row = in_a_row + 1 if kind in _DESCRIBING else 0
            if member.size < 0 or kind == _SPARSE or in_a_row > _MOST_HEADERS:
                raise tarfile.ReadError("a header as no program writes it")
            if kind in _DESCRIBING and member.size > _LONGEST_HEADER:
                raise tarfile.ReadError(f"a header of {member.size} bytes")
            return member

    return Member


def check_places(members: Iterable[ZipInfo]) -> None:
    """Raise BadZipFile if members of a ZIP archive share bytes: a small file could hold a million large ones."""
    end = 0
    for member in sorted(members, key=lambda each: each.header_offset):
        if member.header_offset < end:
            raise BadZipFile("members that share bytes")
        end = member.header_offset + member.compress_size
