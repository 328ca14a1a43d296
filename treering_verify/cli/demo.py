"""The command that runs the main job."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from treering_verify.cli.model_options import model_option
from treering_verify.cli.output import command_of

if TYPE_CHECKING:
    from treering_verify.models import ModelSource


@command_of(None)("treering demo --output demo")
@click.option("--output", type=click.Path(path_type=Path), help="Folder to make; default: demo, demo-2, ...")
@model_option
def demo(output: Path | None, model: ModelSource) -> None:
    """Run the main job: key, marked and unmarked images, an attack, verdicts, and the recovered spectrum."""
    from treering_verify.cli.demonstration import run_demo

    run_demo(output, model, lambda line: click.echo(line))
