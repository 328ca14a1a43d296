"""Options that choose what judges images, and verification by a calibrated detector."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from treering_verify.cli.options import NameOf
from treering_verify.detection.calibration.registry import EXACT, detector_names
from treering_verify.errors import UsageError

if TYPE_CHECKING:
    from treering_verify.inversion.recovery import InversionOptions
    from treering_verify.models import LatentModel
    from treering_verify.results import Verdict
    from treering_verify.watermark.keys.key import Key


def detector_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Options that choose what judges images: calibration, detector."""
    for option in (
        click.option(
            "--detector",
            type=NameOf(detector_names),
            default=EXACT,
            show_default=True,
            help="All but exact need --calibration, whose images bound how small p can be.",
        ),
        click.option("--calibration", type=click.Path(path_type=Path), help="File made by treering calibrate."),
    ):
        function = option(function)
    return function


def verdicts_of(
    files: tuple[Path, ...],
    keys: list[Key],
    calibration: Path | None,
    detector: str,
    decoys: int,
    model: LatentModel,
    alpha: float,
    inversion: InversionOptions,
) -> Iterator[Verdict]:
    """Judge files by a calibrated detector; UsageError where the options contradict each other."""
    from treering_verify.detection.calibration.calibration_file import Calibration
    from treering_verify.detection.calibration.verify import verify_calibrated

    if calibration is None:
        raise UsageError(f"--detector {detector} needs --calibration FILE: make one with treering calibrate")
    if detector == EXACT:
        raise UsageError("the exact test needs no calibration: choose --detector, or leave --calibration out")
    if decoys:
        raise UsageError("--decoys checks the exact test: leave it out with --calibration")
    loaded = Calibration.load(calibration)
    return verify_calibrated(files, keys, loaded, detector, model=model, alpha=alpha, inversion=inversion)
