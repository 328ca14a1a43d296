"""Folders of results from people who mean harm: no model is loaded, no file is shown, and damage ends in one line."""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from click.testing import CliRunner, Result
from helpers.audit_rows import row, unjudged, write_audit
from helpers.images import smooth
from pyarrow import parquet

from treering_verify.cli.main import main
from treering_verify.errors import UsageError
from treering_verify.report.audit import AUDIT_FORMATS, export, write_report
from treering_verify.report.audit.audit_reader import open_audit
from treering_verify.report.audit.gallery import Sources, make_tiles


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


def image(path: Path) -> str:
    """Write an image, and return its SHA-256."""
    path.parent.mkdir(parents=True, exist_ok=True)
    smooth(64, 64).save(path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_model_that_a_summary_names_is_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[object] = []
    monkeypatch.setattr("treering_verify.models.load_model", lambda name: loaded.append(name))
    for name in ("someone/model", str(tmp_path), "https://example.org/model", "\x1b]0;x\x07"):
        folder = write_audit(tmp_path / "audit", [[row("a.png", "detected", -9.0)]], model=name)
        result = run("report", folder, "--output", tmp_path / "r.html")
        assert result.exit_code == 0, result.output
        assert "give --model" in result.stderr and "\x1b" not in result.stderr
        assert "give --model" in (tmp_path / "r.html").read_text()
    assert loaded == []


def test_images_come_from_inside_the_root_and_with_the_hash_of_the_row(tmp_path: Path) -> None:
    known = image(tmp_path / "root" / "a.png")
    assert image(tmp_path / "secret" / "a.png") == known
    root = tmp_path / "root"
    sources = Sources(tmp_path / "none", root)
    (root / "way").symlink_to(tmp_path / "secret")
    os.mkfifo(root / "fifo")
    secret = tmp_path / "secret" / "a.png"
    outside = [str(secret), "../secret/a.png", "way/a.png", f"{root}/../secret/a.png", "/etc/hostname", "/dev/zero"]
    tiles = make_tiles([row(path, "detected", -9.0, sha256=known) for path in outside], sources)[0]
    assert [tile.thumbnail for tile in tiles] == [""] * len(outside)
    assert all("--root" in tile.note for tile in tiles)
    assert make_tiles([row("a.png", "detected", -9.0, sha256=known)], sources)[0][0].thumbnail
    without = [row("a.png", "detected", -9.0), row("a.png", "detected", -9.0, sha256=""), row("a\0b", "detected", -9.0)]
    odd = [row(name, "detected", -9.0, sha256=known) for name in ("fifo", "a\0b", "x" * 5000)]
    assert not any(tile.thumbnail for tile in make_tiles(without + odd, sources)[0])
    folder = write_audit(tmp_path / "audit", [[row(str(secret), "detected", -9.0, sha256=known)]])
    assert "data:image/jpeg" not in write_report(folder, root=root).read_text()
    assert "data:image/jpeg" in write_report(folder, root=None).read_text(), "an audit shows what it judged itself"


@pytest.mark.parametrize(
    "summary",
    [
        {"settings": {"steps": "10"}},
        {"settings": {"steps": [10]}},
        {"settings": {"steps": 10**9}},
        {"settings": {"steps": True}},
        {"settings": {"method": 3}},
        {"settings": {"method": "no such method"}},
        {"settings": "x"},
        {"keys": ["x"]},
        {"keys": [{"name": {}}]},
        {"keys_tried": "3"},
        {"keys_tried": 10**400},
        {"alpha": "<b>"},
        {"alpha": 10**400},
        {"expected_false_positives": 10**400},
        {"finished": "yes"},
        {"model": ["landscape"]},
        {"versions": [1]},
        {"schema_version": 3},
        {"schema_version": "1"},
        {"schema_version": None},
    ],
)
def test_odd_summaries_end_in_one_line(tmp_path: Path, summary: dict[str, Any]) -> None:
    folder = write_audit(tmp_path / "audit", [[row("a.png", "detected", -9.0)]], **summary)
    result = run("report", folder, "--output", tmp_path / "r.html", "--images", 1)
    assert result.exit_code == 2 and result.stderr.splitlines()[-1].startswith("Error: "), result.output
    assert "Traceback" not in result.output and not (tmp_path / "r.html").exists()


@pytest.mark.parametrize("text", ["[" * 100_000, "\xff", "[]", "3", '{"schema_version": 1e999}', '"x"'])
def test_damaged_summaries_end_in_one_line(tmp_path: Path, text: str) -> None:
    folder = write_audit(tmp_path / "audit", [[row("a.png")]])
    (folder / "summary.json").write_text(text, "latin-1")
    with pytest.raises(UsageError, match=r"summary\.json"):
        open_audit(folder)


def test_a_summary_of_a_million_fields_or_lists_costs_little(tmp_path: Path) -> None:
    fields = {f"f{i}\x1b[2J": 1 for i in range(10**6)}
    folder = write_audit(tmp_path / "audit", [[row("a.png")]], **fields)
    started = time.process_time()
    result = run("report", folder, "--output", tmp_path / "r.html", "--images", 0)
    assert result.exit_code in (0, 2) and "\x1b" not in result.output
    assert not (tmp_path / "r.html").exists() or (tmp_path / "r.html").stat().st_size < 10**6
    (folder / "summary.json").write_text('{"keys": [' + "[]," * 5_000_000 + "0]}")
    assert run("report", folder, "--output", tmp_path / "s.html").exit_code == 2
    assert time.process_time() - started < 60


@pytest.mark.parametrize(
    "fields",
    [
        {"status": "<script>alert(1)</script>"},
        {"status": None},
        {"verdict": "marked"},
        {"verdict": None},
        {"path": None},
        {"reason": None},
        {"schema_version": 3},
        {"schema_version": None},
        {"log10_adjusted": float("nan")},
        {"log10_adjusted": float("-inf")},
        {"log10_pvalue": 400.0},
    ],
    ids=str,
)
@pytest.mark.parametrize("style", AUDIT_FORMATS)
def test_odd_rows_end_in_one_line(tmp_path: Path, fields: dict[str, Any], style: str) -> None:
    folder = write_audit(tmp_path / "audit", [[row("a.png"), row("b.png", "detected", -9.0) | fields]])
    with pytest.raises(UsageError, match=f"rows-000000.parquet: a row's {next(iter(fields))}"):
        write_report(folder, tmp_path / "r", style)
    assert not (tmp_path / "r").exists()


def test_columns_of_other_types_and_shards_that_are_no_files_end_in_one_line(tmp_path: Path) -> None:
    rows = [row("a.png"), unjudged("b.png")]
    for name, values in {
        "path": pa.array([{"x": 1}, {"x": 2}]),
        "status": pa.array([[1], [2]]),
        "width": pa.array(["a", "b"]),
        "alpha": pa.array([b"\xff", b"\xfe"]),
    }.items():
        folder = write_audit(tmp_path / name, [rows])
        shard = folder / "rows-000000.parquet"
        table = parquet.read_table(shard)
        place = table.column_names.index(name)
        parquet.write_table(table.set_column(place, name, values), shard)
        for style in ("html", "csv", "jsonl", "sarif"):
            with pytest.raises(UsageError, match=r"rows-000000\.parquet"):
                write_report(folder, tmp_path / "r", style)
    for number, make in enumerate((os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path))):
        folder = write_audit(tmp_path / str(number), [rows])
        os.unlink(folder / "rows-000000.parquet")
        make(folder / "rows-000000.parquet")
        with pytest.raises(UsageError, match=r"rows-000000\.parquet"):
            open_audit(folder)
    folder = write_audit(tmp_path / "again", [rows])
    os.unlink(folder / "summary.json")
    os.mkfifo(folder / "summary.json")
    with pytest.raises(UsageError, match=r"summary\.json"):
        open_audit(folder)


def test_numbers_that_are_odd_but_possible_make_a_page(tmp_path: Path) -> None:
    odd = {"statistic": float("inf"), "residual": float("nan"), "seconds": float("nan"), "width": -5, "alpha": 1e300}
    folder = write_audit(tmp_path / "audit", [[row("a.png", "detected", -1e9, **odd), row("b.png", **odd)]], seconds=1)
    assert "<html" in write_report(folder).read_text()
    for style in ("csv", "jsonl", "sarif", "junit"):
        with open(tmp_path / style, "wb") as file:
            export(open_audit(folder), file, style)
    assert json.loads((tmp_path / "sarif").read_bytes())["version"] == "2.1.0"


def test_a_folder_with_a_colon_in_its_name_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("out-2026-09-01T12:30", "s3:x", "file:a"):
        write_audit(Path("plain"), [[row("a.png"), row("b.png", "detected", -9.0)]]).rename(name)
        result = run("report", name, "--output", "r.jsonl")
        assert result.exit_code == 0 and len(Path("r.jsonl").read_text().splitlines()) == 2, result.output


@pytest.mark.parametrize("kind", ["rows", "a long text", "texts", "a long text in all"])
def test_shards_that_unpack_to_gigabytes_end_in_one_line(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_audit(tmp_path / "audit", [[row("a.png")]])
    shard = folder / "rows-000000.parquet"
    table = parquet.read_table(shard)
    count = {"rows": 100, "a long text": 1, "texts": 60_000, "a long text in all": 60_000}[kind]
    text = "x" * {"rows": 1, "a long text": 3_000_000, "texts": 60_000, "a long text in all": 1_000_000}[kind]
    place = table.column_names.index("path")
    repeated = table.take(pa.array([0] * count))
    values = pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int32()), pa.array([text]))
    table = repeated.set_column(place, "path", values)
    if kind == "rows":  # 30 million would take the test a minute
        monkeypatch.setattr("treering_verify.report.audit.shard_reader.most_rows", lambda size: 99)
    parquet.write_table(table, shard, compression="zstd")
    assert shard.stat().st_size < 5_000_000
    with pytest.raises(UsageError, match=r"rows-000000\.parquet: .*(rows|text)"):
        write_report(folder, tmp_path / "r", "csv")
    assert not (tmp_path / "r").exists()
