"""Lines and records of files that were judged again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from treering_verify.files import printable
from treering_verify.report.text import format_pvalue, to_json

if TYPE_CHECKING:
    from treering_verify.detection.recheck import Recheck


def recheck_record(found: Recheck) -> dict[str, Any]:
    """Return what came out before and now, as a dict for JSON."""
    names = ["status", "code", "verdict", "key", "fingerprint", "log10_pvalue"]
    names += ["message"] if "message" in found.record else []
    now = found.verdict.record()
    record = {
        "path": found.record["path"],
        "changed": found.changed,
        "before": {name: found.record.get(name) for name in names},
        "now": {name: now[name] for name in names},
        "differences": list(found.differences),
    }
    return dict(to_json(record))


def format_recheck(found: Recheck) -> str:
    """Return what came out before and now as a line, and a second that names what differs, safe for a terminal."""
    now, before = found.verdict.record(), found.record

    def words(record: Any) -> str:
        label = record["verdict"] if record["status"] == "ok" else record["status"]
        log10 = record.get("log10_pvalue")
        pvalue = f" p {format_pvalue(log10)}" if isinstance(log10, (int, float)) else ""
        message = f" message {str(record['message'])!r}" if record.get("message") else ""
        return printable(f"{label}{pvalue}{message}")

    line = f"{'changed' if found.changed else 'same':13} {printable(str(before['path']))}  {words(before)}, now {words(now)}"
    if found.differences:
        line += f"\n{'':13} differs: {printable(', '.join(found.differences))}"
    return line
