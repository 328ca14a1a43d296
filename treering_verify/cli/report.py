"""The command that turns an audit's rows into a report."""

from __future__ import annotations

import sys
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from treering_verify.cli.output import command_of
from treering_verify.errors import ModelError, UsageError

if TYPE_CHECKING:
    from treering_verify.inversion.recovery import InversionOptions
    from treering_verify.models import LatentModel
    from treering_verify.watermark.keys.key import Key


@command_of(None)("treering report audit-2026 --output audit-2026.html")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--output",
    type=click.Path(path_type=Path, allow_dash=True),
    required=True,
    help="File to write, or - for stdout (all formats but html).",
)
@click.option(
    "--format",
    "style",
    type=click.Choice(["html", "csv", "jsonl", "sarif", "junit"]),
    help="Default: by the file's suffix (.html, .csv, .jsonl, .sarif; .xml is junit).",
)
@click.option(
    "--images",
    type=click.IntRange(0, 500),
    default=24,
    show_default=True,
    help="html: detected files to show, read again from where the audit found them.",
)
@click.option(
    "--spectra/--no-spectra",
    default=True,
    show_default=True,
    help="html: recover the spectrum of each image (half a second each).",
)
@click.option(
    "--key",
    "keys",
    multiple=True,
    type=click.Path(path_type=Path),
    help="html: key files or folders of them, to show how image and key agree, ring by ring. Repeatable.",
)
@click.option("--model", help="html: model for the spectra; default: the audit's own.")
@click.option(
    "--root",
    type=click.Path(path_type=Path),
    default=".",
    show_default=True,
    help="html: folder that relative paths of the audit start from.",
)
@click.option(
    "--fail-on",
    type=click.Choice(["detected", "no-evidence", "inconclusive"]),
    multiple=True,
    help="sarif, junit: verdicts that count as failures; default: detected. Repeatable.",
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
    """Turn the rows of an audit into one HTML page, CSV, JSONL, SARIF or JUnit XML.

    DIR is what treering audit --output named. The page needs no network and stays small whatever the audit's size: counts
    and figures of all files, and a sample of the rows that says what it is. The other formats hold every row (SARIF: those
    that were detected, are inconclusive, or are errors). In CSV, text that a spreadsheet would run as a formula stands
    behind an apostrophe.
    """
    from treering_verify.files import printable
    from treering_verify.report.audit import export, style_of, write_report
    from treering_verify.report.audit.audit_reader import open_audit

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
        extra = {"images": images, "root": root, "keys": _keys(keys)}
        if spectra and images:
            extra |= _model(model or summary.get("model"), required=bool(model))
            extra["inversion"] = _inversion(summary.get("settings"))
    try:
        written = write_report(folder, output, style, fail_on=verdicts, **extra)
    except OSError as error:
        raise UsageError(f"cannot write to {printable(str(output))}: {error.strerror}") from error
    click.echo(f"{printable(str(written))}: {written.stat().st_size / 1000:.0f} kB", err=True)


def _model(name: Any, required: bool) -> dict[str, LatentModel | str]:
    """Load the audit's model; when it is not at hand and nobody asked for it, the page says so."""
    from treering_verify.models import load_model

    if not name:
        return {"note": "No spectra: the audit's summary names no model; give --model."}
    try:
        return {"model": load_model(str(name))}
    except ModelError as error:
        if required:
            raise
        click.echo(f"No spectra: {error}", err=True)
        return {"note": f"No spectra: {error}"}


def _inversion(settings: Any) -> InversionOptions:
    """How the audit took images back to their noise, as far as its settings say."""
    from treering_verify.inversion.recovery import InversionOptions

    known = {field.name for field in fields(InversionOptions)} - {"settings", "profile"}
    given = settings if isinstance(settings, dict) else {}
    return InversionOptions(**{name: value for name, value in given.items() if name in known and value is not None})


def _keys(paths: tuple[Path, ...]) -> list[Key]:
    from treering_verify.watermark.keys.index import key_files
    from treering_verify.watermark.keys.key import Key

    return [Key.load(file) for file in key_files(paths)] if paths else []
