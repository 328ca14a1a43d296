"""The command that names the key of an image among many."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from treering_verify.cli.options import inversion_options, keys_option, verdict_options
from treering_verify.cli.output import command_of, print_verdicts

if TYPE_CHECKING:
    from treering_verify.cli.inversion_options import Asked
    from treering_verify.models import ModelSource


@command_of(None)("treering identify images/*.png --key my.index")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@keys_option
@click.option("--top", type=click.IntRange(1), default=5, show_default=True, help="Best matches to list.")
@verdict_options
@inversion_options
def identify(
    files: tuple[Path, ...],
    keys: tuple[Path, ...],
    top: int,
    alpha: float,
    style: str,
    fail_on: tuple[str, ...],
    model: ModelSource,
    inversion: Asked,
) -> None:
    """Say for each image which of many keys is in it, if any, and list the best matches.

    Every p is corrected for all keys that were tried (Holm), so a match that is listed proves nothing unless its p is at
    most alpha.
    """
    from treering_verify.detection.identification import identify_many
    from treering_verify.models import load_model
    from treering_verify.watermark.keys.index import load_keys

    found, loaded = load_keys(keys), load_model(model)
    verdicts = identify_many(files, found, model=loaded, alpha=alpha, top=top, inversion=inversion.inversion(loaded))
    print_verdicts(verdicts, len(files), "Identifying", style, fail_on, matches=True)
