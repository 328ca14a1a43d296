"""Lists of attacked copies as text, JSON or JSONL, and the list of attacks."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from treering_verify.attacks import ATTACKS, MODEL_ATTACKS, summary, usage
from treering_verify.attacks.copies import AttackedCopy
from treering_verify.files import printable
from treering_verify.report.text import to_json


def format_copies(copies: Iterable[AttackedCopy], style: str) -> Iterator[str]:
    """Yield the lines of a listing as copies come in; "json" is one array and so waits for the last.

    Parameters
    ----------
    copies : iterable of AttackedCopy
    style : {"text", "json", "jsonl"}
        Text has the name of each copy, or of each source that failed, with the reason.
    """
    if style == "json":
        yield json.dumps([to_json(copy.record()) for copy in copies], indent=2)
    elif style == "jsonl":
        for copy in copies:
            yield json.dumps(to_json(copy.record()))
    else:
        for copy in copies:
            tried = f" under {copy.attack}" if copy.attack else ""
            failed = f"{'error':13} {printable(copy.path)}{tried}\n{'':13} {copy.code}: {copy.reason}"
            yield printable(copy.output) if copy.status == "ok" else failed


def format_attacks() -> Iterator[str]:
    """Yield two lines per attack: its name with its parameters and ranges, and what it does."""
    for name in (*ATTACKS, *MODEL_ATTACKS):
        model = " [needs a model]" if name in MODEL_ATTACKS else ""
        yield f"{name}: {usage(name)}{model}"
        yield f"    {summary(name)}"
