"""A calibration on images of chance, judged by the tiny model, and what it needs."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from PIL import Image

from treering_verify.detection.calibration import build
from treering_verify.detection.calibration.build import calibrate
from treering_verify.detection.calibration.calibration_file import Calibration
from treering_verify.detection.calibration.registry import detector_names
from treering_verify.detection.calibration.verify import verify_calibrated
from treering_verify.inversion import decoder as decoder_inversion
from treering_verify.inversion.recovery import InversionOptions
from treering_verify.models import LatentModel
from treering_verify.results import Verdict
from treering_verify.watermark.keys.key import Family, Key

SHAPE = (4, 32, 32)
FAMILY = Family.choose(SHAPE)
JPEG = "jpeg:quality=50"
QUICK = InversionOptions(
    method="forward-step", settings=replace(decoder_inversion.DEFAULTS["forward-step"], iterations=1), steps=2
)
COUNT = 19
DETECTORS = detector_names()[1:]  # all but the exact test


def unmarked_images(first: int, count: int) -> list[Image.Image]:
    """Smooth images of chance, all of one kind, at the tiny model's size."""
    made = []
    for i in range(first, first + count):
        noise = torch.randn(1, 3, 12, 12, generator=torch.Generator().manual_seed(i))
        pixels = torch.nn.functional.interpolate(noise, (128, 128), mode="bicubic")[0].permute(1, 2, 0)
        made.append(Image.fromarray((pixels * 40 + 128).clamp(0, 255).to(torch.uint8).numpy()))
    return made


def few_steps(patch: pytest.MonkeyPatch) -> None:
    """Generate training images in two steps: the tiny model's are meaningless after fifty, too."""
    patch.setattr(build, "generate_under", partial(build.generate_under, steps=2))


def calibrated(tiny_model: LatentModel) -> Calibration:
    made, skipped = calibrate(
        unmarked_images(0, COUNT),
        FAMILY,
        model=tiny_model,
        attacks=(JPEG,),
        classifier_images=8,
        inversion=QUICK,
        seed=3,
    )
    assert skipped == []
    return made


def judged(
    sources: Any, calibration: Calibration, model: LatentModel, detector: str = "chi-square", alpha: float = 0.1
) -> list[Verdict]:
    key = Key.generate(SHAPE, seed=99)
    return list(verify_calibrated(sources, key, calibration, detector, model=model, alpha=alpha, inversion=QUICK))
