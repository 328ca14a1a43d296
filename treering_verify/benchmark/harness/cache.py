"""Cache measurements on disk, so that an interrupted benchmark resumes and none is measured twice."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from treering_verify.benchmark.harness.workers import claimed
from treering_verify.files import write_atomic

if TYPE_CHECKING:
    Arrays = dict[str, NDArray[Any]]


FOLDER = "cache"
"""Folder of cached measurements, in the output folder of a benchmark."""


def cached(folder: Path | None, name: str, facts: object, measure: Callable[[], Arrays]) -> Arrays:
    """Return cached arrays, or measure and cache them.

    Parameters
    ----------
    folder : Path or None
        Folder of the cache; None caches nothing.
    name : str
        Beginning of the file's name.
    facts : object
        Everything that the arrays depend on. Its `repr` is part of the file's name, so other facts have another file.
    measure : callable
        Returns the arrays.

    Raises
    ------
    Taken
        If another process is measuring the same, inside `Share.work`; elsewhere this call waits for it.
    """
    if folder is None:
        return measure()
    path = folder / f"{name}-{_digest(repr(facts))}.npz"
    if not path.exists():
        with claimed(folder, int(_digest(path.name), 16) >> 2):
            if not path.exists():
                buffer = io.BytesIO()
                np.savez(buffer, allow_pickle=False, **measure())
                write_atomic(path, buffer.getvalue())
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


def cached_rows(
    folder: Path | None, name: str, facts: object, measure: Callable[[], Iterable[dict[str, Any]]]
) -> list[dict[str, Any]]:
    """Return cached rows of texts, numbers and truth values, or measure and cache them; see `cached`."""
    arrays = cached(folder, name, facts, lambda: {"rows": np.array(json.dumps(list(measure())))})
    rows: list[dict[str, Any]] = json.loads(str(arrays["rows"]))
    return rows


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
