"""The calibration that the tests of this folder share."""

from __future__ import annotations

import pytest
from helpers.calibrations import calibrated, few_steps

from treering_verify.detection.calibration.calibration_file import Calibration
from treering_verify.models import LatentModel


@pytest.fixture(scope="module")
def calibration(tiny_model: LatentModel) -> Calibration:
    """Return a calibration of a random model, made in few steps."""
    with pytest.MonkeyPatch.context() as patch:
        few_steps(patch)
        return calibrated(tiny_model)
