"""The command that measures the toolkit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from treering_verify.cli.model_options import model_option
from treering_verify.cli.output import command_of, progress
from treering_verify.errors import UsageError

if TYPE_CHECKING:
    from treering_verify.models import ModelSource


@command_of(None)("treering benchmark detection --quick --output bench")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option(
    "--output", type=click.Path(path_type=Path), required=True, help="Folder for rows, summaries, report.html."
)
@click.option("--quick", is_flag=True, help="Few images, under two minutes; the intervals say how little that proves.")
@click.option("--count", type=click.IntRange(2), help="Images, instead of the benchmark's own number.")
@click.option(
    "--workers",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Processes that share robustness, forgery or front, each with a copy of the model.",
)
@model_option
def benchmark(
    names: tuple[str, ...], output: Path, quick: bool, count: int | None, workers: int, model: ModelSource
) -> None:
    """Measure the toolkit: detection, robustness, inversion, throughput, quality and more, or all.

    Prints a summary; writes NAME.parquet with a row per measurement, NAME.txt, and report.html with tables and figures of
    everything that was measured into the same folder. What took long is kept in its folder "kept": an interrupted benchmark
    goes on where it was, and one that asks the same question again does not measure it twice. Delete it to begin anew.
    """
    from treering_verify.benchmark import BENCHMARKS, SHARED, Scope, run, run_shared
    from treering_verify.models import load_model

    wanted = list(BENCHMARKS) if names == ("all",) else list(names)
    for name in wanted:
        if name not in BENCHMARKS:
            raise UsageError(f"no benchmark {name!r}: choose from {', '.join(BENCHMARKS)}, or all")
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
