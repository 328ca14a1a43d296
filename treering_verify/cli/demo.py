"""The command that runs the main job."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from treering_verify.cli.command import command, option
from treering_verify.cli.options.model import model_option
from treering_verify.cli.options.types import OutputFolder

if TYPE_CHECKING:
    from treering_verify.models import ModelSource


@command("treering demo --output demo")
@option(
    "--output", type=OutputFolder(), help="Folder to create; default: the first free one of demo, demo-2 and so on."
)
@model_option
def demo(output: Path | None, model: ModelSource) -> None:
    """Run all steps once, on a few images.

    The demo creates a key, generates marked and unmarked images, attacks copies, verifies all of them, and draws the
    spectrum of an estimated noise.
    """
    from treering_verify.cli.demonstration import run_demo

    run_demo(output, model, lambda line: click.echo(line))
