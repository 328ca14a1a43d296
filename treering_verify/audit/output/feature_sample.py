"""The feature sample of an audit, on disk: features of some judged images, for the statistics of chance (`audit.chance`).

It holds the images whose content has the smallest ranks, a hash of it, and so a random sample of the different images. The
rank depends on the content alone: workers, runs and engines agree on it, and an image that is judged twice counts once.
Detected images have a sample of their own beside it. What is stored are the sketches that `audit.sketches` makes.
"""

from __future__ import annotations

import functools
import hashlib
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from treering_verify.audit.output import database

NAME = "features.sqlite"
MOST = 4096  # images of the sample, and as many detected ones; about 2 KiB each
_SLACK = 512  # that are stored before the largest ranks are deleted
_ABOVE = b"\xff" * 16


class Sketch(NamedTuple):
    """What the sample keeps of one image: its rank, its key if one was detected, and its sketched features.

    Attributes
    ----------
    rank : bytes
        Rank of the image's content (`rank_of`): images of low rank are kept.
    digest : bytes
        SHA-256 of the content.
    fingerprint : str
        Fingerprint of the key that was detected; "" if none was.
    vector : bytes
        The sketched features, as float16 numbers.
    """

    rank: bytes
    digest: bytes
    fingerprint: str
    vector: bytes


class Bounds(NamedTuple):
    """Highest ranks that still enter the sample: for any image, and for a detected one."""

    all: bytes = _ABOVE
    detected: bytes = _ABOVE


def rank_of(sha256: str, settings_id: str) -> bytes:
    """Return the rank of a file's content: 16 bytes, as good as random, and the same for equal files."""
    return hashlib.blake2b(bytes.fromhex(sha256), digest_size=16, key=settings_id.encode()).digest()


class FeatureSample:
    """The sample of one audit; a context that closes its file.

    A damaged file, or one of sketches that were made otherwise, is deleted: the sample then has fewer images.

    Parameters
    ----------
    folder : Path
    made_by : str
        Digest of how the sketches are made (`sketches.Sketcher.digest`).
    most : int
        Images of the sample, and as many detected ones.
    """

    def __init__(self, folder: Path, made_by: str, most: int = MOST) -> None:
        self._path, self._most, self._fresh = folder / NAME, most, 0
        self._database = database.opened(self._path, functools.partial(_prepare, made_by))
        with database.writing(self._path):
            self._bounds = self._cut()

    def __enter__(self) -> FeatureSample:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def add(self, sketches: Sequence[Sketch]) -> Bounds:
        """Store sketches, and return which ranks are wanted from now on.

        Raises
        ------
        UsageError
            If the disk is full or not writable.
        """
        if sketches:
            with database.writing(self._path), self._database:
                self._database.executemany("INSERT OR REPLACE INTO sketches VALUES (?, ?, ?, ?)", sketches)
            self._fresh += len(sketches)
            if self._fresh >= _SLACK:
                with database.writing(self._path):
                    self._bounds = self._cut()
        return self._bounds

    def read(self) -> tuple[list[Sketch], Bounds]:
        """Return the sketches in the order of their ranks, and up to which ranks they are complete."""
        with database.writing(self._path):
            self._bounds = self._cut()
            found = self._database.execute("SELECT * FROM sketches ORDER BY rank").fetchall()
        return [Sketch(*row) for row in found], self._bounds

    def _cut(self) -> Bounds:
        """Delete what is beyond both samples, and return their bounds."""
        self._fresh = 0
        ranks = []
        for chosen in ("", " WHERE fingerprint <> ''"):
            query = f"SELECT rank FROM sketches{chosen} ORDER BY rank LIMIT 1 OFFSET ?"
            last = self._database.execute(query, (self._most - 1,)).fetchone()
            ranks.append(last[0] if last else _ABOVE)
        bounds = Bounds(*ranks)
        with self._database:
            self._database.execute(
                "DELETE FROM sketches WHERE rank > ? AND (fingerprint = '' OR rank > ?)", (bounds.all, bounds.detected)
            )
        return bounds


def _prepare(made_by: str, opened: sqlite3.Connection) -> None:
    with opened:
        opened.execute("CREATE TABLE IF NOT EXISTS made (by TEXT)")
        opened.execute(
            "CREATE TABLE IF NOT EXISTS sketches (rank BLOB PRIMARY KEY, digest BLOB, fingerprint TEXT, vector BLOB)"
        )
        if opened.execute("SELECT by FROM made").fetchone() != (made_by,):
            opened.execute("DELETE FROM made")
            opened.execute("DELETE FROM sketches")
            opened.execute("INSERT INTO made VALUES (?)", (made_by,))
