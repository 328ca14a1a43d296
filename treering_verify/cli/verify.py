"""The command that judges a few images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from treering_verify.cli.command import command
from treering_verify.cli.options.detector import DetectorChoice, detector_options, search_options
from treering_verify.cli.options.images import files_argument, images_of
from treering_verify.cli.options.inversion import inversion_options
from treering_verify.cli.options.keys import check_fit, check_names, given, key_option
from treering_verify.cli.options.verdicts import verdict_options
from treering_verify.cli.output import print_verdicts
from treering_verify.errors import UsageError

if TYPE_CHECKING:
    from treering_verify.cli.options.inversion import InversionChoice
    from treering_verify.models import ModelSource
    from treering_verify.results import Verdict


@command("treering verify images/*.png --key my.key.json")
@files_argument
@key_option()
@verdict_options
@search_options
@detector_options
@inversion_options
def verify(
    files: tuple[Path, ...],
    keys: tuple[Path, ...],
    detector: DetectorChoice,
    alpha: float,
    style: str,
    fail_on: tuple[str, ...],
    search: str,
    model: ModelSource,
    inversion: InversionChoice,
) -> None:
    """Test images for a watermark.

    The verdict of each image is 'detected' (with the key), 'no evidence', or 'inconclusive' (with the reason). FILES are
    images, or folders of at most 50 images; treering audit takes larger folders. Under a model that makes videos, FILES are
    videos and folders of frames.
    """
    from treering_verify.detection.calibration.verify import verify_calibrated
    from treering_verify.detection.identification import identify_many
    from treering_verify.detection.search.settings import search_of
    from treering_verify.detection.verification import verify_many
    from treering_verify.models import load_model
    from treering_verify.watermark.keys.index import KeyIndex, read_keys

    found, images = read_keys(keys), images_of(files, model)
    check_fit(found, model)
    single = [key for key in found if not isinstance(key, KeyIndex)]
    check_names(single)
    whole = len(single) == len(found)
    search_of(search)
    if not whole and (given("decoys") or detector.calibration):
        raise UsageError("an index is tested as treering identify does, without decoys and calibration: name key files")

    def verdicts() -> Iterator[Verdict]:
        loaded = load_model(model)
        chosen = inversion.inversion(loaded)
        if not whole:
            return identify_many(images, found, model=loaded, alpha=alpha, top=1, inversion=chosen, search=search)
        if detector.calibration:
            return verify_calibrated(
                images, single, detector.calibration, detector.name, model=loaded, alpha=alpha, inversion=chosen
            )
        return verify_many(
            images, single, model=loaded, alpha=alpha, inversion=chosen, search=search, decoys=detector.decoys
        )

    print_verdicts(verdicts, len(images), "Verifying", style, fail_on)
