"""Listings of keys: what is public of each, never a number."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from treering_verify.files import printable
from treering_verify.report.text import table

if TYPE_CHECKING:
    from treering_verify.watermark.keys.key import Key


def key_records(keys: Sequence[tuple[Path, Key]]) -> list[dict[str, Any]]:
    """Return keys as dicts for JSON, each with the path of its file."""
    return [
        {
            "path": printable(str(path)),
            "name": key.name,
            "fingerprint": key.fingerprint,
            "pattern": key.pattern,
            "latent_shape": list(key.latent_shape),
            "origin": key.origin,
            "state": key.state,
            "not_before": key.not_before and str(key.not_before),
            "retired": key.retired and str(key.retired),
            "note": key.note,
        }
        for path, key in keys
    ]


def format_keys(keys: Sequence[tuple[Path, Key]]) -> str:
    """Return keys as a table of names, fingerprints, patterns, shapes of the noise, origins, states and notes."""
    rows = [
        [
            record["name"],
            record["fingerprint"],
            record["pattern"],
            "x".join(map(str, record["latent_shape"])),
            record["origin"],
            record["state"],
            printable(record["note"]),
        ]
        for record in key_records(keys)
    ]
    return table(["name", "fingerprint", "pattern", "noise", "origin", "state", "note"], rows)
