"""SQLite files of an audit's state: opened so that a kill loses nothing, replaced if damaged, and told of full disks.

None of them is the record: what a damaged one held is computed again, or missed by statistics only.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

from treering_verify.errors import UsageError
from treering_verify.files import printable


def opened(path: Path, prepare: Callable[[sqlite3.Connection], object]) -> sqlite3.Connection:
    """Open a database, or delete it and begin another if it is damaged.

    Parameters
    ----------
    path : Path
    prepare : callable
        Creates the tables where there are none, and reads them.

    Raises
    ------
    UsageError
        If the disk is full or not writable.
    """
    with writing(path):
        try:
            return _opened(path, prepare)
        except sqlite3.DatabaseError as error:
            if "full" in str(error) or "disk I/O" in str(error):
                raise
            remove(path)
            return _opened(path, prepare)


def _opened(path: Path, prepare: Callable[[sqlite3.Connection], object]) -> sqlite3.Connection:
    database = sqlite3.connect(path)
    try:
        database.execute("PRAGMA journal_mode=WAL")  # a kill loses nothing that was committed
        database.execute("PRAGMA synchronous=NORMAL")
        prepare(database)
    except sqlite3.DatabaseError:
        database.close()
        raise
    return database


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say what to do if a database cannot be written.

    Raises
    ------
    UsageError
        If the disk is full or not writable.
    """
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise UsageError(
            f"cannot write {printable(str(path))}: {error}; free space (or delete a damaged file), and run the "
            "same command again"
        ) from error


def remove(path: Path) -> None:
    """Delete a database, if there is one, and what SQLite keeps beside it."""
    for suffix in ("", "-wal", "-shm", "-journal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
