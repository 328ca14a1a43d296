"""Checks of archives that must come before zipfile and tarfile work on them.

Both believe what a header says. A header of a tar archive may belong to the member after it, and say its name in gigabytes,
or be one of a hundred thousand in a row. In a ZIP archive a million members may be the same bytes.
"""

from __future__ import annotations

import io
import os
import re
import tarfile
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING
from zipfile import BadZipFile

if TYPE_CHECKING:
    from zipfile import ZipInfo

_LONGEST_HEADER = 1 << 16  # bytes that describe a member beside its block of 512: long names, times, owners
_MOST_READS = 18  # for a member: where it begins, its block, and two for each header that describes it, eight at most
# Digits: Python before 3.11.10 takes quadratic time for them (CVE-2024-6232). Maps of sparse files: they may go on and on.
_REFUSED = re.compile(rb"\d{257}| GNU\.sparse\.")


def is_tar(path: str) -> bool:
    """Return whether a file begins as a tar archive does. It may still be refused when it is read."""
    with open(path, "rb") as file:
        block = file.read(tarfile.BLOCKSIZE)
    if block == bytes(tarfile.BLOCKSIZE):  # an archive without members
        return True
    try:
        tarfile.TarInfo.frombuf(block, tarfile.ENCODING, "surrogateescape")
    except (tarfile.HeaderError, ValueError):
        return False
    return True


class CutTar(tarfile.ReadError):
    """A tar archive ends before its end blocks; what was yielded is whole."""


def tar_members(path: str) -> Iterator[tarfile.TarInfo]:
    """Yield the regular files of a tar archive.

    Raises
    ------
    CutTar
        After the last whole member, if the end of the archive is missing.
    tarfile.TarError, OSError, EOFError, ValueError, MemoryError, RecursionError
        If it is damaged, or has headers that no program writes.
    """
    with _Read(io.FileIO(path)) as file:
        try:
            yield from _members(file, os.fstat(file.fileno()).st_size)
        except tarfile.ReadError as error:
            if file.ended:  # within a header
                raise CutTar(str(error)) from error
            raise
        if len(file.last) < tarfile.BLOCKSIZE:
            raise CutTar("no end blocks")
        if any(file.last):  # tarfile takes a header that it cannot read for the end
            raise tarfile.ReadError("a header that is damaged")


def _members(file: _Read, size: int) -> Iterator[tarfile.TarInfo]:
    with tarfile.open(fileobj=file, mode="r:") as archive:
        for member in archive:
            if member.size < 0:  # by a header before it; tarfile would go back
                raise tarfile.ReadError("a member of negative size")
            if member.issparse():  # a file of holes, which image files are not
                raise tarfile.ReadError("a member with holes")
            if member.isreg():
                end = member.offset_data + member.size
                if end > size:
                    raise CutTar("a member that is cut through")
                yield member
                if end + -end % tarfile.BLOCKSIZE > size:
                    raise CutTar("no end blocks")
            archive.members = []  # type: ignore[attr-defined]  # tarfile remembers every member otherwise
            file.reads = 0


class _Read(io.BufferedReader):
    """A file of which tarfile reads headers only; reads that no program's headers need are refused.

    What tarfile reads is checked, and not what it makes of it: which of its methods it calls for a header depends on the
    version of Python.
    """

    reads = 0
    """Reads since the last member."""
    last = b""
    """What was read last."""
    ended = False
    """Whether there was less to read than asked for."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Return so many bytes."""
        self.reads += 1
        if size is None or not 0 <= size <= _LONGEST_HEADER or self.reads > _MOST_READS:
            raise tarfile.ReadError("headers as no program writes them")
        self.last = super().read(size)
        self.ended = self.ended or len(self.last) < size
        if _REFUSED.search(self.last):
            raise tarfile.ReadError("a header that takes too long to read")
        return self.last


def numbered(names: Iterable[str]) -> Iterator[str]:
    """Yield the names of an archive's members, each once: the second of a name gets ``#2``, and so on."""
    used: set[str] = set()
    numbers: dict[str, int] = {}
    for name in names:
        each = name
        while each in used:
            numbers[name] = numbers.get(name, 1) + 1
            each = f"{name}#{numbers[name]}"
        used.add(each)
        yield each


def check_places(members: Iterable[ZipInfo]) -> None:
    """Raise BadZipFile if members of a ZIP archive share bytes: a small file could hold a million large ones."""
    end = 0
    for member in sorted(members, key=lambda each: each.header_offset):
        if member.header_offset < end:
            raise BadZipFile("members that share bytes")
        end = member.header_offset + member.compress_size
