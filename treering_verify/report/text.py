"""Text, JSON and JSONL of verdicts, audits and tables."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from treering_verify.files import printable
from treering_verify.report.chance import chance_sentence, finding_lines
from treering_verify.report.findings import Cell, Table
from treering_verify.results import DERIVED, DETECTED, Verdict

if TYPE_CHECKING:
    from treering_detectors import DecoyCheck

FORMATS = ("text", "json", "jsonl")


def format_verdicts(verdicts: Iterable[Verdict], style: str, matches: bool = False) -> Iterator[str]:
    """Yield the lines of a listing as verdicts come in; "json" is one array and so waits for the last.

    Parameters
    ----------
    verdicts : iterable of Verdict
    style : {"text", "json", "jsonl"}
    matches : bool
        Whether to list each verdict's evidence too, for identification: a field `matches`, or lines of text.
    """

    def record(verdict: Verdict) -> Any:
        return to_json({**verdict.record(), "matches": verdict.matches()} if matches else verdict.record())

    if style == "json":
        yield json.dumps([record(v) for v in verdicts], indent=2)
    elif style == "jsonl":
        for verdict in verdicts:
            yield json.dumps(record(verdict))
    else:
        for verdict in verdicts:
            yield format_text(verdict)
            if matches:
                yield from _match_lines(verdict)


def format_text(verdict: Verdict) -> str:
    """Return a verdict as one line, and a second with the reason if there is one, safe for a terminal."""
    name = printable(verdict.path) or "(image)"
    if verdict.best is None:
        return f"{'error':13} {name}\n{'':13} {verdict.code}: {verdict.reason}"
    best = verdict.best
    key = words_of_key(best.key, best.fingerprint, best.retired, best.origin) if verdict.verdict == DETECTED else ""
    if key and verdict.best.hypothesis:
        key += f", {verdict.best.hypothesis}"
    if verdict.visible < 0.995:
        key += f", {1 - verdict.visible:.0%} of it blank"
    if verdict.message:
        key += f" message {printable(verdict.message)!r}"
    answer = f"{verdict.verdict:13} {name}  p {format_pvalue(best.log10_adjusted)}{key}"
    line = f"{answer}  ({verdict.seconds:.1f} s an image)"
    if verdict.reason:
        line += f"\n{'':13} {verdict.code}: {verdict.reason}"
    if verdict.calibration_images:
        of = f"of {verdict.calibration_images} images a stratum, worst {verdict.best.stratum}"
        line += f"\n{'':13} {verdict.detector} {verdict.best.statistic:.4g}, p from the scores {of}"
    return f"{line}\n{'':13} {_decoy_line(verdict.best.decoys)}" if verdict.best.decoys else line


def words_of_key(name: str, fingerprint: str, retired: str | None, origin: str | None) -> str:
    """Return the words for a key that was found: name, fingerprint, origin unless derived, and since when it is retired."""
    notes = notes_of_key(retired, origin)
    return f" key {name} {fingerprint}" + (f" ({', '.join(notes)})" if notes else "")


def notes_of_key(retired: str | None, origin: str | None) -> list[str]:
    """Return what a reader should know of a key that was found: its origin unless derived, and since when it is retired."""
    notes = [origin] if origin and origin != DERIVED else []
    return notes + ([f"retired since {retired}"] if retired else [])


def _decoy_line(check: DecoyCheck) -> str:
    low, high = check.interval
    alone = format_pvalue(check.log10_exact)
    answer = {
        "agrees": f"agrees with the exact {alone}",
        "disagrees": f"DISAGREES with the exact {alone}",
    }.get(check.agreement, f"agrees with the exact {alone} as far as it sees, which is {1 / (1 + check.decoys):.1e}")
    return (
        f"decoys: {check.reached} of {check.decoys} do as well, p {check.pvalue:.2g} [{low:.2g}, {high:.2g}]; {answer}"
    )


def _match_lines(verdict: Verdict) -> Iterator[str]:
    for place, match in enumerate(verdict.evidence, 1):
        p = format_pvalue(match.log10_adjusted)
        key = words_of_key(match.key, match.fingerprint, match.retired, match.origin)
        tried = f"{verdict.keys_tried} key{'s' * (verdict.keys_tried > 1)}"
        yield f"{'':13} {place}.{key}  p {p} over {tried}, cosine {match.statistic:.3f}"


def format_row(record: dict[str, Any]) -> str:
    """Return the record of an audit's row as one line, safe for a terminal."""
    name = printable(record["path"])
    if record["status"] != "ok":
        return f"{record['status']:13} {name}  {record['code']}"
    found = record["verdict"] == DETECTED
    facts = (record["key"], record["fingerprint"], record.get("key_retired"), record.get("key_origin"))
    key = words_of_key(*facts) if found else ""
    return f"{record['verdict']:13} {name}  p {format_pvalue(record['log10_adjusted'])}{key}"


def format_summary(summary: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of an audit's summary, from the content of its `summary.json`."""

    def counted(counts: dict[str, int]) -> str:
        return ", ".join(f"{n} {name}" for name, n in counts.items()) or "none"

    judged = summary["status"].get("ok", 0)
    yield f"{summary['files']} files: {counted(summary['status'])}"
    yield f"of {judged} judged: {counted(summary['verdict'])}"
    if summary["code"]:
        yield f"reasons: {counted(summary['code'])}"
    if unread := count_unread(summary["code"]):
        yield f"not read: {unread} files that hold images, or may (their rows say what they are and what to do)"
    search = summary["settings"].get("search", "off")
    further = "; for screenshots and collages: treering verify FILE" if search in ("off", "quick") else ""
    yield f"search: {search}{further}"
    if "decided_by" in summary:
        yield f"decided by the screening pass: {summary['decided_by'].get('first', 0)} of {judged}"
    yield f"false positives by chance: {chance_sentence(summary)}"
    yield from finding_lines(summary)


def count_unread(codes: Mapping[str, int]) -> int:
    """Count the files of an audit that hold images, or may, and were not read: by the codes of its `summary.json`."""
    return sum(codes.get(code, 0) for code in ("unread_format", "container", "video_file"))


def format_pvalue(log10_pvalue: float) -> str:
    """Return p as 0.37 or 2.1e-58, also if it is too small for a float."""
    if log10_pvalue > -3:
        return f"{10**log10_pvalue:.2g}"
    exponent = math.floor(log10_pvalue)
    digits = f"{10 ** (log10_pvalue - exponent):.1f}"
    if digits == "10.0":
        digits, exponent = "1.0", exponent + 1
    return f"{digits}e{exponent:+03d}"


def to_json(value: Any) -> Any:
    """Return a value with NaN and infinities, which JSON does not have, replaced by None."""
    if isinstance(value, dict):
        return {k: to_json(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def table(header: list[str], rows: list[list[str]]) -> str:
    """Return a plain-text table with aligned columns."""
    widths = [max(len(line[i]) for line in [header, *rows]) for i in range(len(header))]
    lines = [
        "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in [header, *rows]
    ]
    return "\n".join([lines[0], "  ".join("-" * w for w in widths), *lines[1:]])


def format_table(content: Table) -> str:
    """Return a table of values as text: its title, aligned columns and note."""
    text = table(list(content.header), [[format_cell(cell) for cell in row] for row in content.rows])
    return "\n".join(part for part in (content.title, text, content.note) if part)


def leading_zeros(text: str) -> str:
    """Return a text in which numbers below one begin with a zero: 0.05, also where it was written as .05."""
    return re.sub(r"(?<![\w.)\]])\.(?=\d)", "0.", text)


def format_cell(value: Cell) -> str:
    """Return a value as a table's cell: nothing for None, four digits of a float."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}" if math.isfinite(value) else "n/a"
    return str(value)
