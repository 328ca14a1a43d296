"""The command that judges a few images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from treering_verify.cli.detector_options import detector_options, verdicts_of
from treering_verify.cli.options import inversion_options, search_options, verdict_options
from treering_verify.cli.output import command_of, print_verdicts
from treering_verify.detection.calibration.registry import EXACT
from treering_verify.errors import UsageError

if TYPE_CHECKING:
    from treering_verify.cli.inversion_options import Asked
    from treering_verify.detection.search.search import Search
    from treering_verify.models import ModelSource
    from treering_verify.watermark.keys.key import Key


@command_of(None)("treering verify images/*.png --key my.key.json")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--key", "key_files", multiple=True, required=True, type=click.Path(path_type=Path), help="Repeatable.")
@click.option(
    "--decoys",
    type=click.IntRange(0),
    default=0,
    help="Cross-check p by this many decoy keys, such as 100000; nothing is searched then.",
)
@detector_options
@verdict_options
@search_options
@inversion_options
def verify(
    files: tuple[Path, ...],
    key_files: tuple[Path, ...],
    decoys: int,
    calibration: Path | None,
    detector: str,
    alpha: float,
    style: str,
    fail_on: tuple[str, ...],
    search: Search | None,
    model: ModelSource,
    inversion: Asked,
) -> None:
    """Say for each image: detected (and by which key), no evidence, or inconclusive (and why)."""
    from treering_verify.detection.verification import verify_many
    from treering_verify.models import load_model

    keys, loaded = _load_keys(key_files), load_model(model)
    chosen = inversion.inversion(loaded)
    if detector == EXACT and calibration is None:
        verdicts = verify_many(files, keys, model=loaded, alpha=alpha, inversion=chosen, search=search, decoys=decoys)
    else:
        verdicts = verdicts_of(files, keys, calibration, detector, decoys, loaded, alpha, chosen)
    print_verdicts(verdicts, len(files), "Verifying", style, fail_on)


def _load_keys(paths: tuple[Path, ...]) -> list[Key]:
    from treering_verify.watermark.keys.key import Key

    keys = [Key.load(path) for path in paths]
    names = [key.name for key in keys]
    if len(set(names)) < len(names):
        raise UsageError(
            "two keys have the same name, so a verdict could not say which matched: rename one (keygen --name)"
        )
    return keys
