"""An index of keys of one family, mapped from a file or made of keys in memory."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from treering_verify.errors import KeyFileError, UsageError
from treering_verify.files import opened_secret, printable
from treering_verify.results import FREE_NUMBERS
from treering_verify.watermark.keys.index_file import (
    MAGIC,
    MAKER,
    PAGE,
    blocks_of,
    check_distinct,
    check_searchable,
    checksums,
    damaged,
    encode,
    hash_texts,
    numbers_start,
    parse_header,
)
from treering_verify.watermark.keys.key import Key, is_name
from treering_verify.watermark.keys.key_dates import today
from treering_verify.watermark.keys.key_family import Family
from treering_verify.watermark.keys.key_origin import NotDerived, derived, origin_of

_BLOCK = 65_536  # keys whose lengths are checked together


@dataclass(frozen=True, eq=False)
class KeyIndex:
    """An index of keys of one family. Their numbers are secrets: they appear in no `repr`, message or record.

    Attributes
    ----------
    family : Family
        What the keys share.
    facts : (N,) structured
        Length, drift, fingerprint, name, checksum, day of retirement and, from version 2 of the file on, pseudorandom key
        of each key (`index_file.FACTS`).
    numbers : (N, d) float16, float32 or float64
        The stored numbers; a memory map if the index is a file.
    lengths : (N,) float64
        Euclidean length of each row.
    source : str
        The file's path, printable; "" for keys in memory.
    """

    family: Family
    facts: npt.NDArray[Any] = field(repr=False)
    numbers: npt.NDArray[np.floating] = field(repr=False)
    lengths: npt.NDArray[np.float64] = field(repr=False)
    source: str = ""

    def __len__(self) -> int:
        """Return the number of keys, N."""
        return len(self.facts)

    @classmethod
    def from_keys(cls, keys: Sequence[Key]) -> KeyIndex:
        """Return an index of keys in memory, their numbers unrounded.

        Raises
        ------
        UsageError
            If there is none, they are of several families or of a pattern that cannot be searched, or two have the same
            name or numbers.
        """
        if not keys:
            raise UsageError("no key to look for: give at least one")
        family = keys[0].family
        check_searchable(family)
        encoded = [encode(block, np.dtype(np.float64)) for block in blocks_of(keys, family)]
        facts = np.concatenate([facts for facts, _ in encoded])
        check_distinct(hash_texts(facts["name"]), lambda row: facts["name"][row])
        check_distinct(hash_texts(facts["fingerprint"]), lambda row: facts["name"][row])
        return cls(family, facts, np.concatenate([rows for _, rows in encoded]), facts["length"].copy())

    @classmethod
    def load(cls, path: str | Path) -> KeyIndex:
        """Map an index file into memory; its numbers are read when the index is searched.

        Raises
        ------
        KeyFileError
            If it is missing, readable by others, cut short, damaged, or not a key index of a known version.
        """
        shown = printable(str(path))
        with opened_secret(path, "key index", MAKER) as file:
            family, count, dtype, kind = parse_header(file.read(PAGE), shown)
            start = numbers_start(count, kind)
            expected, size = start + count * family.degrees_of_freedom * dtype.itemsize, os.fstat(file.fileno()).st_size
            if size != expected:
                raise KeyFileError(
                    f"{shown} has {size} bytes and not {expected}: it was cut short; make it again with {MAKER}"
                )
            facts = np.memmap(file, kind, "r", PAGE, (count,)).view(np.ndarray)
            numbers = np.memmap(file, dtype, "r", start, (count, family.degrees_of_freedom)).view(np.ndarray)
        for first in range(0, count, _BLOCK):  # a file of holes may claim any number of keys: its first block tells
            lengths = facts["length"][first : first + _BLOCK]
            if not (np.isfinite(lengths) & (lengths > 0)).all():
                raise damaged(shown)
        lengths = np.ascontiguousarray(facts["length"])
        return cls(family, facts, numbers, lengths, shown)

    def entries(self, rows: npt.NDArray[np.int64]) -> tuple[list[str], list[str], npt.NDArray[np.floating]]:
        """Return names, fingerprints and numbers, (n, d), of some keys, after comparing them with their checksums.

        Raises
        ------
        KeyFileError
            If a key is damaged.
        """
        facts, numbers = self.facts[rows], self.numbers[rows]
        names = [name.decode("ascii", "replace") for name in facts["name"].tolist()]
        fingerprints = [text.decode("ascii", "replace") for text in facts["fingerprint"].tolist()]
        drift = facts["drift"]
        if (
            checksums(facts, numbers) != facts["checksum"].tolist()
            or not all(map(is_name, names))
            or not (np.isfinite(drift) & (drift >= 0)).all()
        ):
            raise damaged(self.source)
        return names, fingerprints, numbers

    def origin(self, row: int) -> str:
        """Return the origin of a key (`Key.origin`).

        Raises
        ------
        KeyFileError
            If its numbers, or its fingerprint, are not those that its pseudorandom key gives.
        """
        prk = self.facts["prk"][row].tobytes() if "prk" in (self.facts.dtype.names or ()) else b""
        if not any(prk):
            return FREE_NUMBERS
        fingerprint = self.facts["fingerprint"][row].decode("ascii", "replace")
        try:
            origin = origin_of(self.family, self.numbers[row], prk)
        except NotDerived:
            raise damaged(self.source) from None
        if Key.of(self.family, None, derived(self.family, prk), prk).fingerprint != fingerprint:
            raise damaged(self.source)
        return origin


def retired_keys(keys: Sequence[Key | KeyIndex]) -> dict[str, str]:
    """Return the day from which on keys are retired, as 2026-11-29, by fingerprint, for those that are so today (UTC).

    Raises
    ------
    KeyFileError
        If an index holds no possible day.
    """
    found = {key.fingerprint: str(key.retired) for key in keys if isinstance(key, Key) and key.is_retired}
    for index in (each for each in keys if isinstance(each, KeyIndex)):
        days = index.facts["retired"]
        if days.max() > date.max.toordinal():
            raise damaged(index.source)
        for row in np.flatnonzero((days > 0) & (days <= today().toordinal())).tolist():
            text = index.facts["fingerprint"][row].decode("ascii", "replace")
            found[text] = str(date.fromordinal(int(days[row])))
    return found


def origin_of_key(keys: Sequence[Key | KeyIndex], fingerprint: str) -> tuple[str, str]:
    """Return the origin and the pattern of the key with a fingerprint; ("", "") if there is none.

    Raises
    ------
    KeyFileError
        If its numbers, in an index, are not those that its pseudorandom key gives.
    """
    for each in keys:
        if isinstance(each, Key):
            if each.fingerprint == fingerprint:
                return each.origin, each.pattern
        elif len(rows := np.flatnonzero(each.facts["fingerprint"] == fingerprint.encode())):
            return each.origin(int(rows[0])), each.family.pattern
    return "", ""


def public_keys(keys: Sequence[Key | KeyIndex], most: int) -> list[dict[str, str]] | dict[str, Any]:
    """Return names and fingerprints of keys, by name; of more than `most` their count and a digest of them."""
    pairs = [(key.name, key.fingerprint) for key in keys if isinstance(key, Key)]
    for index in (each for each in keys if isinstance(each, KeyIndex)):
        columns = (index.facts[name].tolist() for name in ("name", "fingerprint"))
        pairs += [
            (name.decode("ascii", "replace"), text.decode("ascii", "replace"))
            for name, text in zip(*columns, strict=True)
        ]
    pairs.sort()
    if len(pairs) <= most:
        return [{"name": name, "fingerprint": text} for name, text in pairs]
    return {"count": len(pairs), "digest": hashlib.sha256(json.dumps(pairs).encode()).hexdigest()[:16]}


def named_keys(keys: Sequence[Key | KeyIndex], fingerprints: Collection[str]) -> dict[str, Key]:
    """Return the keys with some fingerprints; those of an index file have its rounded numbers."""
    found: dict[str, Key] = {}
    for each in keys:
        if isinstance(each, Key):
            found |= {each.fingerprint: each} if each.fingerprint in fingerprints else {}
            continue
        rows = np.flatnonzero(np.isin(each.facts["fingerprint"], [text.encode() for text in fingerprints]))
        for name, text, numbers in zip(*each.entries(rows), strict=True):
            found[text] = Key.of(each.family, name, numbers.astype(np.float64))
    return found


def is_index(path: str | Path) -> bool:
    """Return whether a file begins as a key index does; `KeyFileError` if it cannot be opened as a secret file."""
    with opened_secret(path, "key file or index", "treering keygen or keys index", (b"{", MAGIC)) as file:
        return file.read(len(MAGIC)) == MAGIC


def key_files(paths: Sequence[str | Path]) -> list[Path]:
    """List the key files that paths name: a folder stands for its *.json, in the order of their names.

    Raises
    ------
    UsageError
        If a folder holds no key file.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = sorted(path.glob("*.json"))
            if not inside:
                raise UsageError(f"no *.json in {printable(str(path))}: name a folder of key files, or the files")
            found += inside
        else:
            found.append(path)
    return found


def load_keys(paths: Sequence[str | Path]) -> list[KeyIndex]:
    """Load key files, folders of them and index files: one index for each index file, and one for each family of keys.

    Raises
    ------
    KeyFileError
        As `Key.load` and `KeyIndex.load`.
    UsageError
        If there is no key.
    """
    found = read_keys(paths)
    indexes = [each for each in found if isinstance(each, KeyIndex)]
    return indexes + group_keys([each for each in found if isinstance(each, Key)])


def read_keys(paths: Sequence[str | Path]) -> list[Key | KeyIndex]:
    """Read what paths name, in order: a key for each key file and each *.json in a folder, an index for each index file.

    Raises
    ------
    KeyFileError
        As `Key.load` and `KeyIndex.load`.
    UsageError
        If a folder holds no key file.
    """
    return [KeyIndex.load(path) if is_index(path) else Key.load(path) for path in key_files(paths)]


def group_keys(keys: Sequence[Key]) -> list[KeyIndex]:
    """Return one index of unrounded numbers for each family among keys."""
    families: dict[Family, list[Key]] = {}
    for key in keys:
        families.setdefault(key.family, []).append(key)
    return [KeyIndex.from_keys(group) for group in families.values()]
