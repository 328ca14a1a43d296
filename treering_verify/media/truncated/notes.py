"""What is said of an image whose file is incomplete; the types tell it from what a file says of itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

MOST_MISSING = 0.5
"""Largest share of an image that may be missing; with more missing the file is refused."""

CUT_SHORT = "cut short"
"""How the note of an image begins whose file was cut short."""

WRONG_CHECKSUM = "a checksum in the file is wrong, and all rows are there"
"""Note of a PNG whose pixels can be inflated to the end, though a checksum does not fit."""

ONLY_ITS_END = "the end of the file is missing, and all rows are there"
"""Note of a file that was cut short behind its pixels."""

WRONG_LENGTH = "the header says too small a length of the file, and all rows are there"
"""Note of a WebP whose chunks are whole, though it says that it ends before or within one."""

SCANS_MISSING = f"{CUT_SHORT}: the last scans are missing, so the image is less sharp"
"""Note of a progressive JPEG that was cut short after its first scan."""

KEYS = ("cut_short", "file_note")
"""Entries of `info` of a Pillow image, by which a `Share` or a `FileNote` travels."""


class Share(float):
    """Share of an image that is missing, in [0, 1]: `info["cut_short"]`."""


class FileNote(str):
    """What a record says of a file beside its pixels: `info["file_note"]`."""


def note_of(image: Image.Image) -> str:
    """Return what is said of an image's file, or ""."""
    note, share = image.info.get("file_note"), image.info.get("cut_short")
    if isinstance(note, FileNote):
        return note
    return f"{CUT_SHORT}: {percent(share)} of the image is missing" if isinstance(share, Share) else ""


def percent(share: float) -> str:
    """Return a share in percent, never 0."""
    return f"{share:.0%}" if share >= 0.005 else "less than 1%"


def keep_notes(image: Image.Image, original: Image.Image) -> None:
    """Give an image the notes of the one that it was made from."""
    for key in KEYS:
        if isinstance(value := original.info.get(key), Share | FileNote):
            image.info[key] = value
