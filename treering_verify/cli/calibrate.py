"""The command that calibrates, and verification by what was calibrated."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from treering_verify.cli.options import inversion_options, key_options
from treering_verify.cli.output import UNJUDGED, command_of, progress
from treering_verify.errors import UsageError

if TYPE_CHECKING:
    from treering_verify.cli.inversion_options import Asked
    from treering_verify.models import ModelSource

_ATTACKS = ("jpeg:quality=75", "jpeg:quality=25", "resize:share=0.5", "crop_scale:share=0.75")


@command_of(None)("treering calibrate photographs/ --output my.calibration.json")
@click.argument("paths", nargs=-1, required=True, metavar="IMAGES...", type=click.Path(path_type=Path))
@click.option("--output", type=click.Path(path_type=Path), required=True, help="Calibration file to write.")
@click.option(
    "--attack",
    "attacks",
    multiple=True,
    default=_ATTACKS,
    show_default=True,
    help="A stratum beside the images as they are; repeatable.",
)
@click.option("--clean-only", is_flag=True, help="No strata but the images as they are.")
@click.option(
    "--classifier-images",
    "training",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Marked images to generate, and as many unmarked, that a classifier learns from; 0: none.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the nulls' keys; public.")
@click.option("--overwrite", is_flag=True, help="Replace a file that exists.")
@click.option("--format", "style", type=click.Choice(["text", "json"]), default="text", show_default=True)
@key_options
@inversion_options
def calibrate(
    paths: tuple[Path, ...],
    output: Path,
    attacks: tuple[str, ...],
    clean_only: bool,
    training: int,
    seed: int,
    overwrite: bool,
    style: str,
    family: dict[str, Any],
    model: ModelSource,
    inversion: Asked,
) -> None:
    """Score unmarked images, so that published statistics and the classifier get p-values that mean something.

    IMAGES are files, and folders whose files are taken: unmarked, and like the images that will be judged. Each is scored as
    it is and after each attack, under a fresh key of the family that the options choose. treering verify --calibration
    compares with these scores. The exact test needs none of this.
    """
    from treering_verify.detection.calibration.build import calibrate as build
    from treering_verify.files import printable
    from treering_verify.models import load_model
    from treering_verify.report import calibration_record, format_calibration
    from treering_verify.watermark.keys.key import Family

    if output.exists() and not overwrite:
        raise UsageError(f"{printable(str(output))} exists: name another file, or --overwrite it")
    chosen = () if clean_only else attacks
    loaded = load_model(model)
    files = list(_files(paths))
    with progress("Calibrating", 2 * training + len(files) * (1 + len(chosen))) as advance:
        calibration, skipped = build(
            files,
            Family.choose(loaded.latent_shape, **family),
            model=loaded,
            attacks=chosen,
            training=training,
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
