"""The commands that judge a few images, and judge the files of records again."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from treering_verify.cli.command import FOUND, command, option
from treering_verify.cli.options.detector import DETECTOR, DetectorChoice, detector_options
from treering_verify.cli.options.judging import Judging, judging_options
from treering_verify.cli.options.keys import check_fit, given, key_option
from treering_verify.cli.options.model import model_option
from treering_verify.cli.options.types import InputPath
from treering_verify.cli.options.verdicts import format_option
from treering_verify.cli.output import echo, progress
from treering_verify.errors import UsageError

if TYPE_CHECKING:
    from treering_verify.inversion.recovery import InversionOptions
    from treering_verify.models import LatentModel, ModelSource
    from treering_verify.results import Verdict


@command("treering verify images/*.png --key my.key.json")
@judging_options(detector_options)
def verify(judging: Judging, detector: DetectorChoice) -> None:
    """Test images for a watermark.

    The verdict of each image is 'detected' (with the key), 'no evidence', or 'inconclusive' (with the reason). FILES are
    images, or folders of at most 50 images; treering audit takes larger folders. Under a model that makes videos, FILES are
    videos and folders of frames.
    """
    images = judging.images()  # files and keys first: a mistake in them needs none of the imports that follow

    from treering_verify.watermark.keys.checks import check_names
    from treering_verify.watermark.keys.index import KeyIndex, read_keys

    found, alpha, search = read_keys(judging.keys), judging.alpha, judging.search
    check_fit(found, judging.model)
    single = [key for key in found if not isinstance(key, KeyIndex)]
    check_names(single)
    whole = len(single) == len(found)
    if not whole and (given("decoys") or detector.calibration):
        raise UsageError("an index cannot be tested with decoys or a calibration: name key files instead")

    from treering_verify.detection.calibration.verify import verify_calibrated
    from treering_verify.detection.identification import identify_many
    from treering_verify.detection.verification import verify_many

    def judge(model: LatentModel, inversion: InversionOptions) -> Iterator[Verdict]:
        if not whole:
            return identify_many(images, found, model=model, alpha=alpha, top=1, inversion=inversion, search=search)
        if detector.calibration:
            return verify_calibrated(
                images, single, detector.calibration, detector.name, model=model, alpha=alpha, inversion=inversion
            )
        return verify_many(
            images, single, model=model, alpha=alpha, inversion=inversion, search=search, decoys=detector.decoys
        )

    judging.print("Verifying", images, judge, keys=None if detector.calibration else found)


@command("treering recheck verdicts.jsonl --key my.key.json")
@click.argument("records", type=InputPath())
@click.argument("files", nargs=-1, type=InputPath())
@key_option()
@option(
    "--calibration",
    "calibrations",
    type=InputPath(),
    multiple=True,
    topic=DETECTOR,
    help="Calibration file, for records of a calibrated detector; repeatable.",
)
@format_option("text", "jsonl")
@model_option
def recheck(
    records: Path,
    files: tuple[Path, ...],
    keys: tuple[Path, ...],
    calibrations: tuple[Path, ...],
    style: str,
    model: ModelSource,
) -> None:
    """Repeat earlier verdicts and compare.

    RECORDS is what verify, identify or decode wrote with --format json or jsonl. Each file is judged with the settings of
    its record. Without --model, the model is that of the records, if it is an embedded one. The command names every version,
    key, setting and digest of weights that has changed since. FILES replace the records' paths; they are matched with the
    records by their SHA-256. The exit code is 1 if a verdict or message changed.
    """
    from treering_verify.detection.calibration.calibration_file import Calibration
    from treering_verify.detection.recheck import check_calibrations, read_records
    from treering_verify.detection.recheck import recheck as judge_again
    from treering_verify.models import load_model
    from treering_verify.report import format_recheck, recheck_record
    from treering_verify.watermark.keys.index import read_keys

    listed, found, calibrated = (
        read_records(records),
        read_keys(keys),
        [Calibration.load(path) for path in calibrations],
    )
    check_calibrations(listed, calibrated)
    if not given("model"):
        model = replace(model, name=_embedded(listed[0]["provenance"].get("model")))
    changed = False
    with progress("Judging again", len(listed)) as advance:
        for one in judge_again(listed, files, found, load_model(model), calibrated):
            changed |= one.changed
            echo(json.dumps(recheck_record(one)) if style == "jsonl" else format_recheck(one), advance)
            advance()
    if changed:
        sys.exit(FOUND)


def _embedded(name: object) -> str:
    """Return the name of an embedded model; UsageError for any other, because records may come from anybody."""
    from treering_verify.files import printable
    from treering_verify.models import EMBEDDED

    if name in list(EMBEDDED):
        return str(name)
    raise UsageError(f"the records' model {printable(str(name))[:100]!r} is not embedded: give it by --model")
