"""Detectors that need a calibration, by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from treering_verify.errors import UsageError, unknown
from treering_verify.plugins import Registry

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt
    import torch

    from treering_verify.detection.calibration.calibration_file import Calibration
    from treering_verify.watermark.keys.key import Key

DEFAULT_ATTACKS = ("jpeg:quality=75", "jpeg:quality=25", "resize:share=0.5", "crop_scale:share=0.75")
"""Attacks that a calibration is for where none is named."""
EXACT = "exact"  # the test of the key's pattern, which needs no calibration
CHI_SQUARE, DISTANCE, CLASSIFIER = "chi-square", "distance", "classifier"

DETECTORS: Registry[Callable[[torch.Tensor, Sequence[Key]], npt.NDArray[np.float64]]] = Registry(
    "detector",
    "treering_verify.detectors",
    {
        CHI_SQUARE: "treering_verify.detection.calibration.scores:chi_square",
        DISTANCE: "treering_verify.detection.calibration.scores:distance",
    },
    reserved=(EXACT, CLASSIFIER),
)
"""Scores by name, each (noise_hat, keys of one family) -> (images, keys), larger meaning 'more likely marked'.

Users add their own (docs/extending.md). The classifier is none of them: it has to be trained first.
"""


def detector_names() -> tuple[str, ...]:
    """Return the names of all detectors: the exact test, the classifier, and those of `DETECTORS`."""
    return (EXACT, *DETECTORS, CLASSIFIER)


def calibration_for(detector: str, calibration: str | Path | Calibration | None) -> Calibration | None:
    """Return the calibration that a detector decides by, read if it is a path; None for the exact test.

    Raises
    ------
    UsageError
        If there is no such detector, it needs a calibration and none is given, or the exact test is given one.
    """
    from treering_verify.detection.calibration.calibration_file import Calibration

    if detector not in detector_names():
        raise UsageError(unknown("detector", detector, detector_names()))
    if calibration is None:
        if detector != EXACT:
            raise UsageError(f"detector {detector!r} needs calibration=FILE: make one with treering calibrate")
        return None
    if detector == EXACT:
        raise UsageError("the exact test needs no calibration: choose another detector, or leave calibration out")
    return calibration if isinstance(calibration, Calibration) else Calibration.load(calibration)
