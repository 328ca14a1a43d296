"""Checks of arrays that come in, and their scaling."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray


def real_array(name: str, value: ArrayLike, dimensions: Sequence[int]) -> NDArray[np.float64]:
    """Return a value as float64, or raise ValueError if its axes do not fit or it is complex, NaN or infinite."""
    array = np.asarray(value)
    wanted = " or ".join({1: "(d,)", 2: "(B, d)"}[n] for n in dimensions)
    if array.ndim not in dimensions:
        raise ValueError(f"{name} has shape {array.shape}; pass shape {wanted}")
    if np.iscomplexobj(array):
        raise ValueError(
            f"{name} (shape {array.shape}) is complex; stack its real and imaginary parts on the last axis"
        )
    array = array.astype(np.float64)
    if not np.isfinite(array).all():
        raise ValueError(f"{name} (shape {array.shape}) holds NaN or infinity; such an image cannot be judged, skip it")
    return array


def unit_rows(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scale rows to length 1 (rows of zeros stay zero), safe where squaring would overflow or underflow."""
    largest = np.abs(vectors).max(axis=-1, keepdims=True)
    scaled = vectors / np.where(largest > 0, largest, 1.0)
    unit: NDArray[np.float64] = scaled / np.maximum(np.linalg.norm(scaled, axis=-1, keepdims=True), 1.0)
    return unit
