"""The command `treering benchmark`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from treering_verify.cli.model_options import model_option
from treering_verify.cli.output import command_of, progress
from treering_verify.errors import UsageError, unknown

if TYPE_CHECKING:
    from treering_verify.models import ModelSource


def list_benchmarks(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    """Print every benchmark with its question, what it corresponds to in the paper, and how long it takes; then exit."""
    if not wanted:
        return
    from treering_verify.benchmark import GROUPS, format_group

    click.echo("\n\n".join(format_group(group) for group in GROUPS))
    context.exit()


@command_of(None)("treering benchmark detection --quick --output bench")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option(
    "--list",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=list_benchmarks,
    help="List all benchmarks and exit.",
)
@click.option(
    "--output", type=click.Path(path_type=Path), required=True, help="Folder for results and cached measurements."
)
@click.option("--quick", is_flag=True, help="Few images, in under two minutes; intervals are wide.")
@click.option("--count", type=click.IntRange(2), help="Number of images, instead of the benchmark's own.")
@click.option(
    "--workers",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Processes that share robustness, forgery or annulus-pareto, each with a copy of the model.",
)
@model_option
def benchmark(
    names: tuple[str, ...], output: Path, quick: bool, count: int | None, workers: int, model: ModelSource
) -> None:
    """Measure the toolkit: one or several of the benchmarks that --list shows, or all.

    Prints a summary. Writes NAME.parquet with a row per measurement, NAME.txt, and report.html with the tables and figures
    of everything measured in the same folder. Long measurements are cached in its folder "cache": an interrupted benchmark
    resumes there, and nothing is measured twice. Delete that folder to start again.
    """
    from treering_verify.benchmark import BENCHMARKS, SHARED, Scope, run, run_shared
    from treering_verify.models import load_model

    wanted = list(BENCHMARKS) if names == ("all",) else list(names)
    for name in wanted:
        if name not in BENCHMARKS:
            raise UsageError(unknown("benchmark", name, (*BENCHMARKS, "all")))
        if workers > 1 and name not in SHARED:
            raise UsageError(f"{name} cannot be shared among processes ({', '.join(SHARED)} can): leave --workers")
    scope = Scope(progress, quick, count)
    if workers > 1:
        for name in wanted:
            click.echo(run_shared(name, model, output, scope, workers))
        return
    loaded = load_model(model)
    for name in wanted:
        click.echo(run(name, loaded, output, scope))
