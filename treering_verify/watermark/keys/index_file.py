"""The file format of a key index: many keys of one family, memory-mapped, searched without reading it whole.

Version 2, little-endian, readable by its owner only (0600), because it holds secrets:

    0        "treering key index", a newline, JSON, padded with spaces to 4096 bytes
    4096     N facts of 136 bytes: length, drift, fingerprint, name, checksum, retired, prk (`FACTS`)
    x        N x d numbers, float16 or float32, row by row; x is the next multiple of 4096

The JSON names type, schema_version, the family, count, dtype and the SHA-256 of the other fields. `length` is that of
the stored row, `drift` bounds what rounding changes (`treering_detectors.direction_drift`), `checksum` is the CRC-32 of the
row and the other facts. `retired` is the first day on which the key is retired, counted from 1 for 0001-01-01, or 0. `prk`
is the pseudorandom key from which the key's numbers are derived, or zeros. A key's checksum is tested when a verdict is
about to name it, and its derivation when it is detected: reading gigabytes takes longer than searching them.

Version 1, which is still read, has facts of 104 bytes, without `prk`.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date
from itertools import islice
from operator import index as integer
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from treering_verify.errors import KeyFileError, UsageError, unknown
from treering_verify.files import printable, written_whole
from treering_verify.watermark.key_derivation import PRK_BYTES
from treering_verify.watermark.keys.key import Key
from treering_verify.watermark.keys.key_family import Family
from treering_verify.watermark.patterns import PATTERNS

SCHEMA_VERSION = 2
DTYPES = ("float16", "float32")
FACTS_1 = np.dtype(
    [
        ("length", "<f8"),
        ("drift", "<f8"),
        ("fingerprint", "S16"),
        ("name", "S64"),
        ("checksum", "<u4"),
        ("retired", "<u4"),
    ]
)
FACTS = np.dtype([*FACTS_1.descr, ("prk", "u1", (PRK_BYTES,))])
_FACTS = {1: FACTS_1, SCHEMA_VERSION: FACTS}
MAGIC = b"treering key index\n"
MAKER = "treering keys index"
PAGE = 4096
_BLOCK = 512  # keys encoded together


class Block(NamedTuple):
    """Some keys of a family: names, fingerprints, exact numbers (n, d), days of retirement, and pseudorandom keys."""

    names: Sequence[str]
    fingerprints: Sequence[str]
    numbers: npt.NDArray[np.float64]
    retired: Sequence[date | None] | None = None
    prks: Sequence[bytes] | None = None


def check_searchable(family: Family) -> None:
    """Raise UsageError for a family that the cosine test is not made for, by which an index is searched."""
    if not PATTERNS[family.pattern].cosine:
        searched = ", ".join(name for name, pattern in PATTERNS.items() if pattern.cosine)
        raise UsageError(
            f"keys of pattern {family.pattern} cannot be indexed or identified, only verified, with treering verify "
            f"--key for each; patterns that can: {searched}"
        )


def blocks_of(keys: Iterable[Key], family: Family) -> Iterator[Block]:
    """Gather keys into blocks.

    Raises
    ------
    UsageError
        If a key is of another family.
    """
    remaining = iter(keys)
    while some := list(islice(remaining, _BLOCK)):
        for key in some:
            if key.family != family:
                raise UsageError(
                    f"key {key.name!r} is of another family ({key.family}) than those before it ({family}): "
                    "an index holds one family, so make one index for each"
                )
        yield Block(
            [k.name for k in some],
            [k.fingerprint for k in some],
            np.stack([k.numbers for k in some]),
            [k.retired for k in some],
            [k.prk for k in some],
        )


def write_index(path: str | Path, family: Family, count: int, blocks: Iterable[Block], dtype: str = "float16") -> None:
    """Write an index file, whole or not at all, readable by its owner only, never over an existing file.

    Parameters
    ----------
    path : path
        A file that does not exist.
    family : Family
        What the keys share.
    count : int
        Number of keys in all blocks, N >= 1.
    blocks : iterable of Block
        Read one at a time. Memory is that of one block, and 16 bytes a key to find equal ones.
    dtype : {"float16", "float32"}
        float16 halves the file and raises p-values a little: at d = 1024 and p = 1e-50 at most by a tenth of a decade.

    Raises
    ------
    UsageError
        If keys of the pattern cannot be searched, the blocks do not hold `count` keys, two keys have the same name or
        numbers, or a number does not fit `dtype`.
    KeyFileError
        If the file exists or cannot be written.
    """
    if dtype not in DTYPES:
        raise UsageError(unknown("number type", dtype, DTYPES))
    if count < 1:
        raise UsageError("there is no key: give at least one")
    check_searchable(family)
    kind, shown = np.dtype(dtype).newbyteorder("<"), printable(str(path))
    row_bytes = family.degrees_of_freedom * kind.itemsize
    names, prints = (np.empty(count, np.uint64) for _ in range(2))
    done = 0
    try:
        with written_whole(path, 0o600, exclusive=True) as file:
            file.write(_header(family, count, dtype))
            for block in blocks:
                facts, rows = encode(block, kind)
                if done + len(facts) > count:
                    raise UsageError(f"the blocks hold more than {count} keys: pass their number as count")
                file.seek(PAGE + done * FACTS.itemsize)
                file.write(facts.tobytes())
                file.seek(numbers_start(count) + done * row_bytes)
                file.write(rows.tobytes())
                names[done : done + len(facts)] = hash_texts(facts["name"])
                prints[done : done + len(facts)] = hash_texts(facts["fingerprint"])
                done += len(facts)
            if done < count:
                raise UsageError(f"the blocks hold {done} keys and not {count}: pass their number as count")
            for hashes in (names, prints):
                check_distinct(hashes, lambda row: _name_at(file, row))
    except FileExistsError as error:
        raise KeyFileError(f"{shown} exists: an index is never overwritten; name another file") from error
    except OSError as error:
        raise KeyFileError(f"cannot write {shown}: {error.strerror}") from error


def encode(block: Block, kind: np.dtype[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[np.floating]]:
    """Return the facts and the stored numbers of a block."""
    from treering_detectors import direction_drift

    exact = np.asarray(block.numbers, dtype=np.float64)
    with np.errstate(over="ignore"):
        stored: npt.NDArray[np.floating] = exact.astype(kind)
    facts = np.zeros(len(exact), FACTS)
    facts["length"] = np.linalg.norm(stored.astype(np.float64), axis=1)
    bad = np.flatnonzero(~np.isfinite(facts["length"]) | (facts["length"] == 0))
    if len(bad):
        raise UsageError(
            f"key {block.names[bad[0]]!r} has numbers that are all zero or too large for {kind.name}: leave it out"
        )
    facts["drift"] = direction_drift(exact, stored)
    facts["fingerprint"] = [text.encode() for text in block.fingerprints]
    facts["name"] = [name.encode() for name in block.names]
    if block.retired is not None:
        facts["retired"] = [day.toordinal() if day else 0 for day in block.retired]
    if block.prks is not None:
        for row, prk in zip(facts["prk"], block.prks, strict=True):
            row[: len(prk)] = np.frombuffer(prk, np.uint8)
    facts["checksum"] = checksums(facts, stored)
    return facts, stored


def checksums(facts: npt.NDArray[Any], rows: npt.NDArray[np.floating]) -> list[int]:
    """Return the CRC-32 of each key's facts, without the checksum itself, and row."""
    others = facts.copy()
    others["checksum"] = 0
    return [zlib.crc32(row.tobytes(), zlib.crc32(fact.tobytes())) for fact, row in zip(others, rows, strict=True)]


def _header(family: Family, count: int, dtype: str) -> bytes:
    fields = {
        "type": "treering key index",
        "schema_version": SCHEMA_VERSION,
        "pattern": family.pattern,
        "channels": list(family.channels),
        "inner_radius": family.inner_radius,
        "outer_radius": family.outer_radius,
        "latent_shape": list(family.latent_shape),
        "count": count,
        "dtype": dtype,
    }
    text = MAGIC + json.dumps({**fields, "sha256": _digest(fields)}).encode()
    if len(text) > PAGE:
        raise UsageError("the family has too many channels for the header of an index: choose fewer")
    return text.ljust(PAGE)


def _digest(fields: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def parse_header(header: bytes, shown: str) -> tuple[Family, int, np.dtype[Any], np.dtype[Any]]:
    """Return family, count, and types of numbers and facts; KeyFileError if it is damaged or of an unknown version."""
    try:
        if len(header) != PAGE or not header.startswith(MAGIC):
            raise ValueError
        fields = json.loads(header[len(MAGIC) :])
        digest = fields.pop("sha256")
        if fields["type"] != "treering key index" or fields["schema_version"] not in _FACTS:
            raise ValueError
        facts = _FACTS[fields["schema_version"]]
        if digest != _digest(fields):
            raise damaged(shown)
        family = Family(
            str(fields["pattern"]),
            tuple(integer(c) for c in fields["channels"]),
            integer(fields["inner_radius"]),
            integer(fields["outer_radius"]),
            tuple(integer(n) for n in fields["latent_shape"]),  # type: ignore[arg-type]
        )
        check_searchable(family)
        count = integer(fields["count"])
        if fields["dtype"] not in DTYPES or count < 1:
            raise ValueError
    except (ValueError, TypeError, KeyError, AttributeError, UsageError, RecursionError):
        raise KeyFileError(f"{shown} is not a key index of version {SCHEMA_VERSION}: make one with {MAKER}") from None
    return family, count, np.dtype(fields["dtype"]).newbyteorder("<"), facts


def numbers_start(count: int, facts: np.dtype[Any] = FACTS) -> int:
    """Return the offset of the numbers in an index file of `count` keys."""
    return -(-(PAGE + count * facts.itemsize) // PAGE) * PAGE


def hash_texts(texts: npt.NDArray[np.bytes_]) -> npt.NDArray[np.uint64]:
    """Return eight bytes of a digest of each text; among a million texts the chance of a collision is 3e-8."""
    return np.array(
        [int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") for text in texts.tolist()], np.uint64
    )


def check_distinct(hashes: npt.NDArray[np.uint64], name_at: Callable[[int], bytes]) -> None:
    """Raise UsageError if two keys have one name or the same numbers: a verdict could not say which matched."""
    order = np.argsort(hashes, kind="stable")
    same = np.flatnonzero(hashes[order][1:] == hashes[order][:-1])
    if len(same):
        first, second = (name_at(int(row)).decode() for row in order[same[0] : same[0] + 2])
        what = "the same name" if first == second else "the same numbers"
        raise UsageError(
            f"two keys ({first!r} and {second!r}) have {what}, so a verdict could not say which matched: "
            "rename one (keygen --name), or leave one out"
        )


def _name_at(file: BinaryIO, row: int) -> bytes:
    file.seek(PAGE + row * FACTS.itemsize)
    name: bytes = np.frombuffer(file.read(FACTS.itemsize), FACTS)["name"][0]
    return name


def damaged(shown: str) -> KeyFileError:
    """Return the error for a damaged index file."""
    return KeyFileError(f"the key index {shown} is damaged: make it again with {MAKER}")
