"""The command `treering benchmark`."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from treering_verify.cli.command import CommandWithActions, command, option
from treering_verify.cli.options.inversion import inverter_option, with_inverter
from treering_verify.cli.options.keys import key_option
from treering_verify.cli.options.model import model_option
from treering_verify.cli.options.types import InputPath, Named, OutputFolder
from treering_verify.cli.output import progress
from treering_verify.errors import UsageError

if TYPE_CHECKING:
    from treering_verify.benchmark import OwnImages
    from treering_verify.models import ModelSource


def _names() -> Iterable[str]:
    from treering_verify.benchmark import BENCHMARKS

    return (*BENCHMARKS, "all")


def _methods() -> Iterable[str]:
    from treering_verify.inversion import decoder, noise

    return dict.fromkeys((*decoder.METHODS, *noise.METHODS))


def _own_images(images: Path | None, keys: tuple[Path, ...], table: Path | None) -> OwnImages | None:
    """Return what --images, --key and --labels name; None without them."""
    from treering_verify.benchmark import OwnImages
    from treering_verify.watermark.keys.index import read_keys

    if images is None:
        if keys or table:
            raise UsageError("--key and --labels say which keys marked your images: name their folder with --images")
        return None
    if not keys:
        raise UsageError("--images needs the keys of the images: give --key")
    return OwnImages(images, read_keys(keys), table)


def _list_benchmarks(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    """Print every benchmark with its question, what it corresponds to in the paper, and how long it takes; then exit."""
    if not wanted:
        return
    from treering_verify.benchmark import GROUPS, format_group

    click.echo("\n\n".join(format_group(group) for group in GROUPS))
    click.echo("\nMinutes are those of one processor, on landscape. Two cores take half of them.")
    context.exit()


@command("treering benchmark detection --quick --output bench", cls=CommandWithActions)
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
@option(
    "--quick",
    is_flag=True,
    help="Measure few images, in under two minutes on two cores (paper: see --list). The intervals are then wide.",
)
@option(
    "--preset",
    type=Named("preset", ("docs",)),
    help="Measure as many images as in the results of the documentation. With NAME all, every benchmark with such a result "
    "runs, except finished ones.",
)
@option(
    "--count",
    type=click.IntRange(2),
    help="Number of images; default: the benchmark's own. paper then ends at 20 iterations, where it has 200 otherwise.",
)
@option(
    "--only",
    multiple=True,
    metavar="PART",
    help="Measure only this part; repeatable. For shared: a chain, a group of chains, common, a level of the search, or "
    "index. For search-parts: a chain, a group of chains, or common. For search-uniformity: a level of the search.",
)
@option(
    "--workers",
    type=click.IntRange(1),
    default=1,
    help="Number of processes, each with a copy of the model; for robustness, survival, forgery and annulus-pareto.",
)
@option(
    "--method",
    "methods",
    multiple=True,
    type=Named("inversion", _methods),
    help="Decoder or noise inversion to measure beside the benchmark's own, such as one that you added; repeatable. "
    "docs/benchmarks.md lists the benchmarks that take it.",
)
@option("--images", type=InputPath(), help="Folder of your own images with known keys, for classification.")
@key_option(required=False, help="Keys of --images: key file, folder of key files, or index; repeatable.")
@option(
    "--labels",
    type=InputPath(),
    help="CSV with the columns path and key of --images; default: their sidecars, else the names of subfolders.",
)
@inverter_option
@model_option
def benchmark(
    names: tuple[str, ...],
    output: Path,
    quick: bool,
    preset: str | None,
    count: int | None,
    only: tuple[str, ...],
    workers: int,
    methods: tuple[str, ...],
    images: Path | None,
    keys: tuple[Path, ...],
    labels: Path | None,
    inverter: Path | None,
    model: ModelSource,
) -> None:
    """Measure detection, inversion and speed.

    NAME is a benchmark that --list shows, or all. The command prints a summary and writes to --output: NAME.parquet (one row
    per measurement), NAME.md (tables and figures in Markdown), NAME.json (the tables and their origin), figures as SVG and
    PNG, and report.html (a page of everything in the folder). Long measurements are cached in the subfolder "cache", so that
    nothing is measured twice. Ctrl-C reports the measurements until then; the same command resumes.

    treering benchmark diff OLD NEW compares two such folders, and lists what got better or worse beyond noise.
    """
    from treering_verify.benchmark import (
        BENCHMARKS,
        DOCS,
        SHARED,
        Scope,
        check_methods,
        finished,
        plan_of_docs,
        run,
        run_shared,
    )
    from treering_verify.models import load_model

    if preset and (quick or count):
        raise UsageError("--preset sets the number of images: leave out --quick and --count")
    wanted = list(BENCHMARKS) if names == ("all",) else list(names)
    for name in wanted:
        if workers > 1 and name not in SHARED:
            raise UsageError(f"{name} cannot be shared among processes ({', '.join(SHARED)} can): leave out --workers")
        if preset and name not in DOCS and names != ("all",):
            raise UsageError(f"the documentation has no result of {name}: leave out --preset")
        check_methods(name, methods)
        if (images or keys or labels) and name != "classification":
            raise UsageError(
                f"{name} measures images of its own: --images, --key and --labels belong to classification"
            )
    own = _own_images(images, keys, labels)
    model = with_inverter(model, inverter)
    loaded = None if workers > 1 else load_model(model)
    if preset and names == ("all",):
        done = [
            name for name in DOCS if loaded and finished(name, loaded, output, DOCS[name].count, quick=DOCS[name].quick)
        ]
        wanted, plan = plan_of_docs(done)
        click.echo(plan, err=True)
    with _ended_by_terminate():
        for name in wanted:
            few, many = (DOCS[name].quick, DOCS[name].count) if preset else (quick, count)
            scope = Scope(
                _progress,
                few,
                many,
                methods=tuple(dict.fromkeys(methods)),
                own=own,
                only=only,
                inverter=inverter is not None,
            )
            click.echo(run(name, loaded, output, scope) if loaded else run_shared(name, model, output, scope, workers))


@command("treering benchmark diff bench bench", name="diff")
@click.argument("old", type=InputPath(), metavar="OLD")
@click.argument("new", type=InputPath(), metavar="NEW")
def diff(old: Path, new: Path) -> None:
    """Compare the results of two runs.

    OLD and NEW are --output folders of benchmarks. The command says what got better or worse beyond noise. What both have
    is compared: values of the same images in pairs (McNemar's exact test, Wilcoxon's signed ranks), others by Fisher's
    exact test and by ranks, times by their ratio, all under Holm's correction at 5 %.
    """
    from treering_verify.benchmark import compare, format_comparison

    click.echo(format_comparison(compare(old, new)))


benchmark.actions = {"diff": diff}  # type: ignore[attr-defined]


@contextmanager
def _progress(description: str, total: int) -> Iterator[Callable[[], None]]:
    """Show a bar with the time that is left; without a terminal a line on stderr every half minute."""
    with progress(description, total) as advance:
        if sys.stderr.isatty():
            yield advance
            return
        started = said = time.monotonic()
        done = 0

        def counted() -> None:
            nonlocal done, said
            done += 1
            advance()
            if time.monotonic() - said >= _EVERY:
                said = time.monotonic()
                left = (said - started) / done * (total - done) / 60
                click.echo(f"{description}: {done} of {total}, about {max(1, round(left))} min left", err=True)

        yield counted


_EVERY = 30.0  # seconds


@contextmanager
def _ended_by_terminate() -> Iterator[None]:
    """Let SIGTERM do what Ctrl-C does: report what was measured. Print the summary of that report."""
    from treering_verify.benchmark import BenchmarkInterrupted

    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except BenchmarkInterrupted as ended:
        click.echo(ended.summary)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
