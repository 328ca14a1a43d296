"""The commands about models: which there are, and whether one can carry a mark."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from treering_verify.cli.model_options import model_argument
from treering_verify.cli.output import FOUND, command_of
from treering_verify.errors import UsageError

if TYPE_CHECKING:
    from treering_verify.models import ModelSource


@click.group(invoke_without_command=True, epilog="Example: treering models")
@click.pass_context
def models(context: click.Context) -> None:
    """List the families of models that are supported; see also treering models check."""
    if context.invoked_subcommand is None:
        from treering_verify.report.models import format_families

        for line in format_families():
            click.echo(line)


@command_of(models)("treering models check landscape --count 2")
@model_argument
@click.option(
    "--count", type=click.IntRange(2), default=4, show_default=True, help="Marked images, and as many unmarked."
)
@click.option("--steps", type=click.IntRange(1), default=20, show_default=True, help="Of generation.")
@click.option("--guidance", type=click.FloatRange(0), default=2.0, show_default=True)
@click.option("--prompt", help="Of all images; default: none, or classes in turn.")
@click.option("--batch-size", type=click.IntRange(1), default=4, show_default=True)
@click.option(
    "--precision",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    default="float32",
    show_default=True,
    help="Of the autoencoder, in every setting.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="Profile: a JSON file of everything that was found, for --profile of verify, identify and audit.",
)
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
    """Mark images with a model, take them back, and say how much of the noise survives; exit 1 if too little does.

    Nothing is attacked here: whoever expects JPEG, crops or screenshots measures those with treering attack.
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
