r"""The rows of an audit, in schema version 2, the format of `rows-000000.parquet` and its successors.

A path is text in the row. Where a file's name is not UTF-8, its undecodable bytes are written as ``\xff``, and the column
`path_bytes` holds the name's own bytes, so that different names stay different.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow

SCHEMA_VERSION = 2
_SMALLEST_LOG10 = -307.0  # a float holds no smaller p-value in full precision


@dataclass(frozen=True)
class Row:
    """What an audit found in one input: a row of its Parquet files.

    Attributes
    ----------
    path : str
        The path as given or found; undecodable bytes as surrogates, as in `os.fsdecode`.
    status : {"ok", "skipped", "error"}
        Judged; left out by rule (no image, symbolic link, device, ...); could not be judged.
    alpha : float
        False-positive rate per image, over all keys together.
    settings_id : str
        Digest of the settings, which `summary.json` lists.
    code, reason : str
        Why the input is skipped, an error or inconclusive; "" otherwise.
    verdict : {"detected", "no evidence", "inconclusive"} or None
        None if the input was not judged.
    sha256, bytes, width, height, mode
        Facts of the file as it is stored, before any scaling; None if they were not read.
    key, fingerprint : str or None
        The key that was detected, or else the one with the strongest evidence.
    key_retired : str or None
        Day from which on that key is retired, as 2026-11-29; None if it is not.
    key_origin : str or None
        How the numbers of a key at or under alpha came about: "derived" or "free numbers"; None above alpha.
    log10_pvalue : float or None
        Log10 p of this key alone.
    log10_adjusted : float or None
        The same, Holm-corrected for all keys that were tried; it is compared with alpha.
    statistic : float or None
        Cosine between the image's features and the key's numbers.
    degrees_of_freedom : int or None
    residual : float or None
        See `Verdict`; None if the method computes none.
    converged : bool
        Whether the decoder inversion converged.
    seconds : float
        Time of reading and this image's share of its batch; of reading alone for a repeated image.
    decided_by : {"first", "full"} or None
        In an audit of two passes, the one that decided, whose numbers the row has; "first" is the screening pass.
    log10_first : float or None
        In an audit of two passes, log10 p of the screening pass's strongest key alone. That p is uniform on unmarked images;
        the p of the pass that decided is not.
    hypothesis : str or None
        What was done to a detected image, in words, where the search found it.
    placement : str or None
        JSON: where the page shows the image that the search found (`KeyEvidence.placement`).
    search : str or None
        Level of the search that the image was put to; None where none was.
    q_value : float or None
        Benjamini-Hochberg over the judged files of the audit, if the audit was asked for it.
    """

    path: str
    status: str
    alpha: float
    settings_id: str
    code: str = ""
    reason: str = ""
    verdict: str | None = None
    sha256: str | None = None
    bytes: int | None = None
    width: int | None = None
    height: int | None = None
    mode: str | None = None
    key: str | None = None
    fingerprint: str | None = None
    key_retired: str | None = None
    key_origin: str | None = None
    log10_pvalue: float | None = None
    log10_adjusted: float | None = None
    statistic: float | None = None
    degrees_of_freedom: int | None = None
    residual: float | None = None
    converged: bool = False
    seconds: float = 0.0
    decided_by: str | None = None
    log10_first: float | None = None
    hypothesis: str | None = None
    placement: str | None = None
    search: str | None = None
    q_value: float | None = None

    @property
    def pvalue(self) -> float | None:
        """The p-value of the key alone; smaller ones are rounded up to 1e-307."""
        return _power(self.log10_pvalue)

    @property
    def pvalue_adjusted(self) -> float | None:
        """The p-value corrected for all keys; smaller ones are rounded up to 1e-307."""
        return _power(self.log10_adjusted)

    def record(self) -> dict[str, Any]:
        """Return the schema's fields by name; `path` is readable text, `path_bytes` is set if that is not the exact name."""
        raw = os.fsencode(self.path)
        text = raw.decode("utf-8", "backslashreplace")
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {
            **fields,
            "schema_version": SCHEMA_VERSION,
            "path": text,
            "path_bytes": None if text.encode() == raw else raw,
            "pvalue": self.pvalue,
            "pvalue_adjusted": self.pvalue_adjusted,
        }

    @classmethod
    def of(cls, record: dict[str, Any]) -> Row:
        """Return the row of a record of the schema."""
        known = {f.name: record[f.name] for f in dataclasses.fields(cls) if f.name in record}
        raw = record.get("path_bytes")
        return cls(**{**known, "path": os.fsdecode(raw) if raw is not None else record["path"]})


def schema(with_q_values: bool = False) -> pyarrow.Schema:
    """Return the columns of a shard, in order."""
    import pyarrow as pa

    def column(name: str, kind: Any, nullable: bool = False) -> Any:
        return pa.field(name, kind, nullable=nullable)

    columns = [
        column("schema_version", pa.int32()),
        column("path", pa.string()),
        column("path_bytes", pa.binary(), True),
        column("sha256", pa.string(), True),
        column("bytes", pa.int64(), True),
        column("width", pa.int32(), True),
        column("height", pa.int32(), True),
        column("mode", pa.string(), True),
        column("status", pa.string()),
        column("code", pa.string()),
        column("reason", pa.string()),
        column("verdict", pa.string(), True),
        column("key", pa.string(), True),
        column("fingerprint", pa.string(), True),
        column("log10_pvalue", pa.float64(), True),
        column("log10_adjusted", pa.float64(), True),
        column("pvalue", pa.float64(), True),
        column("pvalue_adjusted", pa.float64(), True),
        column("statistic", pa.float64(), True),
        column("degrees_of_freedom", pa.int32(), True),
        column("alpha", pa.float64()),
        column("residual", pa.float64(), True),
        column("converged", pa.bool_()),
        column("settings_id", pa.string()),
        column("seconds", pa.float64()),
        column("decided_by", pa.string(), True),
        column("log10_first", pa.float64(), True),
        column("hypothesis", pa.string(), True),
        column("search", pa.string(), True),
        column("key_retired", pa.string(), True),
        column("key_origin", pa.string(), True),
        column("placement", pa.string(), True),
    ]
    return pa.schema(columns + ([column("q_value", pa.float64(), True)] if with_q_values else []))


def to_table(rows: Sequence[Row], with_q_values: bool = False) -> pyarrow.Table:
    """Return rows as a table of the schema."""
    import pyarrow as pa

    return pa.Table.from_pylist([row.record() for row in rows], schema=schema(with_q_values))


def from_table(table: pyarrow.Table) -> list[Row]:
    """Return the rows of a table of the schema."""
    return [Row.of(record) for record in table.to_pylist()]


def count(rows: Iterable[Row]) -> dict[str, int]:
    """Return the counts of rows by label: "status:ok", "verdict:detected", "code:...", "decided_by:first"."""
    counts: dict[str, int] = {}
    for row in rows:
        labels = [f"status:{row.status}"]
        labels += [f"verdict:{row.verdict}"] if row.verdict else []
        labels += [f"code:{row.code}"] if row.code else []
        labels += [f"decided_by:{row.decided_by}"] if row.decided_by else []
        for label in labels:
            counts[label] = counts.get(label, 0) + 1
    return counts


def _power(log10: float | None) -> float | None:
    return None if log10 is None else 10.0 ** max(_SMALLEST_LOG10, log10)
