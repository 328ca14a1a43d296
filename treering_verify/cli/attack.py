"""The command that writes distorted copies."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from treering_verify.cli.command import UNJUDGED, command, option
from treering_verify.cli.options.model import model_option
from treering_verify.cli.options.types import AttackText, InputPath, OutputFolder
from treering_verify.cli.options.verdicts import format_option
from treering_verify.cli.output import echo, progress
from treering_verify.errors import UsageError

if TYPE_CHECKING:
    from treering_verify.attacks.copies import AttackedCopy
    from treering_verify.models import ModelSource


def _list_attacks(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    """Print the attacks and end, before any other option is asked for."""
    if wanted:
        from treering_verify.report import format_attacks

        for line in format_attacks():
            click.echo(line)
        context.exit()


@command("treering attack images/marked-000000.png --attack jpeg:quality=25 --attack resize+blur --output attacked")
@click.argument("files", nargs=-1, required=True, type=InputPath())
@option(
    "--attack",
    "texts",
    type=AttackText(),
    multiple=True,
    required=True,
    help="Attack, such as jpeg:quality=25, or a chain, such as resize:share=0.5+jpeg:quality=50; repeatable.",
)
@option("--output", type=OutputFolder(), required=True, help="Folder for the copies, each with a JSON sidecar.")
@option(
    "--seed", type=click.IntRange(0), default=0, help="Seed of the first file; each next file takes the next number."
)
@format_option("text", "json", "jsonl")
@option(
    "--codec-bytes", is_flag=True, help="Write the codec's own .jpg, .webp or .avif file if an attack ends with one."
)
@option("--overwrite", is_flag=True, help="Replace copies that exist.")
@option(
    "--list",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_list_attacks,
    help="List all attacks with their parameters and ranges, and exit.",
)
@model_option
def attack(
    files: tuple[Path, ...],
    texts: tuple[str, ...],
    output: Path,
    seed: int,
    style: str,
    codec_bytes: bool,
    overwrite: bool,
    model: ModelSource,
) -> None:
    """Write distorted copies of images.

    Compression goes through the real codecs. Each copy is a PNG file, so that nothing is compressed twice. Its JSON sidecar
    holds the attack, its parameters, the seed and hashes. Only some attacks need a model; the others load none.
    """
    from treering_verify.attacks import parse
    from treering_verify.attacks.copies import attack_files
    from treering_verify.files import printable
    from treering_verify.models import images_only, load_model
    from treering_verify.report import format_copies

    attacks = [parse(text) for text in texts]
    loaded = load_model(model) if any(chosen.needs_model for chosen in attacks) else None
    if loaded:
        images_only(loaded, "an attack")
    failed = False
    try:
        with progress("Attacking", len(files) * len(attacks)) as advance:
            copies = attack_files(
                files, attacks, output, seed=seed, model=loaded, codec_bytes=codec_bytes, overwrite=overwrite
            )

            def watched() -> Iterator[AttackedCopy]:
                nonlocal failed
                for copy in copies:
                    failed = failed or copy.status == "error"
                    for _ in attacks if copy.attack is None else (copy.attack,):
                        advance()
                    yield copy

            for line in format_copies(watched(), style):
                echo(line, advance)
    except OSError as error:
        raise UsageError(f"cannot write to {printable(str(output))}: {error.strerror}") from error
    if failed:
        sys.exit(UNJUDGED)
