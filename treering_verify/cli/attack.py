"""The command that writes distorted copies."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from treering_verify.cli.model_options import model_option
from treering_verify.cli.output import UNJUDGED, command_of, progress
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


@command_of(None)(
    "treering attack images/marked-000000.png --attack jpeg:quality=25 --attack resize+blur --output attacked"
)
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--attack",
    "texts",
    multiple=True,
    required=True,
    help="Such as jpeg:quality=25 or resize:share=0.5+jpeg:quality=50; repeatable.",
)
@click.option(
    "--output", type=click.Path(path_type=Path), required=True, help="Folder for the copies and JSON sidecars."
)
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the first file; the next count up."
)
@click.option("--format", "style", type=click.Choice(["text", "json", "jsonl"]), default="text", show_default=True)
@click.option("--codec-bytes", is_flag=True, help="Keep the codec's own .jpg, .webp or .avif where an attack ends so.")
@click.option("--overwrite", is_flag=True, help="Replace copies that exist already; without, they are refused.")
@click.option(
    "--list",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_list_attacks,
    help="Print every attack with its parameters and ranges, and end.",
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
    """Write distorted copies of images, through real codecs, as a test of robustness.

    A copy is a PNG, so that nothing is compressed twice, named after its source and the attack; its JSON sidecar holds
    attack, parameters, seed and hashes. A model is loaded only for attacks that need one.
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
                click.echo(line)
    except OSError as error:
        raise UsageError(f"cannot write to {printable(str(output))}: {error.strerror}") from error
    if failed:
        sys.exit(UNJUDGED)
