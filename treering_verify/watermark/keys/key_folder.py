"""A folder of key files: what is in it, and the retirement of a key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path

from treering_verify.errors import KeyFileError, UsageError
from treering_verify.files import printable
from treering_verify.watermark.keys.index import key_files
from treering_verify.watermark.keys.key import Key
from treering_verify.watermark.keys.key_dates import today


def list_keys(paths: Sequence[str | Path]) -> tuple[list[tuple[Path, Key]], list[KeyFileError]]:
    """Return the keys of files and folders, each with its file, and the errors of files that cannot be read.

    Raises
    ------
    KeyFileError
        If a file that is named itself cannot be read as a key.
    UsageError
        If a folder holds no key file.
    """
    found: list[tuple[Path, Key]] = []
    errors: list[KeyFileError] = []
    named = {Path(path) for path in paths}
    for path in key_files(paths):
        try:
            found.append((path, Key.load(path)))
        except KeyFileError as error:
            if path in named:
                raise
            errors.append(error)
    return found, errors


def retire(path: str | Path, *, day: date | None = None, note: str | None = None) -> Key:
    """Write into a key file that the key is retired, and return the key; the file has its old or its new content.

    Parameters
    ----------
    path : path
        The key file; it stays readable by its owner only.
    day : date, optional
        Day (UTC) from which on the key marks no more images; today when left out.
    note : str, optional
        Takes the place of the key's note.

    Raises
    ------
    KeyFileError
        If the file cannot be read or written.
    UsageError
        If the key is retired already, the day lies before the key's first one, or the note is too long.
    """
    key = Key.load(path)
    if key.is_retired:
        raise UsageError(f"the key {key.name} in {printable(str(path))} is {key.state} already: nothing to do")
    retired = replace(key, retired=day or today(), note=key.note if note is None else note)
    retired.rewrite(path)
    return retired
