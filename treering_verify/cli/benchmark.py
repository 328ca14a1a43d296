"""The command `treering benchmark`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from treering_verify.cli.command import command, option
from treering_verify.cli.options.model import model_option
from treering_verify.cli.options.types import Named, OutputFolder
from treering_verify.cli.output import progress
from treering_verify.errors import UsageError

if TYPE_CHECKING:
    from treering_verify.models import ModelSource


def _names() -> Iterable[str]:
    from treering_verify.benchmark import BENCHMARKS

    return (*BENCHMARKS, "all")


def _list_benchmarks(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    """Print every benchmark with its question, what it corresponds to in the paper, and how long it takes; then exit."""
    if not wanted:
        return
    from treering_verify.benchmark import GROUPS, format_group

    click.echo("\n\n".join(format_group(group) for group in GROUPS))
    context.exit()


@command("treering benchmark detection --quick --output bench")
@click.argument("names", nargs=-1, required=True, metavar="NAME...", type=Named("benchmark", _names))
@option("--output", type=OutputFolder(), required=True, help="Folder for results and cached measurements.")
@option(
    "--list",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_list_benchmarks,
    help="List all benchmarks with their questions, and exit.",
)
@option("--quick", is_flag=True, help="Measure few images, in under two minutes; the intervals are then wide.")
@option("--count", type=click.IntRange(2), help="Number of images; default: the benchmark's own.")
@option(
    "--workers",
    type=click.IntRange(1),
    default=1,
    help="Processes that share robustness, forgery or annulus-pareto, each with a copy of the model.",
)
@model_option
def benchmark(
    names: tuple[str, ...], output: Path, quick: bool, count: int | None, workers: int, model: ModelSource
) -> None:
    """Measure detection, inversion and speed.

    NAME is a benchmark that --list shows, or all. The summary is printed. Written to --output: NAME.parquet (one row per
    measurement), NAME.md (tables and figures in Markdown), NAME.json (the tables, and where they come from), figures as SVG
    and PNG, and report.html (all that is in the folder). Long measurements are cached in its subfolder "cache": an
    interrupted benchmark resumes, and nothing is measured twice. Delete that folder to start again.
    """
    from treering_verify.benchmark import BENCHMARKS, SHARED, Scope, run, run_shared
    from treering_verify.models import load_model

    wanted = list(BENCHMARKS) if names == ("all",) else list(names)
    for name in wanted:
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
