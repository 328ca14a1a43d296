"""The commands about models: which there are, and whether one can carry a mark."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from treering_verify.cli.command import FOUND, Group, command, option
from treering_verify.cli.options.generation import generation_options
from treering_verify.cli.options.inversion import precision_option
from treering_verify.cli.options.model import model_argument
from treering_verify.cli.options.types import OutputFile
from treering_verify.errors import UsageError

if TYPE_CHECKING:
    from treering_verify.models import ModelSource


@click.group(cls=Group, invoke_without_command=True, epilog="Example: treering models")
@click.pass_context
def models(context: click.Context) -> None:
    """List supported models, or test one.

    Without a command, the supported families of models are listed.
    """
    if context.invoked_subcommand is None:
        from treering_verify.report.models import format_families

        for line in format_families():
            click.echo(line)


@command("treering models check landscape --count 2")
@model_argument
@option("--count", type=click.IntRange(2), default=4, help="Number of marked images, and of unmarked ones.")
@option(
    "--output", type=OutputFile(), help="Profile to write: a JSON file for --profile of verify, identify and audit."
)
@generation_options(20)
@option("--batch-size", type=click.IntRange(1), default=4, topic="Inversion", help="Images per batch.")
@precision_option("Inversion")
def check(
    model: ModelSource,
    count: int,
    steps: int,
    guidance: float,
    prompt: str | None,
    batch_size: int,
    precision: str,
    output: Path | None,
) -> None:
    """Test whether a model can carry a watermark.

    Images are generated with and without a key, inverted with several settings and tested. The command reports how much of
    the noise survives and which settings are best, and exits with 1 if too little survives. The images are not attacked,
    except by one JPEG compression: to measure robustness, use treering attack.
    """
    import json
    import sys

    from treering_verify.detection.self_test import check_model
    from treering_verify.files import printable, write_atomic
    from treering_verify.models import load_model
    from treering_verify.report.models import format_self_test

    found = check_model(
        load_model(model),
        count=count,
        steps=steps,
        guidance=guidance,
        prompts=[prompt] * count if prompt else None,
        batch_size=batch_size,
        precision=precision,
    )
    record = found.record()
    for line in format_self_test(record):
        click.echo(line)
    if output:
        try:
            write_atomic(output, (json.dumps(record, indent=2) + "\n").encode())
        except OSError as error:
            raise UsageError(f"cannot write {printable(str(output))}: {error.strerror}") from error
    if not found.usable:
        sys.exit(FOUND)


models.add_section("Commands", check)
