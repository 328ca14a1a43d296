"""Which inputs an audit has: folders, files, globs, lists and manifests, one after another, in an order that is kept.

Folders are walked depth first, names in the order of their bytes, links never followed. Nothing here grows with the number
of inputs: a folder's names are sorted in runs that lie on disk, and what was seen before is looked up there.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import heapq
import os
import re
import sqlite3
import struct
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any, NamedTuple

from treering_verify.errors import UsageError
from treering_verify.files import printable

STDIN = "-"
_RUN = 32_768  # names sorted in memory at a time
_BLOCK = 1 << 16
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(::[A-Za-z][A-Za-z0-9+.-]*)*://")
_COLUMNS = ("path", "url", "file", "filename", "image")  # a manifest's column where none is named


class Entry(NamedTuple):
    """One input: a local path (undecodable bytes as surrogates) or a URL; `code` where it is judged already."""

    path: str
    url: bool = False
    code: str = ""


@dataclass(frozen=True)
class Inputs:
    """What an audit was asked to look at.

    Attributes
    ----------
    paths : tuple of str
        Files, folders, glob patterns (where no file has that very name) and URLs.
    lists : tuple of str
        Files of paths or URLs, one a line; "-" is standard input. A folder in a list is not walked.
    nul : bool
        The lists' entries end with NUL, as `find -print0` writes them, and not with the line.
    manifests : tuple of str
        Parquet or CSV files.
    column : str
        The manifests' column; "": the first of path, url, file, filename, image that there is, or the only one.
    """

    paths: tuple[str, ...] = ()
    lists: tuple[str, ...] = ()
    nul: bool = False
    manifests: tuple[str, ...] = ()
    column: str = ""

    def facts(self) -> dict[str, Any]:
        """JSON-ready form, with the folder that relative paths begin at."""
        facts = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
        relative = self.lists or self.manifests or not all(os.path.isabs(p) or is_url(p) for p in self.paths)
        return {**facts, "folder": os.getcwd() if relative else ""}

    @classmethod
    def of(cls, facts: dict[str, Any]) -> Inputs:
        """Make inputs of what `facts` gave."""
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in facts.items() if k != "folder"}
        return cls(**fields)


def is_url(text: str) -> bool:
    """Whether a text is a URL and not a local path; `./` before it makes it a path. `file:` URLs are paths."""
    return _URL.match(text) is not None


def entries(inputs: Inputs, scratch: Path, excluded: Path | None = None) -> Iterator[Entry]:
    """Yield every input once, in order: what is named twice, or lies in two named folders, comes at its first place.

    Two paths are one if their absolute forms are equal; links are not resolved, so a hard link is an input of its own.

    Parameters
    ----------
    inputs : Inputs
    scratch : Path
        Folder for temporary files.
    excluded : Path, optional
        A folder that is not walked: the audit's own output.

    Raises
    ------
    UsageError
        If a list or manifest cannot be read, or a manifest has no such column.
    """
    found = _all(inputs, scratch, _identity(excluded) if excluded else None)
    if len(inputs.paths) == 1 and not inputs.lists and not inputs.manifests and not glob.has_magic(inputs.paths[0]):
        return found  # one folder or file: a walk meets no path twice
    return _distinct(found, scratch)


def _all(inputs: Inputs, scratch: Path, excluded: tuple[int, int] | None) -> Iterator[Entry]:
    for path in inputs.paths:
        if is_url(path):
            yield _named(path)
        elif os.path.lexists(path) or not glob.has_magic(path):
            yield from _walk_argument(path, scratch, excluded)
        else:
            matches = ((os.fsencode(match), b"") for match in glob.iglob(path, recursive=True))
            empty = True
            for match, _ in _sorted(matches, scratch):
                empty = False
                yield from _walk_argument(os.fsdecode(match), scratch, excluded)
            if empty:
                yield Entry(path)  # a row that says so: nothing that was asked for goes missing
    for name in inputs.lists:
        yield from map(_named, _listed(name, b"\0" if inputs.nul else b"\n"))
    for name in inputs.manifests:
        yield from map(_named, _tabled(name, inputs.column))


def _named(text: str) -> Entry:
    if text.lower().startswith("file://"):
        from urllib.parse import unquote, urlsplit

        return Entry(unquote(urlsplit(text).path, errors="surrogateescape"))
    return Entry(text, is_url(text))


def _walk_argument(path: str, scratch: Path, excluded: tuple[int, int] | None) -> Iterator[Entry]:
    """Walk a path that the user named; there, and nowhere else, a link to a folder is followed."""
    if os.path.isdir(path):
        if _identity(path) != excluded:
            yield from _walk(path, scratch, excluded)
    else:
        yield Entry(path)


def _walk(folder: str, scratch: Path, excluded: tuple[int, int] | None) -> Iterator[Entry]:
    """Depth first; a stack of listings and not a recursion, as folders can be nested deeper than Python calls."""
    stack: list[tuple[str, Iterator[tuple[bytes, bytes]]]] = []

    def enter(path: str) -> Iterator[Entry]:
        try:
            stack.append((path, _sorted(_listing(path), scratch)))
        except OSError:
            yield Entry(path, code="folder_not_readable")

    yield from enter(folder)
    while stack:
        path, listing = stack[-1]
        entry = next(listing, None)
        if entry is None:
            stack.pop()
            continue
        inside = os.path.join(path, os.fsdecode(entry[0]))
        if entry[1] != b"d":
            yield Entry(inside)
        elif excluded is None or _identity(inside) != excluded:
            yield from enter(inside)


def _listing(path: str) -> Iterator[tuple[bytes, bytes]]:
    with os.scandir(path) as listing:
        for entry in listing:
            yield os.fsencode(entry.name), b"d" if entry.is_dir(follow_symlinks=False) else b"f"


def _sorted(items: Iterable[tuple[bytes, bytes]], scratch: Path) -> Iterator[tuple[bytes, bytes]]:
    """Sort names with a byte each; many are sorted in runs on disk, so that memory stays bounded."""
    remaining = iter(items)
    run = sorted(islice(remaining, _RUN))
    if len(run) < _RUN:
        return iter(run)
    runs = []
    while run:
        runs.append(_spill(run, scratch))
        run = sorted(islice(remaining, _RUN))
    return heapq.merge(*map(_spilled, runs))


def _spill(run: list[tuple[bytes, bytes]], scratch: Path) -> IO[bytes]:
    file = tempfile.TemporaryFile(dir=scratch)  # noqa: SIM115  (nameless; it goes when the merge drops it)
    for name, kind in run:
        file.write(struct.pack(">I", len(name)) + name + kind.ljust(1, b"-"))
    file.seek(0)
    return file


def _spilled(file: IO[bytes]) -> Iterator[tuple[bytes, bytes]]:
    with file:
        while head := file.read(4):
            record = file.read(struct.unpack(">I", head)[0] + 1)
            yield record[:-1], record[-1:]


def _identity(path: str | Path) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _distinct(found: Iterable[Entry], scratch: Path) -> Iterator[Entry]:
    """Leave out what came before; the digests of what was seen lie on disk."""
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        seen = sqlite3.connect(os.path.join(folder, "seen"), isolation_level=None)
        with contextlib.closing(seen):
            seen.execute("PRAGMA journal_mode=OFF")
            seen.execute("PRAGMA synchronous=OFF")
            seen.execute("CREATE TABLE seen (digest BLOB PRIMARY KEY) WITHOUT ROWID")
            seen.execute("BEGIN")
            for entry in found:
                text = entry.path if entry.url else _absolute(entry.path)
                digest = hashlib.blake2b(os.fsencode(text) + (b"\0u" if entry.url else b""), digest_size=16).digest()
                if seen.execute("INSERT OR IGNORE INTO seen VALUES (?)", (digest,)).rowcount:
                    yield entry


def _absolute(path: str) -> str:
    joined = os.path.join(os.getcwd(), path)
    return joined if ".." in joined.split(os.sep) else os.path.normpath(joined)  # a/link/../b need not be a/b


def _listed(name: str, end: bytes) -> Iterator[str]:
    """Entries of a list; empty ones are left out, and a carriage return before a line's end."""
    shown = "standard input" if name == STDIN else printable(name)
    try:
        with contextlib.nullcontext(sys.stdin.buffer) if name == STDIN else open(name, "rb") as file:
            rest = b""
            while block := file.read(_BLOCK):
                *whole, rest = (rest + block).split(end)
                for line in whole:
                    if text := line if end == b"\0" else line.removesuffix(b"\r"):
                        yield os.fsdecode(text)
            if rest := rest if end == b"\0" else rest.removesuffix(b"\r"):
                yield os.fsdecode(rest)
    except OSError as error:
        raise UsageError(f"cannot read the list {shown}: {error.strerror}") from error


def _tabled(name: str, column: str) -> Iterator[str]:
    """Entries of a manifest's column; empty ones are left out."""
    shown = printable(name)
    try:
        with open(name, "rb") as file:
            is_parquet = file.read(4) == b"PAR1"
        yield from _parquet(name, column) if is_parquet else _csv(name, column)
    except OSError as error:
        raise UsageError(f"cannot read the manifest {shown}: {error.strerror or error}") from error
    except (ValueError, LookupError) as error:  # pyarrow's errors are among them; csv's is turned into one
        raise UsageError(f"the manifest {shown} cannot be used: {printable(str(error))}") from error


def _parquet(name: str, column: str) -> Iterator[str]:
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(name) as table:
        chosen = _choose(table.schema_arrow.names, column)
        for batch in table.iter_batches(4096, columns=[chosen]):
            for value in batch.column(0).to_pylist():
                if value:
                    yield os.fsdecode(value) if isinstance(value, bytes) else str(value)


def _csv(name: str, column: str) -> Iterator[str]:
    import csv

    with open(name, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        rows = csv.reader(file)
        try:
            header = next(rows, [])
            place = header.index(_choose(header, column))
            for row in rows:
                if len(row) > place and row[place]:
                    yield row[place]
        except csv.Error as error:
            raise ValueError(f"line {rows.line_num}: {error}") from error


def _choose(names: list[str], column: str) -> str:
    candidates = [column] if column else [*_COLUMNS, *(names if len(names) == 1 else [])]
    for candidate in candidates:
        if candidate in names:
            return candidate
    listed = ", ".join(names[:20])
    raise LookupError(f"no column {column!r} in it: choose one of {listed}" if column else f"--column one of {listed}")
