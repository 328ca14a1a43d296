"""The command that calibrates detectors on unmarked images."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from treering_verify.cli.command import UNJUDGED, command, option
from treering_verify.cli.options.inversion import inversion_options
from treering_verify.cli.options.keys import given, key_option, pattern_options
from treering_verify.cli.options.types import AttackText, InputPath, OutputFile
from treering_verify.cli.options.verdicts import format_option
from treering_verify.cli.output import progress
from treering_verify.detection.calibration.registry import DEFAULT_ATTACKS
from treering_verify.errors import UsageError

if TYPE_CHECKING:
    from treering_verify.cli.options.inversion import InversionChoice
    from treering_verify.models import ModelSource
    from treering_verify.watermark.keys.key_family import Family


@command("treering calibrate photographs/ --output my.calibration.json")
@click.argument("paths", nargs=-1, required=True, metavar="IMAGES...", type=InputPath())
@option("--output", type=OutputFile(), required=True, help="Calibration file to write.")
@key_option(
    required=False, help="Key whose pattern, channels and radii to calibrate for, instead of --pattern and so on."
)
@option(
    "--attack",
    "attacks",
    type=AttackText(),
    multiple=True,
    default=DEFAULT_ATTACKS,
    help="Attack to calibrate for, in addition to images without one; repeatable.",
)
@option("--clean-only", is_flag=True, help="Calibrate without attacks.")
@option(
    "--classifier-images",
    "classifier_images",
    type=click.IntRange(0),
    default=0,
    help="Marked images to generate, and as many unmarked, to train the classifier on; 0: no classifier.",
)
@option("--seed", type=click.IntRange(0), default=0, help="Seed of the calibration's keys, which are public.")
@option("--overwrite", is_flag=True, help="Replace the file if it exists.")
@format_option("text", "json")
@pattern_options
@inversion_options
def calibrate(
    paths: tuple[Path, ...],
    output: Path,
    keys: tuple[Path, ...],
    attacks: tuple[str, ...],
    clean_only: bool,
    classifier_images: int,
    seed: int,
    overwrite: bool,
    style: str,
    family: dict[str, Any],
    model: ModelSource,
    inversion: InversionChoice,
) -> None:
    """Calibrate detectors on unmarked images.

    IMAGES are files and folders of unmarked images, like those that will be judged. The null distribution of each calibrated
    detector is measured on the images as they are and after each attack, with fresh keys of one family. treering verify
    --calibration compares other images with it. The exact test needs no calibration.
    """
    from treering_verify.detection.calibration.build import calibrate as build
    from treering_verify.files import printable
    from treering_verify.models import load_model
    from treering_verify.report import calibration_record, format_calibration
    from treering_verify.watermark.keys.key import Family

    if output.exists() and not overwrite:
        raise UsageError(f"{printable(str(output))} exists: name another file, or give --overwrite")
    chosen = () if clean_only else attacks
    files, of_keys = list(_files(paths)), _family_of(keys)
    loaded = load_model(model)
    with progress("Calibrating", 2 * classifier_images + len(files) * (1 + len(chosen))) as advance:
        calibration, skipped = build(
            files,
            of_keys or Family.choose(loaded.latent_shape, **family),
            model=loaded,
            attacks=chosen,
            classifier_images=classifier_images,
            inversion=inversion.inversion(loaded),
            seed=seed,
            advance=advance,
        )
    calibration.save(output)
    for image in skipped:
        click.echo(f"left out {printable(image.path)}: {image.code}: {image.reason}", err=True)
    click.echo(f"{printable(str(output))}: {', '.join(calibration.detectors)}", err=True)
    if style == "json":
        click.echo(json.dumps(calibration_record(calibration), indent=2))
    else:
        for line in format_calibration(calibration):
            click.echo(line)
    if any(image.code != "repeated" for image in skipped):
        sys.exit(UNJUDGED)


def _family_of(paths: tuple[Path, ...]) -> Family | None:
    """Return the family of the keys that are named; None if none is."""
    from treering_verify.watermark.keys.index import read_keys

    families = {key.family for key in read_keys(paths)}
    if len(families) > 1:
        raise UsageError("the keys are of several families: calibrate for each of them")
    if families and (options := given("pattern", "channels", "inner_radius", "outer_radius")):
        raise UsageError(f"--key and {options[0]} both say what to calibrate for: leave one out")
    return next(iter(families), None)


def _files(paths: tuple[Path, ...]) -> Iterator[Path]:
    """Files, and those in folders by name, without hidden ones and JSON sidecars."""
    from treering_verify.files import printable

    for path in paths:
        if not path.is_dir():
            yield path
            continue
        inside = sorted(p for p in path.iterdir() if p.suffix != ".json" and not p.name.startswith(".") and p.is_file())
        if not inside:
            raise UsageError(f"no files in {printable(str(path))}: name a folder of images, or the images")
        yield from inside
