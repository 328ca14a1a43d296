"""Manifests and lists of few bytes that stand for much: refused by name, before they are unpacked."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from helpers.audits import audited

from treering_verify.audit.inputs.manifests import list_entries, manifest_entries
from treering_verify.audit.inputs.sources import Inputs
from treering_verify.errors import UsageError
from treering_verify.media.containers import most_rows

MANY = 30_000_000


@pytest.mark.parametrize("kind", ["parquet", "file", "stream"])
def test_a_table_of_a_few_bytes_with_millions_of_rows_is_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "bomb"
    table = pa.table({"path": pa.nulls(MANY)})
    if kind == "parquet":
        pyarrow.parquet.write_table(table, path, compression="zstd")
    else:
        with (pa.ipc.new_file if kind == "file" else pa.ipc.new_stream)(path, table.schema) as writer:
            writer.write_table(table)
    assert most_rows(path.stat().st_size) < MANY
    with pytest.raises(UsageError, match=r"bomb cannot be used: it has 30,000,000 rows"):
        list(manifest_entries(str(path), ""))


@pytest.mark.parametrize("size", [100_000, 20_000_000])
def test_one_long_text_that_many_rows_repeat_is_refused(size: int, tmp_path: Path) -> None:
    path = tmp_path / "bomb.parquet"
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 1000, pa.int32()), pa.array(["x" * size]))
    pyarrow.parquet.write_table(pa.table({"path": column}), path, compression="zstd")
    assert path.stat().st_size < size
    with pytest.raises(UsageError, match=r"bomb\.parquet cannot be used: an entry has"):
        list(manifest_entries(str(path), ""))


def test_short_texts_that_make_gigabytes_together_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.parquet"
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 3000, pa.int32()), pa.array(["x" * 60_000]))
    pyarrow.parquet.write_table(pa.table({"path": column}), path, compression="zstd")
    with pytest.raises(UsageError, match="characters: split it"):
        list(manifest_entries(str(path), ""))
    with pytest.raises(UsageError, match=r"bomb\.parquet.*characters"):
        audited(Inputs(manifests=(str(path),)), tmp_path / "out")


def test_a_list_without_line_ends_and_a_line_of_brackets_are_refused(tmp_path: Path) -> None:
    (tmp_path / "list").write_bytes(b"x" * 1_000_000)
    with pytest.raises(UsageError, match="an entry is longer"):
        list(list_entries(str(tmp_path / "list"), b"\n"))
    (tmp_path / "deep.jsonl").write_text('{"path": ' + "[" * 500_000)
    with pytest.raises(UsageError, match=r"deep\.jsonl cannot be used"):
        list(manifest_entries(str(tmp_path / "deep.jsonl"), ""))


def test_a_csv_of_one_endless_line_is_refused_before_it_is_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "line.csv"
    with open(path, "wb") as file:
        file.write(b"path\n")
        file.truncate(10**9)  # zeros
    with pytest.raises(UsageError, match=r"line\.csv cannot be used: a line has more than"):
        list(manifest_entries(str(path), ""))


@pytest.mark.parametrize("piece", [b',"', b"'\"", b'"a",', b'" "', b"';"])
def test_the_delimiter_of_a_hostile_header_is_found_at_once(piece: bytes, tmp_path: Path) -> None:
    path = tmp_path / "head.csv"
    path.write_bytes(b"path," + piece * 40_000 + b"\nx,y\n")  # csv.Sniffer takes hours for some
    started = time.process_time()
    with contextlib.suppress(UsageError):  # quotes that do not end make one long field
        assert list(manifest_entries(str(path), "path")) == ["x"]
    assert time.process_time() - started < 10


@pytest.mark.parametrize("between", [",", ";", "\t", "|"])
def test_delimiters_are_told_apart(between: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(between.join(('"a,b;c|d"', "path", "e")) + "\n" + between.join(("1", "x.png", "2")) + "\n")
    assert list(manifest_entries(str(path), "path")) == ["x.png"]
    path.write_text("path\na,b;c.png\n" if between != "," else "path\na;b.png\n")
    assert list(manifest_entries(str(path), "")) == ["a" if between != "," else "a;b.png"]


def test_columns_of_long_names_are_listed_shortened(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({f"{i}{'x' * 40_000}": 1 for i in range(20)}) + "\n")
    with pytest.raises(UsageError, match="--column one of 0x") as caught:
        list(manifest_entries(str(path), ""))
    assert len(str(caught.value)) < 3000


def test_zeros_in_a_table_are_no_file(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"path\na\0b.png\n\0\n")
    rows = audited(Inputs(manifests=(str(tmp_path / "a.csv"),)), tmp_path / "out")
    assert [row.code for row in rows] == ["not_readable"] * 2
