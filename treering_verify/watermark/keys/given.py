"""Take keys as callers have them: as objects, or as the paths of files and folders."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from treering_verify.errors import UsageError
from treering_verify.files import printable
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


def keys_to_write(key: Key | str | Path | Sequence[Key | str | Path]) -> Key | list[Key]:
    """Load what is a path: return the key of all images, or a list of the keys of each.

    Raises
    ------
    UsageError
        If one is neither a key nor the path of one key's file.
    KeyFileError
        If a key cannot be read.
    """
    if isinstance(key, (Key, str, os.PathLike)) or not isinstance(key, Iterable):
        return _key_to_write(key)
    return [_key_to_write(one) for one in key]


def _key_to_write(given: object) -> Key:
    if isinstance(given, Key):
        return given
    if not isinstance(given, (str, os.PathLike)):
        raise UsageError(
            f"a key to write is of type {type(given).__name__}: give a Key or the path of a key file, one for all images "
            "or a list of one for each"
        )
    found = read_keys([given])  # type: ignore[list-item]
    if len(found) != 1 or not isinstance(found[0], Key):
        raise UsageError(f"{printable(str(given))} has more than one key: name the file of the key to write")
    return found[0]
