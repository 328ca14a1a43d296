"""Keep what took long to measure: an interrupted benchmark goes on where it was, and two never measure the same."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from treering_verify.benchmark.harness.workers import claimed
from treering_verify.files import write_atomic

if TYPE_CHECKING:
    Arrays = dict[str, NDArray[Any]]


FOLDER = "kept"


def kept(folder: Path | None, name: str, facts: object, measure: Callable[[], Arrays]) -> Arrays:
    """Return arrays that the same question gave before, or measure and keep them.

    Parameters
    ----------
    folder : Path or None
        Where to keep them; None keeps nothing.
    name : str
        Beginning of the file's name.
    facts : object
        All that the answer depends on, by its `repr`: another answer is never taken for this one's.
    measure : callable
        Gives the arrays.

    Raises
    ------
    Taken
        If another process measures it just now, in a `Share`'s work; elsewhere that is waited for.
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


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
