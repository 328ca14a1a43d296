"""The cache of answers by content, on disk: equal images are judged once, and a crash loses no answer.

A continued audit finds the rows of unfinished shards here. The cache is never the record: a damaged one is deleted, and its
images are judged again.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path

from treering_verify.audit.inputs.reading import Reading
from treering_verify.audit.output.rows import Row
from treering_verify.errors import UsageError
from treering_verify.files import printable

NAME = "answers.sqlite"
_FILE_FACTS = ("path", "sha256", "bytes", "width", "height", "mode", "seconds", "settings_id", "q_value")


class Cache:
    """Rows by the SHA-256 of their file's content; a context that closes the cache.

    Parameters
    ----------
    folder : Path
    settings_id : str
        Answers under other settings are not found.
    """

    def __init__(self, folder: Path, settings_id: str) -> None:
        self._path, self._settings_id = folder / NAME, settings_id
        try:
            self._database = self._open()
        except sqlite3.DatabaseError as error:
            if _is_full(error):
                raise UsageError(
                    f"cannot write {printable(str(self._path))}: {error}; free space, and run the same command again"
                ) from error
            remove(folder)
            self._database = self._open()

    def _open(self) -> sqlite3.Connection:
        database = sqlite3.connect(self._path)
        try:
            database.execute("PRAGMA journal_mode=WAL")  # a kill loses nothing that was committed
            database.execute("PRAGMA synchronous=NORMAL")
            database.execute(
                "CREATE TABLE IF NOT EXISTS answers"
                " (settings TEXT, digest BLOB, answer TEXT, PRIMARY KEY (settings, digest)) WITHOUT ROWID"
            )
            database.execute("SELECT count(*) FROM (SELECT 1 FROM answers LIMIT 1)").fetchone()
        except sqlite3.DatabaseError:
            database.close()
            raise
        return database

    def __enter__(self) -> Cache:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def find(self, reading: Reading) -> Row | None:
        """Return the row of a reading whose content was judged before, or None."""
        try:
            found = self._database.execute(
                "SELECT answer FROM answers WHERE settings = ? AND digest = ?",
                (self._settings_id, _digest(reading.sha256)),
            ).fetchone()
            return row_of_twin(reading, Row(**{**_blank(self._settings_id), **json.loads(found[0])})) if found else None
        except (sqlite3.DatabaseError, ValueError, TypeError):
            return None

    def add(self, rows: Iterable[Row]) -> None:
        """Store rows that were judged.

        Raises
        ------
        UsageError
            If the disk is full or not writable.
        """
        items = [
            (
                self._settings_id,
                _digest(row.sha256),
                json.dumps({k: v for k, v in asdict(row).items() if k not in _FILE_FACTS}),
            )
            for row in rows
        ]
        try:
            with self._database:
                self._database.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?, ?)", items)
        except sqlite3.DatabaseError as error:
            raise UsageError(
                f"cannot write {printable(str(self._path))}: {error}; free space (or delete a damaged file), and run the "
                "same command again"
            ) from error


def remove(folder: Path) -> None:
    """Delete the cache of a folder, if there is one."""
    for suffix in ("", "-wal", "-shm", "-journal"):
        (folder / f"{NAME}{suffix}").unlink(missing_ok=True)


def row_of_twin(reading: Reading, row: Row) -> Row:
    """Return the row of a reading with the same content as a row's; its time is that of reading."""
    return replace(
        row,
        path=reading.path,
        sha256=reading.sha256,
        bytes=reading.bytes,
        width=reading.width,
        height=reading.height,
        mode=reading.mode,
        seconds=reading.seconds,
    )


def _digest(sha256: str | None) -> bytes:
    return bytes.fromhex(sha256 or "")


def _blank(settings_id: str) -> dict[str, object]:
    return {"path": "", "settings_id": settings_id}


def _is_full(error: sqlite3.DatabaseError) -> bool:
    return "full" in str(error) or "disk I/O" in str(error)
