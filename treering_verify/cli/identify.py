"""The command that names the key of an image among many."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from treering_verify.cli.command import command, option
from treering_verify.cli.options.judging import Judging, judging_options
from treering_verify.cli.options.keys import check_fit

if TYPE_CHECKING:
    from treering_verify.inversion.recovery import InversionOptions
    from treering_verify.models import LatentModel
    from treering_verify.results import Verdict


@command("treering identify images/*.png --key my.index")
@judging_options(option("--top", type=click.IntRange(1), default=5, help="Number of best matches to list."))
def identify(judging: Judging, top: int) -> None:
    """Find which of many keys is in an image.

    The verdict names the key, if there is one, and the best matches are listed. p-values are corrected for all keys that
    were tried (Holm): a listed match is significant only if its p-value is at most alpha. FILES are as for treering verify.
    """
    images = judging.images()  # files and keys first: a mistake in them needs none of the imports that follow

    from treering_verify.watermark.keys.index import load_keys

    found = load_keys(judging.keys)
    check_fit(found, judging.model)

    from treering_verify.detection.identification import identify_many

    def judge(model: LatentModel, inversion: InversionOptions) -> Iterator[Verdict]:
        return identify_many(
            images, found, model=model, alpha=judging.alpha, top=top, inversion=inversion, search=judging.search
        )

    judging.print("Identifying", images, judge, keys=found, matches=True)
