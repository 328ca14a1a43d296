"""The command that reads messages out of images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from treering_verify.cli.command import command
from treering_verify.cli.options.images import files_argument, images_of
from treering_verify.cli.options.inversion import inversion_options
from treering_verify.cli.options.keys import check_fit, key_option, only_key
from treering_verify.cli.options.verdicts import verdict_options
from treering_verify.cli.output import print_verdicts

if TYPE_CHECKING:
    from treering_verify.cli.options.inversion import InversionChoice
    from treering_verify.models import ModelSource
    from treering_verify.results import Verdict


@command("treering decode images/*.png --key message.key.json")
@files_argument
@key_option(help="Key file of a pattern that carries messages (gaussian-shading).")
@verdict_options
@inversion_options
def decode(
    files: tuple[Path, ...],
    keys: tuple[Path, ...],
    alpha: float,
    style: str,
    fail_on: tuple[str, ...],
    model: ModelSource,
    inversion: InversionChoice,
) -> None:
    """Read the message that an image carries.

    The key's pattern is gaussian-shading; the message may be any. p is the evidence that there is a message as long as the
    key's own; if p is above alpha, no message is printed. treering verify needs less evidence: it tests for the key's own
    message alone. FILES are as for treering verify.
    """
    from treering_verify.detection.messages import check_pattern, decode_many
    from treering_verify.models import load_model

    key, images = only_key(keys), images_of(files, model)
    check_pattern(key)
    check_fit([key], model)

    def verdicts() -> Iterator[Verdict]:
        loaded = load_model(model)
        return decode_many(images, key, model=loaded, alpha=alpha, inversion=inversion.inversion(loaded))

    print_verdicts(verdicts, len(images), "Reading", style, fail_on)
