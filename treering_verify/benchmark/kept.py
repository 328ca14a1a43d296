"""Keep what took long to measure, so that an interrupted benchmark goes on where it was, and two never measure it twice."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

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
    """
    if folder is None:
        return measure()
    path = folder / f"{name}-{hashlib.sha256(repr(facts).encode()).hexdigest()[:16]}.npz"
    if path.exists():
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    found = measure()
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **found)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(path, buffer.getvalue())
    return found
