"""Reader of an audit's folder: its summary.json, and its rows batch by batch, so that memory stays bounded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from treering_verify.errors import UsageError
from treering_verify.files import opened_regular, parsed_json, printable
from treering_verify.report.audit.shard_reader import facts_of_shard, shard_batches
from treering_verify.results import DETECTED, INCONCLUSIVE, NO_EVIDENCE

SUMMARY = "summary.json"
SHARDS, _PART = "rows-*.parquet", ".part"
SCHEMA_VERSION = 2
"""The newest version that is read. Version 1 called what was not judged "inconclusive": that is read as none."""
_VERSIONS = tuple(range(1, SCHEMA_VERSION + 1))
_MOST_SUMMARY = 64 * 1024**2
_MOST_LOG10 = 1e-6  # log10 of 1, and a rounding error

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
"""Name and Arrow type of every column of all versions; `OPTIONAL` ones may follow."""

OPTIONAL = {
    "path_bytes": "binary",
    "decided_by": "string",
    "log10_first": "float64",
    "hypothesis": "string",
    "search": "string",
    "key_retired": "string",
    "key_origin": "string",
    "placement": "string",
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

        wanted = list(columns or self.columns)
        read = [*wanted, *(name for name in _CHECKED if name not in wanted)]
        schema = _schema(read)
        for shard in self.shards:
            try:
                for batch in shard_batches(shard, read):
                    table = pyarrow.Table.from_batches([batch]).select(read).cast(schema)
                    _check_rows(table, shard)
                    yield _without_verdicts_of_the_unjudged(table).select(wanted)
            except (
                OSError,
                ValueError,
                pyarrow.ArrowException,
                KeyError,
            ) as error:  # KeyError: two columns of one name
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

    found = sorted(folder.glob(SHARDS))
    # A part holds rows of an unfinished shard. Beside that shard it is left over from a kill at the wrong moment.
    whole = {shard.name for shard in found if _PART not in shard.name}
    shards = tuple(shard for shard in found if _PART not in shard.name or shard.name.replace(_PART, "") not in whole)
    name_text = printable(str(folder))
    if not shards and not (folder / SUMMARY).is_file():
        raise UsageError(f"{name_text} contains no audit: give a folder that treering audit --output wrote")
    names = [*COLUMNS, *OPTIONAL]
    count = 0
    for shard in shards:
        try:
            present, rows = facts_of_shard(shard)
        except (OSError, ValueError, pyarrow.ArrowException) as error:
            raise _unreadable(shard, error) from error
        if missing := [name for name in COLUMNS if name not in present]:
            raise UsageError(
                f"{printable(str(shard))} lacks {', '.join(missing)}: it is not a shard of an audit, or is from a newer "
                "version"
            )
        count += rows
        names = [name for name in names if name in present]
    return AuditRows(folder, shards, tuple(names), count, _summary(folder / SUMMARY))


def _summary(path: Path) -> dict[str, Any]:
    name_text = printable(str(path))
    try:
        with opened_regular(path) as file:
            data = file.read(_MOST_SUMMARY + 1)
        if len(data) > _MOST_SUMMARY:
            raise ValueError(f"it is larger than {_MOST_SUMMARY} bytes")
        content = parsed_json(data)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(
            f"cannot read {name_text}: {printable(str(error))}; run the audit again to renew it"
        ) from error
    version = content.get("schema_version") if isinstance(content, dict) else None
    if not isinstance(version, int) or version not in _VERSIONS:
        raise UsageError(
            f"{name_text} is of schema version {version!r}, this release reads 1 to {SCHEMA_VERSION}: "
            "use the release that wrote it"
        )
    wrong = [name for name, fits in _FITS.items() if content.get(name) is not None and not fits(content[name])]
    if wrong:
        raise UsageError(
            f"{name_text}: {wrong[0]!r} is nothing that an audit writes: run the audit again to renew the file"
        )
    return dict(content)


def _is_number(value: Any, least: float, most: float, whole: bool = False) -> bool:
    kinds = int if whole else (int, float)
    return isinstance(value, kinds) and not isinstance(value, bool) and least <= value <= most


def _are_keys(value: Any) -> bool:
    if isinstance(value, dict):  # a count and a digest in the place of many
        return True
    return isinstance(value, list) and all(
        isinstance(key, dict) and all(isinstance(key.get(name, ""), str) for name in ("name", "fingerprint"))
        for key in value
    )


_FITS: dict[str, Callable[[Any], bool]] = {
    "finished": lambda value: isinstance(value, bool),
    "model": lambda value: isinstance(value, str),
    "settings": lambda value: isinstance(value, dict),
    "versions": lambda value: isinstance(value, dict),
    "settings_id": lambda value: isinstance(value, str),
    "keys": _are_keys,
    "keys_tried": lambda value: _is_number(value, 1, 1e15, whole=True),
    "alpha": lambda value: _is_number(value, 0, 1),
    "expected_false_positives": lambda value: _is_number(value, 0, 1e15),
    "seconds": lambda value: _is_number(value, 0, 1e15),
}
"""What the fields of a summary hold that reports use."""


def _check_rows(table: Any, shard: Path) -> None:
    """Raise UsageError if rows hold what no audit writes: a folder of results may come from anybody."""
    import pyarrow
    from pyarrow import compute

    for name in table.column_names:
        column = table[name]
        fits: Any = None
        if name in _ALLOWED:
            fits = compute.is_in(column, value_set=pyarrow.array(_ALLOWED[name], column.type))
            if name == "verdict":
                fits = compute.or_(
                    fits, compute.and_(compute.is_null(column), compute.not_equal(table["status"], "ok"))
                )
        elif name in _TEXTS:
            fits = compute.is_valid(column)
        elif name.startswith("log10_"):
            possible = compute.and_(compute.is_finite(column), compute.less_equal(column, _MOST_LOG10))
            fits = compute.or_kleene(compute.is_null(column), possible)
        if fits is not None and not compute.all(fits, min_count=0).as_py():
            raise UsageError(
                f"{printable(str(shard))}: a row's {name} is nothing that an audit of schema versions 1 to "
                f"{SCHEMA_VERSION} writes: it is damaged, or of another release; run the audit again to renew it"
            )


def _without_verdicts_of_the_unjudged(table: Any) -> Any:
    """Return rows as version 2 has them: no verdict where nothing was judged."""
    import pyarrow
    from pyarrow import compute

    judged = compute.if_else(compute.equal(table["status"], "ok"), table["verdict"], pyarrow.scalar(None, "string"))
    return table.set_column(table.column_names.index("verdict"), "verdict", judged)


_ALLOWED: dict[str, tuple[Any, ...]] = {
    "schema_version": _VERSIONS,
    "status": ("ok", "error", "skipped"),
    "verdict": (DETECTED, NO_EVIDENCE, INCONCLUSIVE),
}
_TEXTS = ("path", "code", "reason")
_CHECKED = (*_ALLOWED, *_TEXTS, "log10_pvalue", "log10_adjusted")  # of every row, whatever a report shows


def _schema(columns: Sequence[str]) -> Any:
    import pyarrow

    types = {**COLUMNS, **OPTIONAL}
    return pyarrow.schema([(name, pyarrow.type_for_alias(types[name])) for name in columns])


def _unreadable(shard: Path, error: Exception) -> UsageError:
    why = printable(str(getattr(error, "strerror", None) or error))
    return UsageError(f"cannot read {printable(str(shard))}: {why}; delete it, and run the same audit again")
