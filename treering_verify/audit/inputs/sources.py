"""Sources of an audit's inputs: folders, files, globs, URLs, lists and manifests, listed in a fixed order.

Folders are walked depth first, names in the order of their bytes; links are never followed. Memory does not grow with the
number of inputs: a folder's names are sorted in runs on disk, and a table on disk recognises repeated inputs. In an audit of
videos, a folder that directly contains still images is one input, and the images are none.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import heapq
import os
import sqlite3
import struct
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any, NamedTuple

from treering_verify.audit.inputs.manifests import STDIN, list_entries, manifest_entries
from treering_verify.audit.inputs.urls import is_url
from treering_verify.errors import ImageError
from treering_verify.media.containers import JOIN, is_archive, list_members, stays_in
from treering_verify.media.frame_folders import is_still_file

_QUOTES = ("'", '"')
_RUN = 32_768  # names sorted in memory at a time


class Entry(NamedTuple):
    """One input: a local path (undecodable bytes as surrogates) or a URL; `code` if it is refused without reading."""

    path: str
    url: bool = False
    code: str = ""


@dataclass(frozen=True)
class Inputs:
    """The inputs of an audit, as the user named them.

    Attributes
    ----------
    paths : tuple of str
        Files, ZIP and tar archives, folders, glob patterns (unless a file has that name) and URLs.
    files_from : tuple of str
        Files with one path or URL a line; "-" is standard input. A folder in a list is not walked.
    null : bool
        Entries of lists end with NUL, as `find -print0` writes them, instead of a line break.
    manifests : tuple of str
        Parquet, Arrow, JSON Lines or CSV files.
    column : str
        The manifests' column; "": path, url, file, filename, image, or another usual name, in this order, or the only one.
    root : str
        Folder that local paths of lists and manifests must stay in; "": the list's own folder, of standard input the working
        directory. Relative paths begin in the working directory all the same.
    """

    paths: tuple[str, ...] = ()
    files_from: tuple[str, ...] = ()
    null: bool = False
    manifests: tuple[str, ...] = ()
    column: str = ""
    root: str = ""

    def __post_init__(self) -> None:
        """Take one path for a tuple of one, and `Path` for str: a string's letters would be taken for paths."""
        for name in ("paths", "files_from", "manifests"):
            given = getattr(self, name)
            paths = (given,) if isinstance(given, str | os.PathLike) else given
            object.__setattr__(self, name, tuple(os.fspath(path) for path in paths))
        object.__setattr__(self, "root", os.fspath(self.root))

    def facts(self) -> dict[str, Any]:
        """Return a JSON-ready form, with the folder where relative paths begin."""
        facts = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
        relative = self.files_from or self.manifests or not all(os.path.isabs(p) or is_url(p) for p in self.paths)
        return {**facts, "folder": os.getcwd() if relative else ""}

    @classmethod
    def of(cls, facts: dict[str, Any]) -> Inputs:
        """Return the inputs that `facts` described."""
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in facts.items() if k != "folder"}
        return cls(**fields)


def list_inputs(inputs: Inputs, scratch: Path, excluded: Path | None = None, framed: bool = False) -> Iterator[Entry]:
    """Yield every input once, in order; an input that is named twice, or is in two named folders, at its first place.

    Two paths are one if their absolute forms are equal; links are not resolved, so a hard link is an input of its own.

    Parameters
    ----------
    inputs : Inputs
    scratch : Path
        Folder for temporary files.
    excluded : Path, optional
        A folder that is not walked: the audit's own output.
    framed : bool
        The walk yields a folder of still images in their place, where the first one is.

    Raises
    ------
    UsageError
        If a list or manifest cannot be read, or a manifest has no such column.
    """
    found = _all(inputs, _Walk(scratch, _identity(excluded) if excluded else None, framed))
    alone = len(inputs.paths) == 1 and not inputs.files_from and not inputs.manifests
    if alone and not glob.has_magic(inputs.paths[0]):
        return found  # one folder or file: a walk meets no path twice
    return _distinct(found, scratch)


class _Walk(NamedTuple):
    scratch: Path
    excluded: tuple[int, int] | None
    framed: bool


def _all(inputs: Inputs, walk: _Walk) -> Iterator[Entry]:
    for path in inputs.paths:
        if is_url(path):
            yield _named(path)
        elif os.path.lexists(path) or not glob.has_magic(path):
            yield from _walk_argument(path, walk)
        else:
            matches = ((os.fsencode(match), b"") for match in glob.iglob(path, recursive=True))
            empty = True
            for match, _ in _sorted(matches, walk.scratch):
                empty = False
                yield from _walk_argument(os.fsdecode(match), walk)
            if empty:
                yield Entry(path)  # its row says "not found": every named input gets one
    for name in inputs.files_from:
        root = os.path.realpath(inputs.root or ("." if name == STDIN else os.path.dirname(name) or "."))
        for text in list_entries(name, b"\0" if inputs.null else b"\n"):
            yield _within(root, _named(text if inputs.null else _meant(text)), "")
    for name in inputs.manifests:
        root = os.path.realpath(inputs.root or os.path.dirname(name) or ".")
        for text in manifest_entries(name, inputs.column):
            yield _within(root, _named(_meant(text)), name)


def _meant(text: str) -> str:
    """Return an entry without white space and quotes around it, unless a file has that very name.

    Backslashes of Windows become slashes where a file has that name.
    """
    odd = text != text.strip() or text[:1] in _QUOTES or "\\" in text
    if not odd or os.path.lexists(text):
        return text
    text = text.strip() or text
    if len(text) > 2 and text[0] == text[-1] and (quote := text[0]) in _QUOTES:
        text = text[1:-1].replace(2 * quote, quote)
    slashed = text.replace("\\", "/")
    return slashed if slashed != text and not os.path.lexists(text) and os.path.lexists(slashed) else text


def _named(text: str) -> Entry:
    if text.lower().startswith("file://"):
        from urllib.parse import unquote, urlsplit

        place = urlsplit(text)
        if place.netloc.lower() not in ("", "localhost"):
            return Entry(text, True)  # of another machine: refused as a URL
        return Entry(unquote(place.path, errors="surrogateescape"))
    return Entry(text, is_url(text))


def _within(root: str, entry: Entry, manifest: str) -> Entry:
    """Return an entry of a list as it is if it is a URL or stays in the root, otherwise with the code of its refusal.

    Images within the manifest itself are in no other file.
    """
    path = entry.path
    own = manifest and path.startswith(f"{manifest}{JOIN}") and not os.path.lexists(path)
    if entry.url or own:
        return entry
    try:
        inside = stays_in(root, path)
    except (OSError, ValueError):  # a NUL, or a name that no file can have
        return entry  # reading it says so
    return entry if inside else entry._replace(code="outside_root")


def _walk_argument(path: str, walk: _Walk) -> Iterator[Entry]:
    """Yield the inputs of a path that the user named. Only such a path may be a link to a folder, which is followed."""
    if os.path.isdir(path):
        if _identity(path) != walk.excluded:
            yield from _walk(path, walk)
    else:
        yield from _file(path, walk)


def _file(path: str, walk: _Walk) -> Iterator[Entry]:
    """Yield a file that a walk met, or the members of an archive; where videos are audited, archives stay whole."""
    if walk.framed or not is_archive(path):
        yield Entry(path)
        return
    try:
        for member in list_members(path):
            yield Entry(f"{path}{JOIN}{member}")
    except ImageError as error:
        yield Entry(path, code=error.code)


def _walk(folder: str, walk: _Walk) -> Iterator[Entry]:
    """Yield the inputs in a folder, depth first; by a stack, because folders can be nested deeper than Python's calls."""
    stack: list[tuple[str, Iterator[tuple[bytes, bytes]]]] = []

    def enter(path: str) -> Iterator[Entry]:
        try:
            listing = _sorted(_listing(path), walk.scratch)
            stack.append((path, _with_frames_as_one(path, listing) if walk.framed else listing))
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
        if not entry[0]:
            yield Entry(inside if os.path.islink(path) else path)  # with a slash a link is the folder that it leads to
        elif entry[1] != b"d":
            yield from _file(inside, walk)
        elif walk.excluded is None or _identity(inside) != walk.excluded:
            yield from enter(inside)


def _listing(path: str) -> Iterator[tuple[bytes, bytes]]:
    with os.scandir(path) as listing:
        for entry in listing:
            is_folder, is_file = entry.is_dir(follow_symlinks=False), entry.is_file(follow_symlinks=False)
            yield os.fsencode(entry.name), b"d" if is_folder else b"f" if is_file else b"-"


def _with_frames_as_one(folder: str, listing: Iterator[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bytes]]:
    """Yield a folder's listing with one nameless item in the place of its still images."""
    met = False
    for name, kind in listing:
        if kind == b"f" and is_still_file(os.path.join(folder, os.fsdecode(name))):
            if not met:
                yield b"", kind
            met = True
        else:
            yield name, kind


def _sorted(items: Iterable[tuple[bytes, bytes]], scratch: Path) -> Iterator[tuple[bytes, bytes]]:
    """Return names, each with a byte for its kind, sorted; many are sorted in runs on disk, so that memory stays bounded."""
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
    """Yield the entries without repetitions; the digests of earlier ones are on disk."""
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        earlier = sqlite3.connect(os.path.join(folder, "earlier"), isolation_level=None)
        with contextlib.closing(earlier):
            earlier.execute("PRAGMA journal_mode=OFF")
            earlier.execute("PRAGMA synchronous=OFF")
            earlier.execute("CREATE TABLE earlier (digest BLOB PRIMARY KEY) WITHOUT ROWID")
            earlier.execute("BEGIN")
            for entry in found:
                text = entry.path if entry.url else _absolute(entry.path)
                digest = hashlib.blake2b(os.fsencode(text) + (b"\0u" if entry.url else b""), digest_size=16).digest()
                if earlier.execute("INSERT OR IGNORE INTO earlier VALUES (?)", (digest,)).rowcount:
                    yield entry


def _absolute(path: str) -> str:
    joined = os.path.join(os.getcwd(), path)
    return joined if ".." in joined.split(os.sep) else os.path.normpath(joined)  # a/link/../b need not be a/b
