"""The command that creates a key."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from treering_verify.cli.command import command, option
from treering_verify.cli.key_strength import reach_of, read_message, read_secret, refuse_weak
from treering_verify.cli.options.keys import pattern_options, secret_option
from treering_verify.cli.options.model import model_option
from treering_verify.cli.options.types import Date, InputPath, OutputFile
from treering_verify.errors import UsageError

if TYPE_CHECKING:
    from treering_verify.models import ModelSource

_TOPIC = "Key from a secret"


@command("treering keygen --output my.key.json")
@option("--output", type=OutputFile(), required=True, help="Key file to create, readable by its owner only.")
@option("--name", help="Name of the key in verdicts; default: the file's name up to its first dot.")
@option("--not-before", type=Date(), help="First day (UTC) on which the key may mark images; default: any day.")
@option("--note", default="", show_default=False, help="Note to write into the key file.")
@pattern_options
@option(
    "--message-from",
    type=InputPath(stdin=True),
    topic="Pattern of the key",
    help="Message of 1 to 32 bytes that images carry (--pattern gaussian-shading): a file, or - for standard input; "
    "default: random bytes.",
)
@option("--allow-weak", is_flag=True, topic="Pattern of the key", help="Allow a key that can hardly reach p = 1e-6.")
@secret_option("File with a secret of at least 16 bytes, from which the key is derived.", _TOPIC)
@option(
    "--index-name", topic=_TOPIC, help="Name of a key of the index that treering keys index builds from the secret."
)
@model_option
def keygen(
    output: Path,
    name: str | None,
    not_before: date | None,
    note: str,
    family: dict[str, Any],
    from_secret: Path | None,
    index_name: str | None,
    message_from: Path | None,
    allow_weak: bool,
    model: ModelSource,
) -> None:
    """Create a watermark key.

    The command reports the smallest p-value that the key can reach on a realistic image. A key is a secret: whoever has it
    can write and remove the watermark. docs/patterns.md explains the patterns.
    """
    from treering_verify.files import printable
    from treering_verify.models import latent_shape
    from treering_verify.watermark.keys.key import Family, Key, is_name

    shape = latent_shape(model)
    if index_name and (name or not from_secret):
        raise UsageError("--index-name names the key and needs --from-secret FILE: give both, and no --name")
    stem = output.name.split(".")[0]
    name = name or (stem if is_name(stem) else None)  # without a name, the fingerprint's first digits are the name
    if from_secret and index_name:
        key = Key.of_index(read_secret(from_secret, private=True), Family.choose(shape, **family), index_name)
    elif from_secret:
        key = Key.from_secret(read_secret(from_secret), shape, name=name, **family)
    else:
        key = Key.generate(shape, name=name, **family)
    if message_from:
        from treering_verify.detection.messages import with_message

        key = with_message(key, read_message(message_from))
    sentence = reach_of(key.family)[1] if allow_weak else refuse_weak(key.family, ", or --allow-weak")
    key = replace(key, not_before=not_before, note=note)
    key.save(output)
    click.echo(f"{printable(str(output))}: {key.pattern} key {key.name}, fingerprint {key.fingerprint}", err=True)
    click.echo(sentence, err=True)
