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
from treering_verify.audit.output import database
from treering_verify.audit.output.rows import Row

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
        self._database = database.opened(self._path, _prepare)

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
        with database.writing(self._path), self._database:
            self._database.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?, ?)", items)


def remove(folder: Path) -> None:
    """Delete the cache of a folder, if there is one."""
    database.remove(folder / NAME)


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


def _prepare(opened: sqlite3.Connection) -> None:
    opened.execute(
        "CREATE TABLE IF NOT EXISTS answers"
        " (settings TEXT, digest BLOB, answer TEXT, PRIMARY KEY (settings, digest)) WITHOUT ROWID"
    )
    opened.execute("SELECT count(*) FROM (SELECT 1 FROM answers LIMIT 1)").fetchone()
