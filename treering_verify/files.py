"""Safe file access: printable names, opening without blocking, private secrets, and atomic writing."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from treering_verify.errors import KeyFileError, UsageError

if TYPE_CHECKING:
    import pyarrow

_HEAD_BYTES = 1 << 20
_NAMED = b"treering "  # in JSON files of secrets, which say their type; its place is any


def printable(text: str) -> str:
    r"""Return a text with the characters escaped that a terminal or a log must not receive.

    Control, bidirectional-override, other invisible and undecodable characters (all occur in file names) become ``\x1b``,
    ``\u202e``, ``\udcff``. Letters of every script and plain spaces stay. The result can always be encoded as UTF-8.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def is_older(path: Path, other: Path) -> bool:
    """Return whether a file is missing, or was written before another that exists."""
    return not path.exists() or path.stat().st_mtime_ns < other.stat().st_mtime_ns


def parsed_json(data: bytes) -> Any:
    """Parse JSON of unknown origin, with a limit on how many lists and objects it has.

    A list of empty lists takes twenty times its size in memory. Files of this package have a list or an object for each
    hundred bytes, or few in all.

    Raises
    ------
    ValueError
        If it is no JSON, or has more lists and objects than 10,000 and one for each 50 bytes.
    RecursionError
        If it is nested too deep.
    """
    if data.count(b"[") + data.count(b"{") > 10_000 + len(data) // 50:
        raise ValueError("too many lists and objects")
    return json.loads(data)


def open_descriptor(path: str | Path) -> int:
    """Open a file for reading without blocking, and return the descriptor, which the caller examines and closes.

    A FIFO without a writer would block a plain `open`, and a terminal could become the controlling terminal.

    Raises
    ------
    OSError
        As `os.open` raises it.
    ValueError
        If no file can have that name, because of a NUL or a character that the file system cannot encode.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0)
    return os.open(path, flags)


@contextlib.contextmanager
def opened_regular(path: str | Path) -> Iterator[BinaryIO]:
    """Open a regular file for reading, binary; refuse anything else, such as a pipe, without waiting for it.

    A library that is given the open file takes its name for what it is; given the name, it may take it for a URL.

    Raises
    ------
    OSError
        If it is no regular file, or cannot be opened.
    """
    try:
        descriptor = open_descriptor(path)
    except ValueError as error:  # a NUL in the path
        raise FileNotFoundError(errno.ENOENT, "no file can have that name") from error
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        yield file


@contextlib.contextmanager
def opened_table(path: str | Path) -> Iterator[pyarrow.NativeFile]:
    """Open a regular file for pyarrow, which reads it without calling Python.

    Given a file that Python opened, pyarrow's threads let go of it when they please; if the interpreter is ending by then,
    the process aborts ("terminate called without an active exception", https://github.com/apache/arrow/issues/34314).

    Raises
    ------
    OSError
        If it is no regular file, or cannot be opened.
    """
    import pyarrow

    with opened_regular(path) as file, pyarrow.OSFile(f"/dev/fd/{file.fileno()}") as opened:
        yield opened


def _begins(descriptor: int, begins: tuple[bytes, ...]) -> bool:
    """Whether an open file begins in one of some ways, and is no JSON of another kind."""
    head = os.pread(descriptor, max(map(len, begins)), 0)
    if head.startswith(b"{"):
        whole = os.pread(descriptor, _HEAD_BYTES, 0)
        if len(whole) < _HEAD_BYTES and _NAMED not in whole:
            return False
    return head.startswith(begins)


@contextlib.contextmanager
def opened_secret(path: str | Path, kind: str, maker: str, begins: tuple[bytes, ...] = ()) -> Iterator[BinaryIO]:
    """Open a file of secrets for reading, if only its owner can access it.

    Parameters
    ----------
    path
        The file.
    kind, maker
        What the file should be, and the command that makes such files, for messages.
    begins
        First bytes of such files, if known. Another file is then refused for its content, not for its mode.

    Yields
    ------
    file
        Binary, at its beginning.

    Raises
    ------
    KeyFileError
        If the file is missing, not regular, begins otherwise, is readable by others, or cannot be read.
    """
    shown = printable(str(path))
    try:
        descriptor = open_descriptor(path)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise KeyFileError(f"{shown} is not a regular file: name a {kind} made by {maker}")
            if begins and not _begins(descriptor, begins):
                raise KeyFileError(f"{shown} is not a {kind}: make one with {maker}")
            if os.name == "posix" and status.st_mode & 0o077:
                raise KeyFileError(f"others can read the {kind} {shown}: run chmod 600 on it, and consider a new key")
            with open(descriptor, "rb", closefd=False) as file:
                yield file
        finally:
            os.close(descriptor)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise KeyFileError(f"cannot read the {kind} {shown}: {getattr(error, 'strerror', error)}") from error


def write_atomic(path: str | Path, data: bytes, mode: int = 0o644, exclusive: bool = False) -> None:
    """Write a file so that it has either the old or all of the new content, even after a crash.

    Parameters and errors are those of `written_whole`.
    """
    with written_whole(path, mode, exclusive) as file:
        file.write(data)


@contextlib.contextmanager
def written_whole(path: str | Path, mode: int = 0o644, exclusive: bool = False) -> Iterator[BinaryIO]:
    """Yield a file to write, which replaces the named file only when it is complete.

    The data goes to a temporary file in the same folder, is synced, and is renamed in one step. On every failure the
    temporary file is removed. A symbolic link is followed, unless `exclusive`.

    Parameters
    ----------
    path
        The final name.
    mode
        Permission bits before the process's umask, which hold from the first byte on; 0o600 for secrets.
    exclusive
        Raise an error for an existing name instead of replacing it, without a gap between check and creation.

    Yields
    ------
    file
        Binary, for writing, seeking and reading. An exception in the block leaves the old file unchanged.

    Raises
    ------
    FileExistsError
        If `exclusive` and the name exists.
    UsageError
        If the name is a folder, device, FIFO or socket (renaming over /dev/null would destroy it).
    OSError
        If the file cannot be written.
    """
    target = Path(path) if exclusive else Path(os.path.realpath(path))
    if not exclusive and target.exists() and not target.is_file():
        raise UsageError(f"{printable(str(path))} is not a regular file; give the path of a file to write")
    temporary = target.parent / f".{secrets.token_hex(8)}.tmp"
    descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), mode)
    try:
        with open(descriptor, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if exclusive:
            _link(temporary, target)
        else:
            os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(target.parent)


def _link(temporary: Path, target: Path) -> None:
    """Rename the temporary file to the target, unless that exists."""
    try:
        os.link(temporary, target)
    except FileExistsError:
        raise
    except OSError:  # no hard links (exFAT, some network shares): reserve the name, then replace it
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        try:
            os.replace(temporary, target)
        except BaseException:
            target.unlink()
            raise


def _sync_folder(folder: Path) -> None:
    """Make the new name durable, if the system can sync folders."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
