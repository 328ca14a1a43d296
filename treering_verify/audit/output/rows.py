r"""The rows of an audit: schema version 1, as `rows-000000.parquet` and its successors hold it.

A path is text in the row. Where a file's name is not UTF-8, its undecodable bytes are written as ``\xff``, and the column
`path_bytes` holds the name as the file system has it, so that nothing is lost and no two names become one.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from treering_verify.results import INCONCLUSIVE

if TYPE_CHECKING:
    import pyarrow

SCHEMA_VERSION = 1
_SMALLEST_LOG10 = -307.0  # smaller p-values have no place in a float


@dataclass(frozen=True)
class Row:
    """The answer for one input.

    Attributes
    ----------
    path : str
        As it was given or found; undecodable bytes as surrogates, as `os.fsdecode` gives them.
    status : {"ok", "skipped", "error"}
        Judged; left out by rule (no image, symbolic link, device, ...); could not be judged.
    alpha : float
        False-positive rate per image, over all keys together.
    settings_id : str
        Which settings the row was made with (`summary.json` says what they are).
    code, reason : str
        Why it is skipped, an error or inconclusive; "" otherwise.
    verdict : {"detected", "no evidence", "inconclusive"}
        Inconclusive where nothing was judged.
    sha256, bytes, width, height, mode
        Of the file as it is stored, before any scaling; None as far as it was not read.
    key, fingerprint : str or None
        The key that was detected, or else the one with the strongest evidence.
    log10_pvalue : float or None
        Of this key alone.
    log10_adjusted : float or None
        The same, Holm-corrected for all keys that were tried: what is compared with alpha.
    statistic : float or None
        Cosine between the image's features and the key's numbers.
    degrees_of_freedom : int or None
    residual : float or None
        As in `Verdict`, and None where the method computes none; `converged` too.
    seconds : float
        Reading, and this image's share of the time of its batch; reading alone for a repeated image.
    decided_by : {"first", "full"} or None
        Which pass decided, in an audit of two; the numbers are that pass's.
    log10_first : float or None
        In an audit of two passes, p of the first, of its strongest key alone, whichever pass decided: uniform on unmarked
        images, which the p of the pass that decided is not.
    q_value : float or None
        Benjamini-Hochberg over the judged files of the audit, where it was asked for.
    """

    path: str
    status: str
    alpha: float
    settings_id: str
    code: str = ""
    reason: str = ""
    verdict: str = INCONCLUSIVE
    sha256: str | None = None
    bytes: int | None = None
    width: int | None = None
    height: int | None = None
    mode: str | None = None
    key: str | None = None
    fingerprint: str | None = None
    log10_pvalue: float | None = None
    log10_adjusted: float | None = None
    statistic: float | None = None
    degrees_of_freedom: int | None = None
    residual: float | None = None
    converged: bool = False
    seconds: float = 0.0
    decided_by: str | None = None
    log10_first: float | None = None
    q_value: float | None = None

    @property
    def pvalue(self) -> float | None:
        """The p-value of the key alone, rounded up to 1e-307 where it is smaller still."""
        return _power(self.log10_pvalue)

    @property
    def pvalue_adjusted(self) -> float | None:
        """The p-value corrected for all keys, rounded up likewise."""
        return _power(self.log10_adjusted)

    def record(self) -> dict[str, Any]:
        """Fields of the schema by name; `path` readable by people, `path_bytes` only where it says less than the name."""
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
        """Row that a record of the schema was made from."""
        known = {f.name: record[f.name] for f in dataclasses.fields(cls) if f.name in record}
        raw = record.get("path_bytes")
        return cls(**{**known, "path": os.fsdecode(raw) if raw is not None else record["path"]})


def schema(with_q_values: bool = False) -> pyarrow.Schema:
    """Columns of a shard, in order."""
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
        column("verdict", pa.string()),
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
    ]
    return pa.schema(columns + ([column("q_value", pa.float64(), True)] if with_q_values else []))


def to_table(rows: Sequence[Row], with_q_values: bool = False) -> pyarrow.Table:
    """Table of the schema."""
    import pyarrow as pa

    return pa.Table.from_pylist([row.record() for row in rows], schema=schema(with_q_values))


def from_table(table: pyarrow.Table) -> list[Row]:
    """Rows of a table of the schema."""
    return [Row.of(record) for record in table.to_pylist()]


def count(rows: Iterable[Row]) -> dict[str, int]:
    """Count rows by what they say: "status:ok", "verdict:detected" (if judged), "code:corrupt", "decided_by:first"."""
    counts: dict[str, int] = {}
    for row in rows:
        labels = [f"status:{row.status}"]
        labels += [f"verdict:{row.verdict}"] if row.status == "ok" else []
        labels += [f"code:{row.code}"] if row.code else []
        labels += [f"decided_by:{row.decided_by}"] if row.decided_by else []
        for label in labels:
            counts[label] = counts.get(label, 0) + 1
    return counts


def _power(log10: float | None) -> float | None:
    return None if log10 is None else 10.0 ** max(_SMALLEST_LOG10, log10)
