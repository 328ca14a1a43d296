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
from treering_verify.models import LatentModel

if TYPE_CHECKING:
    Arrays = dict[str, NDArray[Any]]

FOLDER = "kept"


def fingerprint(model: LatentModel, *, refiner: bool = True) -> str:
    """Digest of a model's weights, 16 hexadecimal digits; without the refiner's where it plays no part."""
    import torch

    digest = hashlib.sha256()
    for name, part in sorted(vars(model).items()):
        if isinstance(part, torch.nn.Module) and (refiner or part is not model.refine):
            for label, tensor in sorted(part.state_dict().items()):
                digest.update(f"{name}.{label}".encode())
                digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


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
