"""Exports of every row of an audit: CSV and JSONL for programs, SARIF and JUnit XML for continuous integration."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO
from urllib.parse import quote
from xml.sax.saxutils import escape, quoteattr

from treering_verify.files import printable
from treering_verify.report.audit.audit_reader import COLUMNS, OPTIONAL, AuditRows
from treering_verify.report.text import format_pvalue, notes_of_key, to_json
from treering_verify.results import DETECTED, INCONCLUSIVE, NO_EVIDENCE
from treering_verify.version import __version__

SARIF_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"

_FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
_ABOUT_KEY = ("key_retired", "key_origin")  # columns that older audits lack
_CHARS_PER_WRITE = 1 << 20
_RULES = {
    DETECTED: "A key was found in the image's noise",
    NO_EVIDENCE: "No key was found; this does not prove that the image is authentic",
    INCONCLUSIVE: "The image could not be decided",
    "error": "The file could not be judged",
}


def write_csv(audit: AuditRows, file: BinaryIO) -> None:
    r"""Write all rows as CSV (UTF-8, comma, header).

    Cells of text are escaped twice, because a file's name may be an attack: what is not printable as ``\x1b``, and a cell
    that a spreadsheet would take for a formula (= + - @, also in full width) behind an apostrophe. Programs that need the
    exact name read JSONL.
    """
    text = {name for name, kind in {**COLUMNS, **OPTIONAL}.items() if kind == "string"}
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(audit.columns)
    for batch in audit.batches():
        cells = [
            [harmless(value) if name in text else _plain(value) for value in column.to_pylist()]
            for name, column in zip(batch.column_names, batch.columns, strict=True)
        ]
        writer.writerows(zip(*cells, strict=True))
        file.write(buffer.getvalue().encode("utf-8"))
        buffer.seek(0)
        buffer.truncate()
    file.write(buffer.getvalue().encode("utf-8"))


def harmless(text: str | None) -> str:
    """Return a cell of text escaped, so that a terminal or a spreadsheet displays it and executes nothing."""
    if not text:
        return ""
    escaped = printable(text)
    return f"'{escaped}" if escaped.lstrip(" ").startswith(_FORMULA) else escaped


def write_jsonl(audit: AuditRows, file: BinaryIO) -> None:
    """Write all rows as JSON, one a line, ASCII; NaN and infinities as null, bytes in hexadecimal."""
    rows = ({name: _plain(value) for name, value in row.items()} for row in audit.records())
    _write(file, (json.dumps(to_json(row)) + "\n" for row in rows))


def write_sarif(audit: AuditRows, file: BinaryIO, fail_on: Sequence[str] = (DETECTED,)) -> None:
    """Write a SARIF 2.1.0 log (OASIS, 2020): a result per file that `fail_on` names, is inconclusive, or is an error.

    Parameters
    ----------
    audit : AuditRows
    file : binary file
    fail_on : sequence of str
        Verdicts that are failures, level "warning". Other inconclusive files are of kind "open"; errors of level "error".
    """
    run = {
        "tool": {
            "driver": {
                "name": "treering-verify",
                "version": __version__,
                "semanticVersion": __version__,
                "rules": [
                    {"id": _rule(label), "shortDescription": {"text": text}} for label, text in sorted(_RULES.items())
                ],
            }
        },
        "columnKind": "unicodeCodePoints",
        "invocations": [{"executionSuccessful": audit.finished}],
        "properties": to_json({name: audit.summary.get(name) for name in ("settings_id", "alpha", "model")}),
    }
    head = json.dumps({"$schema": SARIF_SCHEMA, "version": "2.1.0", "runs": [run]})
    assert head.endswith("}]}")

    def parts() -> Iterator[str]:
        yield head.removesuffix("}]}") + ', "results": ['
        between = "\n"
        for row in audit.records():
            if result := _result(row, fail_on):
                yield between + json.dumps(result)
                between = ",\n"
        yield "\n]}]}\n"

    _write(file, parts())


def _result(row: dict[str, Any], fail_on: Sequence[str]) -> dict[str, Any] | None:
    label = row["verdict"] if row["status"] == "ok" else row["status"]
    if label != "error" and label not in fail_on and label != INCONCLUSIVE:
        return None
    failed = label == "error" or label in fail_on
    values = ("pvalue", "pvalue_adjusted", "log10_adjusted", "statistic", "q_value", "code")
    numbers = ("key", "fingerprint", *_ABOUT_KEY, *values)
    result = {
        "ruleId": _rule(label),
        "kind": "fail" if failed else "open",
        "level": ("error" if label == "error" else "warning") if failed else "none",
        "message": {"text": _message(row)},
        "locations": [{"physicalLocation": {"artifactLocation": {"uri": _uri(row["path"])}}}],
        "properties": to_json({name: row[name] for name in numbers if row.get(name) not in (None, "")}),
    }
    if row["sha256"]:
        result["fingerprints"] = {"sha256/v1": row["sha256"]}
    return result


def write_junit(audit: AuditRows, file: BinaryIO, fail_on: Sequence[str] = (DETECTED,)) -> None:
    """Write JUnit XML: one suite, a test case per file. `fail_on` names the verdicts that are failures."""
    wanted = (
        "path",
        "status",
        "code",
        "reason",
        "verdict",
        "key",
        "fingerprint",
        *_ABOUT_KEY,
        "log10_adjusted",
        "seconds",
    )
    names = [name for name in wanted if name in audit.columns]
    total = failures = errors = skipped = 0
    seconds = 0.0
    for row in audit.records(("status", "verdict", "seconds")):
        total += 1
        seconds += row["seconds"] or 0.0
        errors += row["status"] == "error"
        skipped += row["status"] == "skipped"
        failures += row["status"] == "ok" and row["verdict"] in fail_on

    def parts() -> Iterator[str]:
        counts = f'tests="{total}" failures="{failures}" errors="{errors}" skipped="{skipped}" time="{seconds:.3f}"'
        yield f'<?xml version="1.0" encoding="UTF-8"?>\n<testsuites {counts}>\n<testsuite name="treering audit" {counts}>\n'
        for row in audit.records(names):
            folder, _, name = row["path"].rpartition("/")
            yield (
                f"<testcase classname={_attribute(folder or '.')} name={_attribute(name)} "
                f'time="{row["seconds"] or 0.0:.3f}"{_outcome(row, fail_on)}\n'
            )
        yield "</testsuite>\n</testsuites>\n"

    _write(file, parts())


def _outcome(row: dict[str, Any], fail_on: Sequence[str]) -> str:
    message = _message(row)
    if row["status"] == "error":
        return f"><error type={_attribute(row['code'] or 'error')} message={_attribute(message)}/></testcase>"
    if row["status"] == "skipped":
        return f"><skipped message={_attribute(message)}/></testcase>"
    if row["verdict"] in fail_on:
        return f"><failure type={_attribute(row['verdict'])} message={_attribute(message)}/></testcase>"
    return f"><system-out>{escape(message)}</system-out></testcase>" if row["reason"] else "/>"


def _message(row: dict[str, Any]) -> str:
    """Return the verdict or status of a row as one line."""
    if row["status"] != "ok":
        return printable(f"{row['code'] or row['status']}: {row['reason'] or 'no reason was given'}")
    p = f", p {format_pvalue(row['log10_adjusted'])}" if row["log10_adjusted"] is not None else ""
    key = ""
    if row["verdict"] == DETECTED and row["key"]:
        name = f"key {row['key']} {row['fingerprint'] or ''}".rstrip()
        key = f" ({', '.join([name, *notes_of_key(row.get('key_retired'), row.get('key_origin'))])})"
    return printable(f"{row['verdict']}{key}{p}" + (f"; {row['reason']}" if row["reason"] else ""))


def _plain(value: Any) -> Any:
    return value.hex() if isinstance(value, bytes) else value


def _rule(label: str) -> str:
    return f"treering/{label.replace(' ', '-')}"


def _uri(path: str) -> str:
    """Return a path as a percent-encoded URI; a path with a scheme, such as s3://, keeps it."""
    if path.startswith("/"):
        return "file://" + quote(path)
    scheme, mark, rest = path.partition("://")
    if mark and scheme.isalnum() and scheme.isascii():
        return f"{scheme}://{quote(rest, safe='/:?&=%@')}"
    return quote(path)


def _attribute(text: str) -> str:
    return quoteattr(printable(text))


def _write(file: BinaryIO, parts: Iterator[str]) -> None:
    """Write text in pieces of about a megabyte."""
    waiting, size = [], 0
    for part in parts:
        waiting.append(part)
        size += len(part)
        if size >= _CHARS_PER_WRITE:
            file.write("".join(waiting).encode("utf-8"))
            waiting, size = [], 0
    file.write("".join(waiting).encode("utf-8"))
