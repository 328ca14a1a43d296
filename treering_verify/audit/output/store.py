"""The folder of an audit's results: shards that appear whole, a ledger of what they contain, and a lock.

The folder holds `rows-000000.parquet` and its successors and `summary.json`; its subfolder `state` holds what a continued
audit needs. `rows-000003.part.parquet` holds the rows that shard 3 has so far; it goes when that shard is written. Nothing
here knows which engine made the rows.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from treering_verify.audit.inputs.plan import SCRATCH, Chunk
from treering_verify.audit.output import rows as row_module
from treering_verify.audit.output.rows import Row
from treering_verify.errors import UsageError
from treering_verify.files import opened_table, printable, write_atomic
from treering_verify.results import DETECTED

STATE, SUMMARY, REPORT = "state", "summary.json", "report.html"
_SETTINGS, _LEDGER, _LOCK = "settings.json", "shards.jsonl", "lock"
_SHARD, _PART = re.compile(r"rows-\d{6,}\.parquet"), re.compile(r"rows-\d{6,}\.part\.parquet")
FOLDER_MODE = 0o755  # before the umask: under a umask of 0 others may still not write
_TEMPORARY = re.compile(r"\.[0-9a-f]{16}\.tmp")


def shard_name(number: int) -> str:
    """Return the file name of a shard."""
    return f"rows-{number:06d}.parquet"


def shard_files(folder: Path) -> list[Path]:
    """Return the shards of a folder of results, in the order of their rows."""
    return sorted((p for p in folder.iterdir() if _SHARD.fullmatch(p.name)), key=lambda p: (len(p.name), p.name))


def part_files(folder: Path) -> list[Path]:
    """Return the files of a folder of results that hold the rows of unfinished shards."""
    return sorted(p for p in folder.iterdir() if _PART.fullmatch(p.name))


def read_shard(folder: Path, number: int) -> list[Row]:
    """Return the rows of a shard of a folder of results."""
    return row_module.from_table(read_table(folder / shard_name(number)))


def shard_digest(folder: Path, number: int) -> str:
    """Return the SHA-256 of a shard; OSError if it cannot be read."""
    with open(folder / shard_name(number), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_ledger(state: Path) -> dict[int, dict[str, Any]]:
    """Return what the ledger's last line on each shard says: its chunk, rows, SHA-256, settings and counts."""
    ledger: dict[int, dict[str, Any]] = {}
    with contextlib.suppress(FileNotFoundError):
        for line in (state / _LEDGER).read_bytes().splitlines():
            with contextlib.suppress(ValueError, KeyError, TypeError):  # a line that was cut short is skipped
                entry = json.loads(line)
                ledger[int(entry["shard"])] = entry
    return ledger


def read_table(path: Path, columns: list[str] | None = None) -> Any:
    """Return the table of a shard, or some columns of it."""
    import pyarrow.parquet

    with opened_table(path) as opened, pyarrow.parquet.ParquetFile(opened) as file:
        return file.read(columns, use_threads=False)


def unwritable(folder: Path, error: OSError) -> str:
    """Return what to say of an error while a folder of results, or something in it, is written."""
    shown = printable(str(folder))
    if error.errno in (errno.ENOENT, errno.ENOTDIR) and not (folder / STATE / _LOCK).exists():
        return f"{shown} was deleted, or a part of it, while it was written: run the same command again to begin anew"
    fuller = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return (
        f"cannot write to {shown}: {error.strerror}; what is finished there stays: "
        f"{'free space' if fuller else 'free space or change its permissions'}, and run the same command again"
    )


def refuse_busy(folder: Path) -> None:
    """Raise UsageError if another audit is writing to a folder of results; `Store` checks it again, and takes the lock."""
    try:
        descriptor = os.open(folder / STATE / _LOCK, os.O_RDWR)
    except OSError:  # no audit has been here, or the folder cannot be written to, which the store says
        return
    try:
        _take_lock(descriptor, folder)
    finally:
        os.close(descriptor)


def refuse_other(folder: Path, facts: dict[str, Any]) -> None:
    """Raise UsageError if a folder of results holds an audit of which some of these facts are others; `Store` checks all."""
    try:
        known = json.loads((folder / STATE / _SETTINGS).read_text())
    except (OSError, ValueError):  # no audit has been here, or its state is damaged, which the store says
        return
    if isinstance(known, dict):
        _check_same(folder, {name: known.get(name) for name in facts}, facts)


def _take_lock(descriptor: int, folder: Path) -> None:
    import fcntl

    try:
        fcntl.flock(
            descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB
        )  # the system releases it when the process ends, in whatever way
    except OSError as error:
        raise UsageError(
            f"another audit is writing to {printable(str(folder))}: wait for it, or name another --output"
        ) from error


class Store:
    """A folder of results, which one audit at a time may write; a context that holds its lock.

    Parameters
    ----------
    folder : Path
        Created if it does not exist.
    facts : dict
        JSON-ready: by name, everything that must be the same when an audit is continued.
    settings_id : str
        Written into the shards; a shard with another is made again.
    overwrite : bool
        Delete the results of an earlier audit.

    Raises
    ------
    UsageError
        If another audit is writing there, the results are of an audit with other facts, the folder holds something else, or
        it is not writable.
    """

    def __init__(self, folder: Path, facts: dict[str, Any], settings_id: str, overwrite: bool = False) -> None:
        # Load pyarrow's writer now, so that a broken installation fails before the first image.
        import pyarrow.parquet

        pyarrow.parquet.write_table(row_module.to_table([]), io.BytesIO())
        self.folder, self.state, self._settings_id = folder, folder / STATE, settings_id
        self._name = printable(str(folder))
        self._ledger: dict[int, dict[str, Any]] = {}
        with self.writing():
            folder.mkdir(FOLDER_MODE, parents=True, exist_ok=True)
            if not (self.state / _LOCK).exists() and any(folder.iterdir()):
                raise UsageError(f"{self._name} holds something else: name a new folder, or one of an earlier audit")
            self.state.mkdir(FOLDER_MODE, exist_ok=True)
            self._lock = os.open(self.state / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _take_lock(self._lock, folder)
            with self.writing():
                if overwrite:
                    self._clear()
                self._agree(facts)
                self._tidy()
                self._ledger = read_ledger(self.state)
        except BaseException:
            os.close(self._lock)
            raise

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.state / SCRATCH, ignore_errors=True)
        os.close(self._lock)

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Turn an OSError while writing into a UsageError that says what to do."""
        try:
            yield
        except OSError as error:
            raise UsageError(unwritable(self.folder, error)) from error

    def finished(self, number: int, chunk: Chunk) -> dict[str, int] | None:
        """Return the counts of a shard (`rows.count`) that is whole and of this chunk and these settings, or None."""
        entry = self._ledger.get(number)
        wanted = (chunk.digest, chunk.rows, self._settings_id)
        if entry is None or (entry["chunk"], entry["rows"], entry["settings_id"]) != wanted:
            return None
        try:
            return entry["counts"] if shard_digest(self.folder, number) == entry["sha256"] else None
        except OSError:
            return None

    def write(self, number: int, chunk: Chunk, rows: Sequence[Row]) -> None:
        """Write a shard, whole or not at all, and then its entry in the ledger.

        Raises
        ------
        UsageError
            If the folder is not writable.
        """
        self._write(number, chunk.digest, row_module.to_table(rows), row_module.count(rows), False)
        self._part(number).unlink(missing_ok=True)

    def write_part(self, number: int, rows: Sequence[Row]) -> None:
        """Write the rows that an unfinished shard has so far. They are no part of the ledger: the shard is made again.

        Raises
        ------
        UsageError
            If the folder is not writable.
        """
        with self.writing():
            write_atomic(self._part(number), self._packed(row_module.to_table(rows)))

    def _part(self, number: int) -> Path:
        return self.folder / f"{Path(shard_name(number)).stem}.part.parquet"

    def add_q_values(self) -> None:
        """Add the column `q_value` to all shards: Benjamini-Hochberg over the judged files.

        All shards must be finished. It needs about 40 bytes of memory for each file. After an interruption it is repeated.
        """
        import numpy as np
        import pyarrow as pa
        import pyarrow.parquet
        from scipy.stats import false_discovery_control

        numbers = sorted(self._ledger)
        if all(self._ledger[number]["q_values"] for number in numbers):
            return
        parts = []
        for number in numbers:
            table = read_table(self.folder / shard_name(number), columns=["pvalue_adjusted"])
            parts.append(table.column(0).to_numpy(zero_copy_only=False).astype(float))
        pvalues = np.concatenate([np.empty(0), *parts])
        judged = ~np.isnan(pvalues)  # a row without a p-value is null there
        if judged.any():
            pvalues[judged] = false_discovery_control(pvalues[judged])
        start = 0
        for number, part in zip(numbers, parts, strict=True):
            values = pvalues[start : start + len(part)]
            start += len(part)
            table = read_table(self.folder / shard_name(number)).select(row_module.schema().names)
            column = pa.array(values, pa.float64(), from_pandas=True)  # NaN becomes null
            table = pa.Table.from_arrays([*table.columns, column], schema=row_module.schema(with_q_values=True))
            entry = self._ledger[number]
            self._write(number, entry["chunk"], table, entry["counts"], True)

    def summary(self) -> dict[str, Any]:
        """Return the content of `summary.json`; empty if there is none."""
        try:
            return dict(json.loads((self.folder / SUMMARY).read_text()))
        except (OSError, ValueError, TypeError):
            return {}

    def write_summary(self, content: dict[str, Any]) -> None:
        """Write `summary.json`."""
        with self.writing():
            write_atomic(self.folder / SUMMARY, (json.dumps(content, indent=2) + "\n").encode())

    def _write(self, number: int, chunk: str, table: Any, counts: dict[str, int], q_values: bool) -> None:
        data = self._packed(table)
        entry = {
            "shard": number,
            "chunk": chunk,
            "rows": table.num_rows,
            "sha256": hashlib.sha256(data).hexdigest(),
            "settings_id": self._settings_id,
            "counts": counts,
            "q_values": q_values,
        }
        with self.writing():
            write_atomic(self.folder / shard_name(number), data)
            descriptor = os.open(self.state / _LEDGER, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            try:  # a line break first, in case a full disk cut the last line short
                with open(descriptor, "wb", buffering=0, closefd=False) as file:
                    file.write(b"\n" + json.dumps(entry).encode() + b"\n")
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        self._ledger[number] = entry

    def _packed(self, table: Any) -> bytes:
        import pyarrow.parquet

        buffer = io.BytesIO()
        facts = {"treering.settings_id": self._settings_id, "treering.schema_version": str(row_module.SCHEMA_VERSION)}
        pyarrow.parquet.write_table(table.replace_schema_metadata(facts), buffer)
        return buffer.getvalue()

    def _clear(self) -> None:
        parts = part_files(self.folder)
        for path in [*shard_files(self.folder), *parts, self.folder / SUMMARY, self.folder / REPORT]:
            path.unlink(missing_ok=True)
        for path in self.state.iterdir():
            if path.name != _LOCK:
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _agree(self, facts: dict[str, Any]) -> None:
        path = self.state / _SETTINGS
        try:
            known = json.loads(path.read_text())
        except FileNotFoundError:
            write_atomic(path, json.dumps(facts, indent=2).encode())
            return
        except ValueError as error:
            raise UsageError(f"{self._name} has a damaged state: start again with --overwrite") from error
        _check_same(self.folder, known, facts)

    def _tidy(self) -> None:
        """Delete the unfinished files of a killed audit."""
        for folder in (self.folder, self.state):
            for path in folder.iterdir():
                if _TEMPORARY.fullmatch(path.name):
                    path.unlink()
        shutil.rmtree(self.state / SCRATCH, ignore_errors=True)
        (self.state / SCRATCH).mkdir(FOLDER_MODE, exist_ok=True)

    def forget_beyond(self, count: int) -> None:
        """Delete what is left of an interrupted walk that was longer than `count` chunks, and parts of its shards."""
        with self.writing():
            for path in part_files(self.folder):
                path.unlink()
            for path in shard_files(self.folder):
                number = int(path.name[5:-8])
                if number >= count:
                    path.unlink()
                    self._ledger.pop(number, None)


def _check_same(folder: Path, known: dict[str, Any], facts: dict[str, Any]) -> None:
    """Raise UsageError if facts of an audit differ from those that a folder of results holds; it names the differences."""
    now = json.loads(json.dumps(facts))
    changed = [
        f"{name} was {_short(old)} and is {_short(new)}"
        for key in sorted({*known, *now})
        for name, old, new in _differences(key, known.get(key), now.get(key))
    ]
    if changed:
        raise UsageError(
            f"{printable(str(folder))} holds an audit with other settings ({'; '.join(changed)}): name another --output, "
            "or start again with --overwrite"
        )


def _differences(name: str, old: Any, new: Any) -> list[tuple[str, Any, Any]]:
    """Return what differs between two values, by its name: of dicts, each entry that differs."""
    if isinstance(old, dict) and isinstance(new, dict):
        found = ((f"{name}.{key}", old.get(key), new.get(key)) for key in sorted({*old, *new}))
        return [each for each in found if each[1] != each[2]]
    return [(name, old, new)] if old != new else []


def _short(value: Any) -> str:
    text = printable(json.dumps(value, ensure_ascii=False))
    return text if len(text) <= 120 else f"{text[:117]}..."


def first_detected(folder: Path, most: int) -> list[Row]:
    """Return the first detected rows of a folder of results, in the order of the inputs, at most `most`."""
    from pyarrow import compute

    found: list[Row] = []
    for path in shard_files(folder):
        table = read_table(path)
        table = table.filter(compute.equal(table["verdict"], DETECTED))
        found += row_module.from_table(table.slice(0, most - len(found)))
        if len(found) >= most:
            break
    return found
