"""The command that audits folders of any size."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from treering_verify.cli.command import FOUND, UNJUDGED, command, option
from treering_verify.cli.options.detector import search_options
from treering_verify.cli.options.inversion import audit_inversion_options
from treering_verify.cli.options.keys import check_fit, key_option
from treering_verify.cli.options.types import InputPath, Named, OutputFile, OutputFolder
from treering_verify.cli.options.verdicts import alpha_option, fail_on_option, format_option
from treering_verify.cli.running.progress import audit_progress
from treering_verify.cli.running.repeats import is_repeated, request_for
from treering_verify.cli.running.signals import stopped_by_signals
from treering_verify.errors import UsageError

if TYPE_CHECKING:
    from treering_verify.audit.output.rows import Row
    from treering_verify.cli.options.inversion import InversionChoice
    from treering_verify.detection.screening import ScreeningChoice
    from treering_verify.models import ModelSource

_INPUTS, _RUN = "Inputs", "Run"
_LOOKED_INTO = 1000  # folders, until one with a file is found
_SHOWN = 20  # detected files listed at the end


@command("treering audit shots/ --key my.key.json --output audit")
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@key_option()
@option(
    "--output", type=OutputFolder(), required=True, help="Folder for the results. An unfinished audit there is resumed."
)
@alpha_option
@fail_on_option("unread")
@format_option("text", "json")
@option("--quiet", is_flag=True, help="Show no progress bar and no summary; errors still show.")
@option(
    "--files-from",
    "files_from",
    multiple=True,
    topic=_INPUTS,
    help="Text file of paths or URLs, one a line; - for standard input; repeatable.",
)
@option("--null", is_flag=True, topic=_INPUTS, help="Read NUL-terminated --files-from, as find -print0 writes them.")
@option(
    "--manifest",
    "manifests",
    multiple=True,
    topic=_INPUTS,
    help="Parquet, Arrow, JSON Lines or CSV table of paths, URLs or images; repeatable.",
)
@option(
    "--column",
    default="",
    show_default=False,
    topic=_INPUTS,
    help="Column of --manifest; default: path, url, file, filename, image, another usual name, or the only one.",
)
@option(
    "--root",
    type=InputPath(),
    topic=_INPUTS,
    help="Folder that local paths in lists and manifests must stay in; default: the folder of each, and for - the current "
    "folder.",
)
@option(
    "--allow-protocol",
    "allow_protocols",
    multiple=True,
    topic=_INPUTS,
    help="Protocol of URLs to open besides s3, gs, az, abfs, http and https, such as ftp; repeatable.",
)
@option(
    "--allow-private",
    is_flag=True,
    topic=_INPUTS,
    help="Allow URLs of http and https that lead to this machine or to private networks.",
)
@option(
    "--screening",
    type=Named("screening", ("auto", "on", "off")),
    default="auto",
    topic="Screening",
    help="Use of a cheap screening pass, which decides the clear images; only the others are inverted in full. auto: on "
    "where measurements showed almost no loss (a model with a network for it, default inversion, up to 10 keys).",
)
@search_options
@option(
    "--q-values",
    is_flag=True,
    topic=_RUN,
    help="Add q_value to the rows at the end: false discovery rate over files (Benjamini-Hochberg).",
)
@option("--overwrite", is_flag=True, topic=_RUN, help="Delete the audit in --output and start again.")
@option("--retry-errors", is_flag=True, topic=_RUN, help="Judge files again that have an error; keep all other rows.")
@option("--shard-rows", type=click.IntRange(1), default=1000, topic=_RUN, help="Rows per Parquet file.")
@option("--log-file", type=OutputFile(), topic=_RUN, help="File to which a log is appended.")
@option(
    "--engine",
    type=Named("engine", ("local", "ray")),
    default="local",
    topic=_RUN,
    help="This machine, or a Ray cluster: the one that RAY_ADDRESS names, or a new one on this machine.",
)
@option("--worker-cpus", type=click.IntRange(1), default=1, topic=_RUN, help="Processors per worker of --engine ray.")
@option(
    "--readers",
    type=click.IntRange(0),
    default=0,
    topic=_RUN,
    help="Reader processes; 0: one per processor, at most 4.",
)
@option(
    "--time-limit",
    type=click.FloatRange(0, min_open=True),
    default=30.0,
    topic=_RUN,
    help="Seconds that reading one file may take.",
)
@option(
    "--reader-memory", type=click.IntRange(256), default=3072, topic=_RUN, help="Memory of a reader process, in MiB."
)
@audit_inversion_options
def audit(
    paths: tuple[str, ...],
    keys: tuple[Path, ...],
    output: Path,
    files_from: tuple[str, ...],
    null: bool,
    manifests: tuple[str, ...],
    column: str,
    root: Path | None,
    allow_protocols: tuple[str, ...],
    allow_private: bool,
    alpha: float,
    screening: ScreeningChoice,
    search: str,
    q_values: bool,
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
    inversion: InversionChoice,
) -> None:
    """Test every file of large collections.

    PATH is a file, folder, glob pattern or URL. Every file gets one row: judged, skipped (not an image) or error (not
    readable), with a reason code. No file stops an audit. Rows are written to Parquet files in --output, counts to
    summary.json, and a page to report.html. After Ctrl-C, SIGTERM or SIGHUP (exit with 130 when the batch is done) or a
    crash, the same command resumes the audit. Links are not followed, except a PATH that is a link to a folder.
    """
    if not (paths or files_from or manifests):
        raise UsageError("nothing to audit: give PATH, --files-from or --manifest")
    _check_use(files_from, null, manifests, column, root)
    unheard = _check_inputs(paths, files_from, null, manifests, column)
    _check_output(output)
    if unheard and not output.exists():  # an audit that goes on knows its inputs
        raise UsageError(f"nothing to audit: {unheard}")

    from treering_verify.audit.engine import run_audit
    from treering_verify.audit.inputs.reader_pool import Limits
    from treering_verify.audit.inputs.sources import Inputs
    from treering_verify.audit.inputs.urls import Access
    from treering_verify.audit.judge import AuditJudge
    from treering_verify.audit.options import Options
    from treering_verify.audit.output.repeat import note_finished
    from treering_verify.audit.output.store import SUMMARY, refuse_busy, refuse_other
    from treering_verify.audit.settings import early_facts
    from treering_verify.detection.screening import screening_of
    from treering_verify.files import is_older, printable
    from treering_verify.models import load_model
    from treering_verify.report.audit import PAGE, write_report
    from treering_verify.watermark.keys.index import load_keys

    limits = Limits(
        time_limit, reader_memory, readers, Access(tuple(name.lower() for name in allow_protocols), allow_private)
    )
    options = Options(limits, inversion.batch_size, shard_rows, q_values, overwrite, engine, worker_cpus, retry_errors)
    inputs = Inputs(paths, files_from, null, manifests, column, str(root.absolute()) if root else "")
    found = load_keys(keys)
    check_fit(found, model)
    request = request_for(found, model, inversion, inputs, options, [alpha, screening, search])
    with _logged(log_file), stopped_by_signals() as stop:

        def page(**more: Any) -> None:
            """Write the page; of a folder that is not writable, rows and summary have told already."""
            with contextlib.suppress(OSError):
                write_report(output, keys=found, root=None, **more)

        def page_so_far(live: bool) -> None:
            """Write the page of an audit that goes on, or was stopped; it is no reason to end otherwise."""
            with contextlib.suppress(UsageError):  # such as no row yet
                page(live=live)

        if is_repeated(output, request, options):
            if is_older(output / PAGE, output / SUMMARY):  # it was stopped before the page was written
                page()
        else:
            refuse_busy(output)  # before the model is loaded, which takes a while
            if not overwrite:
                refuse_other(output, early_facts(found, alpha, inputs, shard_rows))
            with audit_progress(quiet) as watch:
                loaded = load_model(model)
                chosen = inversion.inversion(loaded, quiet=quiet)
                judge = AuditJudge.of(found, loaded, alpha, chosen, screening_of(screening), search)
                try:
                    with stop.after_the_batch():
                        for _ in run_audit(
                            inputs, judge, output, options, watch, stop.event, publish=partial(page_so_far, True)
                        ):
                            pass
                        page(model=judge.model, inversion=judge.judge.inversion)
                except KeyboardInterrupt:
                    page_so_far(False)
                    with contextlib.suppress(OSError):  # of a terminal that was closed
                        click.echo(
                            f"What was judged is in {printable(str(output))}; the same command goes on.", err=True
                        )
                    raise
            note_finished(output, request)
    _conclude(output, style, quiet, fail_on)


def _conclude(output: Path, style: str, quiet: bool, fail_on: tuple[str, ...]) -> None:
    """Print what a finished audit found, and exit with 1 or 3 where its counts ask for it."""
    import json

    from treering_verify.audit.output.store import SUMMARY, first_detected
    from treering_verify.files import printable
    from treering_verify.report import count_unread, format_row, format_summary
    from treering_verify.report.audit import PAGE

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


def _check_use(
    files_from: tuple[str, ...], null: bool, manifests: tuple[str, ...], column: str, root: Path | None
) -> None:
    """Raise UsageError if an option has nothing to say anything about."""
    from treering_verify.files import printable

    if null and not files_from:
        raise UsageError("--null applies to --files-from: give a list, or leave out --null")
    if column and not manifests:
        raise UsageError("--column applies to --manifest: give a table, or leave out --column")
    if root and not (files_from or manifests):
        raise UsageError("--root applies to --files-from and --manifest: give one of them, or leave out --root")
    if root and not root.is_dir():
        raise UsageError(
            f"--root {printable(str(root))} is not a folder: name the folder that paths of lists must stay in"
        )


def _check_inputs(
    paths: tuple[str, ...], files_from: tuple[str, ...], null: bool, manifests: tuple[str, ...], column: str
) -> str:
    """Return why there is nothing to audit; "" if there may be something.

    Raises
    ------
    UsageError
        If something that the command line names does not exist, or is no list or manifest.
    """
    import glob

    from treering_verify.audit.inputs.manifests import check_list, check_manifest
    from treering_verify.audit.inputs.table_check import check_columns
    from treering_verify.audit.inputs.urls import is_url
    from treering_verify.files import printable

    for path in paths:
        if not (
            is_url(path) or os.path.lexists(path) or (glob.has_magic(path) and any(glob.iglob(path, recursive=True)))
        ):
            raise UsageError(f"there is no file or folder {printable(path)!r}: check the path")
    for name in (*files_from, *manifests):
        if is_url(name):
            raise UsageError(
                f"{printable(name)!r}: lists and manifests must be local files: download this one, and check it first"
            )
        if problem := InputPath(stdin=name in files_from).problem(Path(name)):
            raise UsageError(f"{printable(name)!r}: {problem}")
        if os.path.isdir(name):
            raise UsageError(f"{printable(name)!r} is a folder, not a list or manifest: give it as PATH")
    found = [check_list(name, b"\0" if null else b"\n") for name in files_from]
    found += [check_manifest(name, column) for name in manifests]
    for name in manifests:
        check_columns(name, column)
    if any(found) or not all(map(_is_empty_folder, paths)):
        return ""
    empty = [f"no file is in {printable(path)}" for path in paths]
    empty += [f"{printable(name)} has no entry" for name in (*files_from, *manifests)]
    return ", ".join(empty)


def _is_empty_folder(path: str) -> bool:
    """Return whether a path is a folder with nothing in it but folders, of which at most a thousand are looked into."""
    if not os.path.isdir(path):
        return False
    for looked_into, (_, _, files) in enumerate(os.walk(path, onerror=_raise)):
        if files or looked_into >= _LOOKED_INTO:
            return False
    return True


def _raise(error: OSError) -> None:
    raise UsageError(f"cannot list {error.filename}: {error.strerror}") from error


def _check_output(output: Path) -> None:
    """Raise UsageError if the output is meant to be remote; as a path, `s3://bucket` would be a folder called `s3:`."""
    from treering_verify.files import printable

    if output.parts and output.parts[0].endswith(":") and not output.exists():
        raise UsageError(
            f"{printable(str(output))!r}: the output must be a local folder: name one, and copy it afterwards"
        )


@contextlib.contextmanager
def _logged(path: Path | None) -> Iterator[None]:
    """Append the audit's log to a file."""
    from treering_verify.files import printable

    if path is None:
        yield
        return
    try:
        os.close(
            os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        )  # else the umask alone would set its mode
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
