"""The command that reads messages out of images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from treering_verify.cli.options import inversion_options, verdict_options
from treering_verify.cli.output import command_of, print_verdicts

if TYPE_CHECKING:
    from treering_verify.cli.inversion_options import Asked
    from treering_verify.models import ModelSource


@command_of(None)("treering decode images/*.png --key my.key.json")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--key", "key_file", required=True, type=click.Path(path_type=Path), help="Of pattern gaussian-shading.")
@verdict_options
@inversion_options
def decode(
    files: tuple[Path, ...],
    key_file: Path,
    alpha: float,
    style: str,
    fail_on: tuple[str, ...],
    model: ModelSource,
    inversion: Asked,
) -> None:
    """Read the message that images carry under a key of pattern gaussian-shading, whichever it is.

    p says how surely there is any message as long as the key's own; where it is above alpha, none is given. Whether an image
    carries the key's own message, treering verify says, and needs less evidence for it.
    """
    from treering_verify.detection.messages import decode_many
    from treering_verify.models import load_model
    from treering_verify.watermark.keys.key import Key

    key, loaded = Key.load(key_file), load_model(model)
    verdicts = decode_many(files, key, model=loaded, alpha=alpha, inversion=inversion.inversion(loaded))
    print_verdicts(verdicts, len(files), "Reading", style, fail_on)
