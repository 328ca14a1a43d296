"""Reader of an audit's folder: its summary.json, and its rows batch by batch, so that memory stays bounded."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from treering_verify.errors import UsageError
from treering_verify.files import printable

SUMMARY = "summary.json"
SHARDS = "rows-*.parquet"
SCHEMA_VERSION = 1
BATCH_ROWS = 65_536

COLUMNS = {
    "schema_version": "int32",
    "path": "string",
    "sha256": "string",
    "bytes": "int64",
    "width": "int32",
    "height": "int32",
    "mode": "string",
    "status": "string",
    "code": "string",
    "reason": "string",
    "verdict": "string",
    "key": "string",
    "fingerprint": "string",
    "log10_pvalue": "float64",
    "log10_adjusted": "float64",
    "pvalue": "float64",
    "pvalue_adjusted": "float64",
    "statistic": "float64",
    "degrees_of_freedom": "int32",
    "alpha": "float64",
    "residual": "float64",
    "converged": "bool",
    "settings_id": "string",
    "seconds": "float64",
}
"""Name and Arrow type of every column of version 1; `OPTIONAL` ones may follow."""

OPTIONAL = {
    "path_bytes": "binary",
    "decided_by": "string",
    "log10_first": "float64",
    "key_retired": "string",
    "q_value": "float64",
}
"""`path_bytes`: the exact name if it is not UTF-8, and `path` has it escaped; the others: see `audit.output.rows.Row`."""


@dataclass(frozen=True)
class AuditRows:
    """The rows and the summary in the folder of an audit.

    Attributes
    ----------
    folder : Path
    shards : tuple of Path
        Parquet files, in the order of their names.
    columns : tuple of str
        Columns of every shard: all of `COLUMNS`, and those of `OPTIONAL` that all shards have.
    count : int
        Count of rows in all shards together.
    summary : dict
        Content of summary.json; empty until the audit has written one.
    """

    folder: Path
    shards: tuple[Path, ...]
    columns: tuple[str, ...]
    count: int
    summary: dict[str, Any]

    @property
    def finished(self) -> bool:
        """Whether the audit has a row for every input, as its summary says."""
        return bool(self.summary.get("finished"))

    @property
    def keys_tried(self) -> int:
        """Count of keys that were tried on every image, as the summary says; 1 if it does not."""
        listed = self.summary.get("keys")
        return max(1, int(self.summary.get("keys_tried") or (len(listed) if isinstance(listed, list) else 1)))

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[Any]:
        """Yield the rows as `pyarrow.Table` of at most `BATCH_ROWS`, with the types of `COLUMNS`.

        Raises
        ------
        UsageError
            If a shard cannot be read.
        """
        import pyarrow
        from pyarrow import parquet

        wanted = list(columns or self.columns)
        schema = _schema(wanted)
        for shard in self.shards:
            try:
                with parquet.ParquetFile(shard) as file:
                    for batch in file.iter_batches(BATCH_ROWS, columns=wanted):
                        yield pyarrow.Table.from_batches([batch]).select(wanted).cast(schema)
            except (OSError, pyarrow.ArrowException) as error:
                raise _unreadable(shard, error) from error

    def records(self, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
        """Yield the rows one by one, as dicts."""
        for batch in self.batches(columns):
            yield from batch.to_pylist()


def open_audit(folder: Path) -> AuditRows:
    """Return the shards and the summary of an audit, after a check that their version is one that is read here.

    Raises
    ------
    UsageError
        If the folder holds no audit, or one that is damaged or of a newer version.
    """
    import pyarrow
    from pyarrow import parquet

    shards = tuple(sorted(folder.glob(SHARDS)))
    name_text = printable(str(folder))
    if not shards and not (folder / SUMMARY).is_file():
        raise UsageError(f"{name_text} holds no audit: give the folder that treering audit --output named")
    names = [*COLUMNS, *OPTIONAL]
    count = 0
    for shard in shards:
        try:
            with parquet.ParquetFile(shard) as file:
                present = set(file.schema_arrow.names)
                count += file.metadata.num_rows
        except (OSError, pyarrow.ArrowException) as error:
            raise _unreadable(shard, error) from error
        if missing := [name for name in COLUMNS if name not in present]:
            raise UsageError(
                f"{printable(str(shard))} lacks {', '.join(missing)}: it is no shard of an audit, or of a newer version"
            )
        names = [name for name in names if name in present]
    return AuditRows(folder, shards, tuple(names), count, _summary(folder / SUMMARY))


def _summary(path: Path) -> dict[str, Any]:
    name_text = printable(str(path))
    try:
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UsageError(
            f"cannot read {name_text}: {printable(str(error))}; run the audit again to renew it"
        ) from error
    version = content.get("schema_version") if isinstance(content, dict) else None
    if not isinstance(version, int) or not 1 <= version <= SCHEMA_VERSION:
        raise UsageError(
            f"{name_text} is of schema version {version!r}, this release reads 1: use the release that wrote it"
        )
    return dict(content)


def _schema(columns: Sequence[str]) -> Any:
    import pyarrow

    types = {**COLUMNS, **OPTIONAL}
    return pyarrow.schema([(name, pyarrow.type_for_alias(types[name])) for name in columns])


def _unreadable(shard: Path, error: Exception) -> UsageError:
    why = printable(str(getattr(error, "strerror", None) or error))
    return UsageError(f"cannot read {printable(str(shard))}: {why}; delete it, and run the same audit again")
