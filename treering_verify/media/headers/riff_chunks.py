"""Read the chunks of a WebP (RFC 9649, section 2.3)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

_FIRST = 12  # after "RIFF", the length and "WEBP"
_HEADER = 8
_MOST = 100_000
_KINDS = frozenset([b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF", b"ICCP", b"EXIF", b"XMP "])
_BEHIND_THE_IMAGE = frozenset([b"EXIF", b"XMP "])


class Chunk(NamedTuple):
    """The kind of a chunk, and where it begins and ends in the file; the end may lie behind the file's."""

    kind: bytes
    begin: int
    end: int

    @property
    def is_behind_the_image(self) -> bool:
        """Whether the chunk comes after all images and frames."""
        return self.kind in _BEHIND_THE_IMAGE


def declared_end(data: bytes) -> int:
    """Return where the header of a WebP says that the file ends."""
    return _HEADER + int.from_bytes(data[4:8], "little")


def chunks(data: bytes) -> Iterator[Chunk]:
    """Yield the chunks of a WebP, whatever length of the file its header says.

    Behind that length only chunks of known kinds count: anything may have been appended to a file.
    """
    end = declared_end(data)
    place = _FIRST
    for _ in range(_MOST):
        kind = data[place : place + 4]
        if place + _HEADER > len(data) or (place >= end and kind not in _KINDS):
            return
        length = int.from_bytes(data[place + 4 : place + 8], "little")
        found = Chunk(kind, place, place + _HEADER + length + length % 2)
        yield found
        place = found.end


def ends_within_a_chunk(data: bytes) -> bool:
    """Return whether a WebP, by the length that its header says, ends within a chunk, or before its first one."""
    end = declared_end(data)
    begin = max((chunk.begin for chunk in chunks(data) if chunk.begin < end), default=end)
    return begin + _HEADER + int.from_bytes(data[begin + 4 : begin + 8], "little") > end
