"""Take keys as callers have them: as objects, or as the paths of files and folders."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from treering_verify.errors import UsageError
from treering_verify.watermark.keys.index import KeyIndex, read_keys
from treering_verify.watermark.keys.key import Key

KeySource = Key | KeyIndex | str | Path


def keys_of(keys: KeySource | Sequence[KeySource]) -> list[Key | KeyIndex]:
    """Load what is a path, and return all keys and indexes in order.

    Raises
    ------
    UsageError
        If there is none, or one is neither key, index nor path.
    KeyFileError
        If a key cannot be read.
    """
    one = isinstance(keys, (Key, KeyIndex, str, os.PathLike)) or not isinstance(keys, Iterable)
    found: list[Key | KeyIndex] = []
    for given in [keys] if one else keys:  # type: ignore[union-attr]
        if isinstance(given, (Key, KeyIndex)):
            found.append(given)
        elif isinstance(given, (str, os.PathLike)):
            found += read_keys([given])  # type: ignore[list-item]
        else:
            raise UsageError(
                f"a key is of type {type(given).__name__}: give a Key, a KeyIndex, or the path of a key file, a folder of "
                "them or a key index"
            )
    if not found:
        raise UsageError("no key to look for: give at least one")
    return found
