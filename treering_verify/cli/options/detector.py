"""Options that choose what judges images, the exact test or a calibrated detector, and what is searched for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from treering_verify.cli.command import option
from treering_verify.cli.options.keys import with_options
from treering_verify.cli.options.types import InputPath, Named, SearchText
from treering_verify.detection.calibration.registry import EXACT, detector_names
from treering_verify.errors import UsageError

if TYPE_CHECKING:
    from treering_verify.detection.calibration.calibration_file import Calibration

DETECTOR, _SEARCH = "Detector", "Search"


@dataclass(frozen=True)
class DetectorChoice:
    """The exact test, or a calibrated detector.

    Attributes
    ----------
    name : str
    calibration : Calibration, optional
        What every detector but the exact test compares with.
    decoys : int
        Decoy keys that check the exact test.
    """

    name: str
    calibration: Calibration | None
    decoys: int


def detector_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add options that choose what judges images; the function gets them as `detector`, a `DetectorChoice`."""

    @wraps(function)
    def gathered(*args: Any, detector: str, calibration: Any, decoys: int, **kwargs: Any) -> Any:
        if calibration is None and detector != EXACT:
            raise UsageError(f"--detector {detector} needs --calibration FILE: make one with treering calibrate")
        if calibration is not None and detector == EXACT:
            raise UsageError("the exact test needs no calibration: choose --detector, or leave --calibration out")
        if calibration is not None and decoys:
            raise UsageError("--decoys checks the exact test: leave it out with --calibration")
        loaded = None
        if calibration is not None:
            from treering_verify.detection.calibration.calibration_file import Calibration

            loaded = Calibration.load(calibration)
        return function(*args, detector=DetectorChoice(detector, loaded, decoys), **kwargs)

    return with_options(
        gathered,
        option(
            "--detector",
            type=Named("detector", detector_names),
            default=EXACT,
            topic=DETECTOR,
            help="Test of the keys. All but exact need --calibration.",
        ),
        option("--calibration", type=InputPath(), topic=DETECTOR, help="Calibration file, made by treering calibrate."),
        option(
            "--decoys",
            type=click.IntRange(0),
            default=0,
            topic=DETECTOR,
            help="Number of decoy keys that cross-check the p-value, such as 100000. Decoys switch the search off.",
        ),
    )


def search_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the option of the search for an image on a page; the function gets it as `search`."""
    return with_options(
        function,
        option(
            "--search",
            type=SearchText(),
            default="auto",
            topic=_SEARCH,
            help="Level of the search: off, quick, fast, thorough, or a number of seconds. An image that shows no key is "
            "searched for a marked image that was cropped, moved, scaled, turned or mirrored. auto means fast, and quick in "
            "audits. p-values are corrected for the search.",
        ),
    )
