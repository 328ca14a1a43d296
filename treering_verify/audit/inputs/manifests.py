"""Entries of lists and of manifests, that name an audit's inputs."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

from treering_verify.errors import UsageError
from treering_verify.files import printable

STDIN = "-"
_BLOCK = 1 << 16
_COLUMNS = ("path", "url", "file", "filename", "image")  # a manifest's column where none is named


def listed(name: str, end: bytes) -> Iterator[str]:
    """Entries of a list; empty ones are left out, and a carriage return before a line's end."""
    shown = "standard input" if name == STDIN else printable(name)
    try:
        with contextlib.nullcontext(sys.stdin.buffer) if name == STDIN else open(name, "rb") as file:
            rest = b""
            while block := file.read(_BLOCK):
                *whole, rest = (rest + block).split(end)
                for line in whole:
                    if text := line if end == b"\0" else line.removesuffix(b"\r"):
                        yield os.fsdecode(text)
            if rest := rest if end == b"\0" else rest.removesuffix(b"\r"):
                yield os.fsdecode(rest)
    except OSError as error:
        raise UsageError(f"cannot read the list {shown}: {error.strerror}") from error


def tabled(name: str, column: str) -> Iterator[str]:
    """Entries of a manifest's column; empty ones are left out."""
    shown = printable(name)
    try:
        with open(name, "rb") as file:
            is_parquet = file.read(4) == b"PAR1"
        yield from _parquet(name, column) if is_parquet else _csv(name, column)
    except OSError as error:
        raise UsageError(f"cannot read the manifest {shown}: {error.strerror or error}") from error
    except (ValueError, LookupError) as error:  # pyarrow's errors are among them; csv's is turned into one
        raise UsageError(f"the manifest {shown} cannot be used: {printable(str(error))}") from error


def _parquet(name: str, column: str) -> Iterator[str]:
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(name) as table:
        chosen = _choose(table.schema_arrow.names, column)
        for batch in table.iter_batches(4096, columns=[chosen]):
            for value in batch.column(0).to_pylist():
                if value:
                    yield os.fsdecode(value) if isinstance(value, bytes) else str(value)


def _csv(name: str, column: str) -> Iterator[str]:
    import csv

    with open(name, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        rows = csv.reader(file)
        try:
            header = next(rows, [])
            place = header.index(_choose(header, column))
            for row in rows:
                if len(row) > place and row[place]:
                    yield row[place]
        except csv.Error as error:
            raise ValueError(f"line {rows.line_num}: {error}") from error


def _choose(names: list[str], column: str) -> str:
    candidates = [column] if column else [*_COLUMNS, *(names if len(names) == 1 else [])]
    for candidate in candidates:
        if candidate in names:
            return candidate
    listed = ", ".join(names[:20])
    raise LookupError(f"no column {column!r} in it: choose one of {listed}" if column else f"--column one of {listed}")
