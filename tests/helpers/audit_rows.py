"""Audit results on disk, as `treering audit` writes them (schema version 2), from rows that a test gives."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from treering_verify.report.audit.audit_reader import COLUMNS

KEYS = ({"name": "first", "fingerprint": "00aa11bb22cc33dd"}, {"name": "second", "fingerprint": "9e10aa11bb22cc33"})
SCHEMA = pa.schema([(name, pa.type_for_alias(kind)) for name, kind in COLUMNS.items()])


def row(path: str, verdict: str = "no evidence", log10_pvalue: float = -0.3, **fields: Any) -> dict[str, Any]:
    """Return the row of a judged file; one key was tried, unless `fields` say otherwise."""
    found = verdict == "detected"
    return {
        "schema_version": 2,
        "path": path,
        "sha256": None,
        "bytes": 1000,
        "width": 128,
        "height": 128,
        "mode": "RGB",
        "status": "ok",
        "code": "",
        "reason": "",
        "verdict": verdict,
        "key": KEYS[0]["name"] if found else None,
        "fingerprint": KEYS[0]["fingerprint"] if found else None,
        "log10_pvalue": log10_pvalue,
        "log10_adjusted": log10_pvalue,
        "pvalue": 10.0 ** max(-307, log10_pvalue),
        "pvalue_adjusted": 10.0 ** max(-307, log10_pvalue),
        "statistic": 0.7 if found else 0.01,
        "degrees_of_freedom": 1024,
        "alpha": 1e-6,
        "residual": 0.1,
        "converged": True,
        "settings_id": "abc",
        "seconds": 0.5,
    } | fields


def unjudged(path: str, status: str = "error", code: str = "corrupt", reason: str = "damaged") -> dict[str, Any]:
    """Return the row of a file that could not be judged."""
    numbers = [name for name, kind in COLUMNS.items() if kind == "float64" and name not in ("alpha", "seconds")]
    nothing = dict.fromkeys(["bytes", "width", "height", "mode", "degrees_of_freedom", *numbers])
    return (
        row(path) | nothing | {"verdict": None} | {"status": status, "code": code, "reason": reason, "converged": False}
    )


def write_audit(
    folder: Path, shards: Iterable[Sequence[dict[str, Any]]], keys: Sequence[dict[str, str]] = KEYS[:1], **summary: Any
) -> Path:
    """Write rows, shard by shard, and a summary, and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, rows in enumerate(shards):
        kinds = {
            "path_bytes": pa.binary(),
            "log10_first": pa.float64(),
            "q_value": pa.float64(),
            "key_origin": pa.string(),
            "placement": pa.string(),
            "hypothesis": pa.string(),
        }
        extra = [(name, kind) for name, kind in kinds.items() if rows and name in rows[0]]
        table = pa.Table.from_pylist(list(rows), schema=pa.schema([*SCHEMA, *extra]))
        parquet.write_table(table, folder / f"rows-{number:06d}.parquet")
    content = {"schema_version": 2, "finished": True, "alpha": 1e-6, "model": "landscape", "keys": list(keys)}
    (folder / "summary.json").write_text(json.dumps(content | summary))
    return folder


def write_large_audit(folder: Path, count: int, detected: int, per_shard: int = 100_000) -> Path:
    """Write an audit of `count` files in a thousand folders, column by column, as a row a time would take minutes."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    for number, start in enumerate(range(0, count, per_shard)):
        index = np.arange(start, min(count, start + per_shard))
        marked = index % (count // detected) == 7
        log10 = np.where(marked, -generator.uniform(6, 300, len(index)), np.log10(generator.uniform(size=len(index))))
        broken = (index % 100 == 3) & ~marked
        columns: dict[str, Any] = {name: [value] * len(index) for name, value in row("").items()}
        columns |= {
            "path": [f"/data/set-{i % 1000:04d}/image-{i:07d}.png" for i in index],
            "sha256": [f"{i:064x}" for i in index],
            "status": np.where(broken, "error", "ok"),
            "code": np.where(broken, np.where(index % 3 == 0, "corrupt", "not_an_image"), ""),
            "reason": np.where(broken, "the image is damaged or cut short; copy or download it again", ""),
            "verdict": pa.array(np.where(marked, "detected", "no evidence"), mask=broken),
            "key": [KEYS[0]["name"] if m else None for m in marked],
            "fingerprint": [KEYS[0]["fingerprint"] if m else None for m in marked],
        }
        columns |= {name: pa.array(log10, mask=broken) for name in ("log10_pvalue", "log10_adjusted")}
        columns |= {name: pa.array(10.0**log10, mask=broken) for name in ("pvalue", "pvalue_adjusted")}
        parquet.write_table(pa.table(columns).cast(SCHEMA), folder / f"rows-{number:06d}.parquet")
    return write_audit(folder, (), settings_id="abc")
