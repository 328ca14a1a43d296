"""Whether an audit was finished under the same request, so that repeating it needs neither the model nor the images.

The settings of an audit hold a digest of the model's weights, which only the loaded model has. A request holds what can be
known without it: the options, the keys' fingerprints, and size and time of change of the model's files.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from treering_verify.audit.inputs.plan import Plan
from treering_verify.audit.output.store import STATE, SUMMARY, read_ledger, shard_digest
from treering_verify.files import write_atomic

_REQUEST = "finished.json"
_MOST_FILES = 10_000  # of a model


def request_of(facts: dict[str, Any], files: Sequence[str | Path | None]) -> str | None:
    """Return the digest of a request; None if its files cannot be told, as those of a model on the hub.

    Parameters
    ----------
    facts : dict
        JSON-ready: all that verdicts and rows depend on, but for the content of files.
    files : sequence of paths
        Files and folders that they depend on; None is left out.
    """
    stamps = []
    for path in (each for each in files if each is not None):
        found = _stamps(Path(path))
        if not found:
            return None
        stamps.append(found)
    return hashlib.sha256(json.dumps([facts, stamps], sort_keys=True).encode()).hexdigest()


def note_finished(folder: Path, request: str | None) -> None:
    """Write down, in the folder of an audit, the request under which it was finished."""
    if request is not None:
        write_atomic(folder / STATE / _REQUEST, json.dumps({"request": request}).encode())


def is_finished(folder: Path, request: str | None) -> bool:
    """Return whether an audit was finished under this request and its plan and shards are whole; they are read for that."""
    state = folder / STATE
    try:
        noted = json.loads((state / _REQUEST).read_bytes())["request"]
        if request is None or noted != request or not json.loads((folder / SUMMARY).read_bytes())["finished"]:
            return False
        chunks = Plan.chunks_of(state)
        ledger = read_ledger(state)
        return all(
            ledger[number]["chunk"] == chunk.digest and ledger[number]["sha256"] == shard_digest(folder, number)
            for number, chunk in enumerate(chunks)
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _stamps(path: Path) -> list[tuple[str, int, int]]:
    """Return name, size and time of change of a file, or of all files of a folder; none if there are too many."""
    inside = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    if len(inside) > _MOST_FILES:
        return []
    try:
        return [(os.fspath(p), (status := p.stat()).st_size, status.st_mtime_ns) for p in inside]
    except OSError:
        return []
