"""The command that turns an audit's rows into a report."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from treering_verify.cli.command import command, option
from treering_verify.cli.options.keys import key_option
from treering_verify.cli.options.types import InputPath, ModelName, Named, OutputFile
from treering_verify.errors import UsageError

if TYPE_CHECKING:
    from treering_verify.inversion.recovery import InversionOptions
    from treering_verify.models import LatentModel

_TOPIC = "HTML page"
_MOST_STEPS = 1000  # of a noise inversion: a summary may come from anybody


@command("treering report audit --output audit.html")
@click.argument("folder", metavar="DIR", type=InputPath())
@option("--output", type=OutputFile(stdout=True), required=True, help="File to write, or - for stdout (not html).")
@option(
    "--format",
    "style",
    type=Named("format", ("html", "csv", "jsonl", "sarif", "junit")),
    help="Output format; default: by the file's suffix (.html, .csv, .jsonl, .sarif, or .xml for junit).",
)
@option(
    "--fail-on",
    type=Named("verdict", ("detected", "no-evidence", "inconclusive")),
    multiple=True,
    help="Verdict that counts as a failure in sarif and junit; default: detected; repeatable.",
)
@option(
    "--images",
    type=click.IntRange(0, 500),
    default=24,
    topic=_TOPIC,
    help="Number of detected images to show. Images that the audit did not store are read again from their paths.",
)
@option("--spectra/--no-spectra", default=True, topic=_TOPIC, help="Show the spectrum of each image's estimated noise.")
@key_option(
    required=False, topic=_TOPIC, help="Key file, folder or index, to show where image and key agree; repeatable."
)
@option(
    "--model",
    type=ModelName(),
    topic=_TOPIC,
    help="Model for the spectra; default: the audit's own if it is an embedded one.",
)
@option(
    "--root",
    type=InputPath(),
    default=".",
    topic=_TOPIC,
    help="Folder where the audit was run: relative paths start there, and only images in it are shown.",
)
def report(
    folder: Path,
    output: Path,
    style: str | None,
    images: int,
    spectra: bool,
    keys: tuple[Path, ...],
    model: str | None,
    root: Path,
    fail_on: tuple[str, ...],
) -> None:
    """Turn an audit into a report.

    DIR is the folder that treering audit --output wrote. The HTML page needs no network and stays small: it has counts and
    figures of all files, and a sample of the rows. CSV, JSONL and JUnit XML hold every row; SARIF holds the detected and
    inconclusive files and the errors. In CSV, an apostrophe is put before text that a spreadsheet would run as a formula.
    """
    from treering_verify.files import printable
    from treering_verify.report.audit import export, style_of, write_report
    from treering_verify.report.audit.audit_reader import open_audit
    from treering_verify.watermark.keys.index import read_keys

    verdicts = tuple(verdict.replace("-", " ") for verdict in fail_on) or ("detected",)
    if str(output) == "-":
        if style in (None, "html"):
            raise UsageError("with --output -, give --format csv, jsonl, sarif or junit")
        export(open_audit(folder), sys.stdout.buffer, str(style), verdicts)
        return
    style = style or style_of(output)
    extra: dict[str, Any] = {}
    if style == "html":
        summary = open_audit(folder).summary
        extra = {"images": images, "root": root, "keys": read_keys(keys)}
        extra["spectra"] = spectra
        if spectra and images:
            extra["load"] = partial(_model, model, str(summary.get("model") or ""))
            extra["inversion"] = _inversion(summary.get("settings"))
    try:
        written = write_report(folder, output, style, fail_on=verdicts, **extra)
    except OSError as error:
        raise UsageError(f"cannot write to {printable(str(output))}: {error.strerror}") from error
    click.echo(f"{printable(str(written))}: {written.stat().st_size / 1000:.0f} kB", err=True)


def _model(chosen: str | None, named: str) -> LatentModel | str:
    """Load the user's model, or the embedded one that the audit names; no other, because DIR may come from anybody."""
    from treering_verify.files import printable
    from treering_verify.models import EMBEDDED, load_model

    if chosen or named in EMBEDDED:
        return load_model(chosen or named)
    which = f"the audit's model {printable(named)[:100]!r} is not embedded" if named else "the audit names no model"
    note = f"No spectra: {which}; give --model."
    click.echo(note, err=True)
    return note


def _inversion(settings: Any) -> InversionOptions:
    """Return how the audit inverted images, as far as its settings say; UsageError for settings that no audit has."""
    from treering_verify.inversion.recovery import InversionOptions

    kinds: dict[str, type] = {"method": str, "noise_method": str, "precision": str, "steps": int}
    given = settings if isinstance(settings, dict) else {}
    chosen = {name: given[name] for name in kinds if given.get(name) is not None}
    for name, value in chosen.items():
        if type(value) is not kinds[name] or (isinstance(value, int) and not 0 <= value <= _MOST_STEPS):
            raise UsageError(
                f"the audit's summary has settings that cannot be used, {name} first: give --no-spectra, or audit again"
            )
    return InversionOptions(**chosen)
