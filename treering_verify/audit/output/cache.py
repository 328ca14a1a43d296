"""Answers by content, on disk: an image that is there twice goes through the model once, and a crash costs no answer.

Rows of a shard that was not finished are found here when the audit goes on. A convenience and never the record: what is
damaged is thrown away and judged again.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path

from treering_verify.audit.inputs.read import Reading
from treering_verify.audit.output.rows import Row
from treering_verify.errors import UsageError

NAME = "answers.sqlite"
_FILE_FACTS = ("path", "sha256", "bytes", "width", "height", "mode", "seconds", "settings_id", "q_value")


class Cache:
    """Rows by the SHA-256 of what they were made from; a context that closes the file.

    Parameters
    ----------
    folder : Path
    settings_id : str
        Answers of other settings are not this one's.
    """

    def __init__(self, folder: Path, settings_id: str) -> None:
        self._path, self._settings_id = folder / NAME, settings_id
        try:
            self._database = self._open()
        except sqlite3.DatabaseError as error:
            if _is_full(error):
                raise UsageError(f"cannot write {NAME}: {error}; free space, and run again") from error
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
        """Row of a reading whose content was judged before."""
        try:
            found = self._database.execute(
                "SELECT answer FROM answers WHERE settings = ? AND digest = ?",
                (self._settings_id, _digest(reading.sha256)),
            ).fetchone()
            return row_of_twin(reading, Row(**{**_blank(self._settings_id), **json.loads(found[0])})) if found else None
        except (sqlite3.DatabaseError, ValueError, TypeError):
            return None

    def add(self, rows: Iterable[Row]) -> None:
        """Remember rows that were judged.

        Raises
        ------
        UsageError
            If the disk is full or cannot be written.
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
                f"cannot write {NAME}: {error}; free space (or delete the file, if it is damaged), and run again"
            ) from error


def remove(folder: Path) -> None:
    """Delete the cache of a folder, if there is one."""
    for suffix in ("", "-wal", "-shm", "-journal"):
        (folder / f"{NAME}{suffix}").unlink(missing_ok=True)


def row_of_twin(reading: Reading, row: Row) -> Row:
    """Row of a reading whose content is that of a row; its time is that of reading it."""
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
