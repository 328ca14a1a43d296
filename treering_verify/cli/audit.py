"""The command that audits folders of any size."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from treering_verify.cli.options import audit_inversion_options, keys_option
from treering_verify.cli.output import FOUND, UNJUDGED, command_of
from treering_verify.errors import UsageError

if TYPE_CHECKING:
    from treering_verify.audit.output.open_shards import Tally
    from treering_verify.audit.output.rows import Row
    from treering_verify.cli.inversion_options import Asked
    from treering_verify.models import ModelSource

_SHOWN = 20  # detected files listed at the end


@command_of(None)("treering audit shots/ --key my.key.json --output audit")
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@keys_option
@click.option(
    "--output", type=click.Path(path_type=Path), required=True, help="Folder for rows; an audit there goes on."
)
@click.option(
    "--files-from", "lists", multiple=True, help="Text file of paths or URLs, one a line; - is stdin; repeatable."
)
@click.option("--null", "nul", is_flag=True, help="Entries of --files-from end with NUL, as find -print0 writes them.")
@click.option(
    "--manifest",
    "manifests",
    multiple=True,
    help="Table of paths, URLs or images: Parquet, Arrow, JSON Lines or CSV; repeatable.",
)
@click.option(
    "--column", default="", help="Column of --manifest; default: path, url, file, filename, image or the only one."
)
@click.option(
    "--alpha",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=1e-6,
    show_default=True,
    help="False-positive rate per image, all keys.",
)
@click.option(
    "--screening",
    type=click.Choice(["auto", "on", "off"]),
    default="auto",
    show_default=True,
    help="Cheap screening pass that decides what is clear; only the rest is inverted in full. auto: where it was measured "
    "to lose next to nothing (a model that brings a screen, its usual inversion, up to 10 keys).",
)
@click.option("--fdr", is_flag=True, help="Add q_value to the rows at the end: Benjamini-Hochberg over files.")
@click.option("--fail-on", type=click.Choice(["detected", "no-evidence", "inconclusive", "unread"]), multiple=True)
@click.option(
    "--format", "style", type=click.Choice(["text", "json"]), default="text", show_default=True, help="Of the summary."
)
@click.option("--overwrite", is_flag=True, help="Throw away the audit in --output and begin anew.")
@click.option(
    "--retry-errors", is_flag=True, help="Try again what an earlier run has an error for; all other rows stay."
)
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="This machine, or a Ray cluster: that of RAY_ADDRESS, or one on this machine.",
)
@click.option(
    "--worker-cpus",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Processors of each worker of --engine ray.",
)
@click.option(
    "--readers",
    type=click.IntRange(0),
    default=0,
    help="Reader processes; default: one per processor, at most 4.",
)
@click.option(
    "--time-limit", type=float, default=30.0, show_default=True, help="Seconds that reading one file may take."
)
@click.option(
    "--reader-memory", type=click.IntRange(256), default=3072, show_default=True, help="MiB of a reader process."
)
@click.option("--shard-rows", type=click.IntRange(1), default=1000, show_default=True, help="Rows in a Parquet file.")
@click.option("--quiet", is_flag=True, help="No progress bar and no summary; errors still show.")
@click.option("--log-file", type=click.Path(path_type=Path), help="Append what happens to this file.")
@audit_inversion_options
def audit(
    paths: tuple[str, ...],
    keys: tuple[Path, ...],
    output: Path,
    lists: tuple[str, ...],
    nul: bool,
    manifests: tuple[str, ...],
    column: str,
    alpha: float,
    screening: str,
    fdr: bool,
    fail_on: tuple[str, ...],
    style: str,
    overwrite: bool,
    retry_errors: bool,
    engine: str,
    worker_cpus: int,
    readers: int,
    time_limit: float,
    reader_memory: int,
    shard_rows: int,
    quiet: bool,
    log_file: Path | None,
    model: ModelSource,
    inversion: Asked,
) -> None:
    """Judge every file of folders, lists and manifests, of any number: one row each, whatever is in it.

    Rows go to Parquet files in --output, counts to summary.json and a page to report.html there. What is no image is
    skipped, what is broken is an error, both with a reason; nothing stops an audit. The same command goes on where an audit
    was ended, by Ctrl-C, by SIGTERM (both exit 130 once the batch is done) or by a crash. Links are not followed, except
    where PATH is one to a folder.
    """
    import json

    from treering_verify.audit.engine import run_audit
    from treering_verify.audit.inputs.reader_pool import Limits
    from treering_verify.audit.inputs.sources import Inputs
    from treering_verify.audit.judge import AuditJudge
    from treering_verify.audit.options import Options
    from treering_verify.audit.output.store import SUMMARY, first_detected
    from treering_verify.detection.screening import Screening
    from treering_verify.files import printable
    from treering_verify.models import load_model
    from treering_verify.report import count_unread, format_row, format_summary
    from treering_verify.report.audit import PAGE, write_report
    from treering_verify.watermark.keys.index import load_keys

    if not (paths or lists or manifests):
        raise UsageError("nothing to audit: give PATH, --files-from or --manifest")
    limits = Limits(time_limit, reader_memory, readers)
    options = Options(limits, inversion.batch_size, shard_rows, fdr, overwrite, engine, worker_cpus, retry_errors)
    inputs = Inputs(paths, lists, nul, manifests, column)
    with _logged(log_file), _stopped_by_signals() as stop, _progress(quiet) as watch:
        found, loaded = load_keys(keys), load_model(model)
        way: Screening | Literal["auto"] | None = (
            Screening() if screening == "on" else None if screening == "off" else "auto"
        )
        judge = AuditJudge.of(found, loaded, alpha, inversion.inversion(loaded), way)
        for _ in run_audit(inputs, judge, output, options, watch, stop):
            pass
        write_report(output, model=judge.model, inversion=judge.judge.inversion)
    summary = json.loads((output / SUMMARY).read_text())
    verdicts, detected = summary["verdict"], summary["verdict"].get("detected", 0)
    if not quiet and style == "json":
        click.echo(json.dumps(summary, indent=2))
    elif not quiet:
        shown: list[Row] = first_detected(output, _SHOWN) if detected else []
        for row in shown:
            click.echo(format_row(row.record()))
        if detected > len(shown):
            click.echo(f"... and {detected - len(shown)} more detected")
        for line in format_summary(summary):
            click.echo(line)
        click.echo(f"rows, summary and {PAGE} are in {printable(str(output))}", err=True)
    found_unread = "unread" in fail_on and count_unread(summary["code"])
    if found_unread or any(verdicts.get(name.replace("-", " "), 0) for name in fail_on):
        sys.exit(FOUND)
    if summary["status"].get("error", 0):
        sys.exit(UNJUDGED)


@contextmanager
def _stopped_by_signals() -> Iterator[threading.Event]:
    """Yield an event that SIGINT and SIGTERM set; a second signal interrupts at once."""
    stop = threading.Event()

    def handle(number: int, frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        click.echo("Stopping after this batch; once more to stop at once.", err=True)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _logged(path: Path | None) -> Iterator[None]:
    """Append the audit's log to a file."""
    from treering_verify.files import printable

    if path is None:
        yield
        return
    try:
        handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise UsageError(f"cannot write the log {printable(str(path))}: {error.strerror}") from error
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log = logging.getLogger("treering_verify.audit")
    before, propagate = log.level, log.propagate
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(before)
        log.propagate = propagate
        handler.close()


@contextmanager
def _progress(quiet: bool) -> Iterator[Callable[[Tally], None]]:
    """Progress bar on stderr with rate, time left and counts by verdict; none without a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (
        TextColumn("Auditing"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[counts]}"),
    )
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal, transient=True) as bar:
        task = bar.add_task("", total=None, rate="", counts="")

        def watch(tally: Tally) -> None:
            speed = bar.tasks[0].finished_speed or bar.tasks[0].speed
            counts = [
                f"{n} {label.split(':')[1]}"
                for label, n in sorted(tally.counts.items())
                if label in ("status:error", "status:skipped") or label.startswith("verdict:")
            ]
            bar.update(
                task,
                completed=tally.done,
                total=tally.total if tally.walked else None,
                rate=f"{speed:.1f}/s" if speed else "",
                counts=", ".join(counts),
            )

        yield watch
