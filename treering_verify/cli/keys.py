"""The commands for many keys: list them, retire one, build an index."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from datetime import date
from itertools import chain
from math import log10
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from treering_verify.cli.command import UNJUDGED, Group, command, option
from treering_verify.cli.key_strength import reach_of, read_secret
from treering_verify.cli.options.keys import pattern_options, secret_option
from treering_verify.cli.options.model import shape_option
from treering_verify.cli.options.types import Date, InputPath, Named, OutputFile
from treering_verify.cli.options.verdicts import format_option
from treering_verify.cli.output import progress
from treering_verify.errors import UsageError

if TYPE_CHECKING:
    from treering_verify.models import ModelSource
    from treering_verify.watermark.keys.key import Family, Key

_TOPIC = "Keys from a secret"


@click.group(cls=Group, epilog="Example: treering keys list keys/")
def keys() -> None:
    """List keys, retire them, build an index."""


@command("treering keys list keys/", name="list")
@click.argument("key_paths", nargs=-1, required=True, metavar="KEYS...", type=InputPath())
@format_option("text", "json")
def list_(key_paths: tuple[Path, ...], style: str) -> None:
    """List names, fingerprints and states of keys.

    KEYS are folders of key files, and key files. No number of a key is shown. The exit code is 3 if a file in a folder
    cannot be read.
    """
    import json

    from treering_verify.report import format_keys, key_records
    from treering_verify.watermark.keys.key_folder import list_keys

    found, errors = list_keys(key_paths)
    click.echo(json.dumps(key_records(found), indent=2) if style == "json" else format_keys(found))
    for error in errors:
        click.echo(f"Error: {error}", err=True)
    if errors:
        sys.exit(UNJUDGED)


@command("treering keys retire old.key.json --note 'replaced by new.key.json'")
@click.argument("key_path", metavar="FILE", type=InputPath())
@option("--note", help="Note for the key file; it replaces the one in it.")
@option("--date", "day", type=Date(), help="First day (UTC) on which the key marks no images; default: today.")
def retire(key_path: Path, note: str | None, day: date | None) -> None:
    """Retire a key: it marks no more images.

    The date is written into the key file. A retired key still verifies: verdicts that name it say that it is retired.
    """
    from treering_verify.files import printable
    from treering_verify.watermark.keys.key_folder import retire as retire_key

    key = retire_key(key_path, day=day, note=note)
    shown = printable(str(key_path))
    click.echo(f"{shown}: {key.pattern} key {key.name}, fingerprint {key.fingerprint}, {key.state}", err=True)


@command("treering keys index --from-secret my.secret --generate 1000 --output my.index")
@click.argument("key_paths", nargs=-1, metavar="[KEYS]...", type=InputPath())
@option("--output", type=OutputFile(), required=True, help="Index file to create, readable by its owner only.")
@option(
    "--dtype", type=Named("dtype", ("float16", "float32")), default="float16", help="Precision of the stored numbers."
)
@secret_option("File with a secret, from which the keys are derived.", _TOPIC)
@option("--generate", type=click.IntRange(1), topic=_TOPIC, help="Number of keys, named PREFIX-0, PREFIX-1, and so on.")
@option("--prefix", default="user", topic=_TOPIC, help="First part of the names that --generate makes.")
@option(
    "--first", type=click.IntRange(0), default=0, topic=_TOPIC, help="Number in the first name that --generate makes."
)
@option("--names", type=InputPath(), topic=_TOPIC, help="Text file of names, one a line, instead of --generate.")
@pattern_options
@shape_option
def index(
    key_paths: tuple[Path, ...],
    output: Path,
    dtype: str,
    from_secret: Path | None,
    generate: int | None,
    prefix: str,
    first: int,
    names: Path | None,
    family: dict[str, Any],
    model: ModelSource,
) -> None:
    """Build an index of many keys.

    KEYS are key files and folders of them; with --from-secret the keys are derived instead. An index holds keys of one
    family: the same pattern, channels, radii and noise shape. It is as secret as the keys. To derive one of its keys again,
    give keygen --from-secret FILE --index-name NAME and the same pattern, channels, radii and model.
    """
    from treering_verify.files import printable
    from treering_verify.report import format_pvalue
    from treering_verify.watermark.keys.index_file import blocks_of, write_index

    if from_secret:
        if key_paths or (generate is None) == (names is None):
            raise UsageError("with --from-secret FILE, give --generate N or --names FILE, and no key files")
        count, chosen, made = _derived(from_secret, generate, prefix, first, names, family, model)
    else:
        if generate is not None or names is not None:
            raise UsageError("--generate and --names need --from-secret FILE: head -c 32 /dev/urandom > FILE makes one")
        count, chosen, made = _stored(key_paths)
    with progress("Indexing", count) as advance:
        write_index(output, chosen, count, blocks_of(_counted(made, advance), chosen), dtype)
    size = output.stat().st_size / 2**20
    click.echo(f"{printable(str(output))}: {count} keys ({chosen}), {dtype}, {size:.1f} MiB", err=True)
    reach, sentence = reach_of(chosen)
    corrected = format_pvalue(min(0.0, reach + log10(count)))
    click.echo(f"{sentence}, {corrected} after the correction for {count} keys", err=True)


def _stored(paths: tuple[Path, ...]) -> tuple[int, Family, Iterator[Key]]:
    """Return count, family and keys of key files, read one after another."""
    from treering_verify.watermark.keys.index import key_files
    from treering_verify.watermark.keys.key import Key

    files = key_files(paths)
    if not files:
        raise UsageError("no keys to index: name key files or folders of them, or --from-secret FILE")
    first = Key.load(files[0])
    return len(files), first.family, chain([first], (Key.load(file) for file in files[1:]))


def _derived(
    from_secret: Path,
    generate: int | None,
    prefix: str,
    first: int,
    names: Path | None,
    options: dict[str, Any],
    model: ModelSource,
) -> tuple[int, Family, Iterator[Key]]:
    """Return count, family and keys that are derived from a secret, one after another."""
    from treering_verify.files import printable
    from treering_verify.models import latent_shape
    from treering_verify.watermark.keys.key import Family, Key, is_name

    secret, family = read_secret(from_secret, private=True), Family.choose(latent_shape(model), **options)
    if generate is not None:
        return generate, family, (Key.of_index(secret, family, f"{prefix}-{first + i}") for i in range(generate))
    assert names is not None
    shown = printable(str(names))
    try:
        listed = [line.strip() for line in names.read_text("utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {shown}: {getattr(error, 'strerror', error)}") from None
    for number, name in enumerate(listed, 1):
        if not is_name(name):
            raise UsageError(
                f"line {number} of {shown} is not a name: give 1 to 64 letters, digits, '.', '_' or '-', "
                "the first a letter or digit"
            )
    if len(set(listed)) < len(listed):
        raise UsageError(f"{shown} contains a name twice: remove one")
    return len(listed), family, (Key.of_index(secret, family, name) for name in listed)


def _counted(made: Iterator[Key], advance: Callable[[], None]) -> Iterator[Key]:
    for key in made:
        yield key
        advance()


keys.add_section("Commands", list_, retire, index)
