"""The command that makes a key."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from treering_verify.cli.key_strength import reach_of, read_secret, refuse_weak
from treering_verify.cli.model_options import model_option
from treering_verify.cli.options import key_options
from treering_verify.cli.output import command_of
from treering_verify.errors import UsageError

if TYPE_CHECKING:
    from treering_verify.models import ModelSource


@command_of(None)("treering keygen --output my.key.json")
@click.option("--output", type=click.Path(path_type=Path), required=True, help="Key file to create (mode 0600).")
@click.option("--name", help="Name that verdicts call it; default: the file's name up to its first dot.")
@key_options
@click.option(
    "--from-secret", type=click.Path(path_type=Path), help="Derive the key from this file's bytes (16 or more)."
)
@click.option("--index-name", help="Derive the key that treering keys index --from-secret gives this name.")
@click.option("--message", help="With --pattern gaussian-shading: what images carry, 1 to 32 bytes; default: random.")
@click.option("--allow-weak", is_flag=True, help="Make a key although it can hardly reach p = 1e-6.")
@model_option
def keygen(
    output: Path,
    name: str | None,
    family: dict[str, Any],
    from_secret: Path | None,
    index_name: str | None,
    message: str | None,
    allow_weak: bool,
    model: ModelSource,
) -> None:
    """Make a secret key, and say how sure it could ever be. Patterns: docs/patterns.md."""
    from treering_verify.files import printable
    from treering_verify.models import latent_shape
    from treering_verify.watermark.keys.key import Family, Key

    shape = latent_shape(model)
    if index_name and (name or not from_secret):
        raise UsageError("--index-name names the key and needs --from-secret FILE: give both, and no --name")
    name = name or output.name.split(".")[0]
    if from_secret and index_name:
        key = Key.of_index(read_secret(from_secret, private=True), Family.choose(shape, **family), index_name)
    elif from_secret:
        key = Key.from_secret(read_secret(from_secret), shape, name=name, **family)
    else:
        key = Key.generate(shape, name=name, **family)
    if message is not None:
        from treering_verify.detection.messages import with_message

        key = with_message(key, message)
    sentence = reach_of(key.family)[1] if allow_weak else refuse_weak(key.family, ", or --allow-weak")
    key.save(output)
    click.echo(f"{printable(str(output))}: {key.pattern} key {key.name}, fingerprint {key.fingerprint}", err=True)
    click.echo(sentence, err=True)
