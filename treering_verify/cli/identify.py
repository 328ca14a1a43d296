"""The command that names the key of an image among many."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from treering_verify.cli.command import command, option
from treering_verify.cli.options.detector import search_options
from treering_verify.cli.options.images import files_argument, images_of
from treering_verify.cli.options.inversion import inversion_options
from treering_verify.cli.options.keys import check_fit, key_option
from treering_verify.cli.options.verdicts import verdict_options
from treering_verify.cli.output import print_verdicts

if TYPE_CHECKING:
    from treering_verify.cli.options.inversion import InversionChoice
    from treering_verify.models import ModelSource
    from treering_verify.results import Verdict


@command("treering identify images/*.png --key my.index")
@files_argument
@key_option()
@option("--top", type=click.IntRange(1), default=5, help="Number of best matches to list.")
@verdict_options
@search_options
@inversion_options
def identify(
    files: tuple[Path, ...],
    keys: tuple[Path, ...],
    top: int,
    alpha: float,
    style: str,
    fail_on: tuple[str, ...],
    search: str,
    model: ModelSource,
    inversion: InversionChoice,
) -> None:
    """Find which of many keys is in an image.

    The verdict names the key, if there is one, and the best matches are listed. p-values are corrected for all keys that
    were tried (Holm): a listed match is significant only if its p-value is at most alpha. FILES are as for treering verify.
    """
    from treering_verify.detection.identification import identify_many
    from treering_verify.detection.search.settings import search_of
    from treering_verify.models import load_model
    from treering_verify.watermark.keys.index import load_keys

    search_of(search)
    found, images = load_keys(keys), images_of(files, model)
    check_fit(found, model)

    def verdicts() -> Iterator[Verdict]:
        loaded = load_model(model)
        chosen = inversion.inversion(loaded)
        return identify_many(images, found, model=loaded, alpha=alpha, top=top, inversion=chosen, search=search)

    print_verdicts(verdicts, len(images), "Identifying", style, fail_on, matches=True)
