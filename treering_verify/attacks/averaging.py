"""Removal and forgery by averaging marked images of one key, without a model.

All images of a key share its coefficients, so the mean of many estimates their trace in pixels (Yang et al., arXiv
2406.09026). Subtracting the trace from a marked image removes the mark; adding it to another image forges it.
`imprinting.average_carrier` does the same in the noise, for an attacker who has the model.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from treering_verify.errors import UsageError

if TYPE_CHECKING:
    from PIL import Image


def estimate_trace(marked: Iterable[Image.Image], unmarked: Iterable[Image.Image]) -> npt.NDArray[np.float64]:
    """Return the mean of marked images less that of unmarked ones: an estimate of what a key adds to an image.

    The images' own content leaves a standard deviation of s sqrt(1/N + 1/M) in the difference, for N marked and M unmarked
    images whose values vary by s. Unmarked images from the same seeds leave much less.

    Parameters
    ----------
    marked, unmarked
        RGB images of one size, at least one of each; read once, one by one. The unmarked ones should have the same kind of
        content: other images of the same model, or photographs.

    Returns
    -------
    (H, W, 3) float64
        The trace, in grey levels.

    Raises
    ------
    UsageError
        If there are none of either, or modes or sizes differ.
    """
    first, second = _mean(marked, "marked"), _mean(unmarked, "unmarked")
    if first.shape != second.shape:
        raise UsageError(f"marked images have shape {first.shape}, unmarked ones {second.shape}: make them equal")
    return first - second


def add_trace(image: Image.Image, trace: npt.NDArray[np.float64], strength: float = 1.0) -> Image.Image:
    """Add `strength` times a trace, (H, W, 3) in grey levels, to forge a mark; then round and clamp.

    Raises
    ------
    UsageError
        If the image is not RGB or has another size than the trace.
    """
    from PIL import Image

    if image.mode != "RGB" or (image.height, image.width, 3) != trace.shape:
        raise UsageError(
            f"the trace has shape {trace.shape}, the image is {image.mode} of size {image.size}: make them equal"
        )
    return Image.fromarray(np.rint(np.asarray(image) + strength * trace).clip(0, 255).astype(np.uint8))


def subtract_trace(image: Image.Image, trace: npt.NDArray[np.float64], strength: float = 1.0) -> Image.Image:
    """Remove a mark: subtract `strength` times a trace; as `add_trace` otherwise."""
    return add_trace(image, trace, -strength)


def _mean(images: Iterable[Image.Image], what: str) -> npt.NDArray[np.float64]:
    total: npt.NDArray[np.float64] | None = None
    count = 0
    for image in images:
        if image.mode != "RGB":
            raise UsageError(f"{what} images must be RGB, got mode {image.mode}; pass them through open_image first")
        pixels = np.asarray(image).astype(np.float64)
        if total is not None and total.shape != pixels.shape:
            raise UsageError(f"{what} images have shapes {total.shape} and {pixels.shape}: make them equal")
        total = pixels if total is None else total + pixels
        count += 1
    if total is None:
        raise UsageError(f"there are no {what} images: give at least one")
    return np.asarray(total / count)
