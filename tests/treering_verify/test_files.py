"""Names that are safe to show, opening without waiting, and writes that are whole or not at all."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from treering_verify.errors import UsageError
from treering_verify.files import open_descriptor, opened_table, printable, write_atomic


def test_printable_keeps_every_script_and_escapes_what_a_terminal_obeys() -> None:
    assert printable("naïve 图像 🎉.png") == "naïve 图像 🎉.png"
    assert printable("\x1b\u202e\udcff\x7f\u200b") == r"\x1b\u202e\udcff\x7f\u200b"


def test_opening_never_waits_for_the_other_end_of_a_fifo(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    descriptor = open_descriptor(tmp_path / "fifo")
    try:
        assert stat.S_ISFIFO(os.fstat(descriptor).st_mode)
    finally:
        os.close(descriptor)


def test_a_new_file_has_the_permissions_asked_for_from_the_first_byte_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    fsync = os.fsync

    def record(descriptor: int) -> None:
        seen.append(os.fstat(descriptor).st_mode)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    write_atomic(tmp_path / "secret", b"data", mode=0o600)
    assert stat.S_IMODE(seen[0]) == stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out.bin"
    path.write_bytes(b"old")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="disk full"):
        patch.setattr(os, step, fail)
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(FileNotFoundError):
        write_atomic(tmp_path / "nowhere" / "out.bin", b"new")


@pytest.mark.parametrize("links", [True, False])
def test_an_exclusive_write_never_replaces(links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise PermissionError("no hard links on this file system")

    if not links:
        monkeypatch.setattr(os, "link", no_links)
    path = tmp_path / "key.json"
    write_atomic(path, b"first", mode=0o600, exclusive=True)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(FileExistsError):
        write_atomic(path, b"second", exclusive=True)
    (tmp_path / "dangling").symlink_to(tmp_path / "target")
    with pytest.raises(FileExistsError):
        write_atomic(tmp_path / "dangling", b"second", exclusive=True)
    assert path.read_bytes() == b"first"
    assert {p.name for p in tmp_path.iterdir()} == {"key.json", "dangling"}


def test_writing_follows_links_and_refuses_what_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write_atomic(tmp_path / "link", b"data")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"data"
    os.mkfifo(tmp_path / "fifo")
    for target in (tmp_path, tmp_path / "fifo"):
        with pytest.raises(UsageError, match="regular file"):
            write_atomic(target, b"data")


def test_process_that_read_a_table_ends_cleanly(tmp_path: Path) -> None:
    """Given files that Python opened, pyarrow's threads abort most of such processes as they end."""
    pyarrow.parquet.write_table(
        pyarrow.table({name: list(range(15)) for name in "abcdefghijklmnop"}), tmp_path / "a.parquet"
    )
    script = (
        "import sys, pyarrow.parquet\n"
        "from treering_verify.files import opened_table\n"
        "with opened_table(sys.argv[1]) as opened, pyarrow.parquet.ParquetFile(opened) as file:\n"
        "    assert file.read(use_threads=False).num_rows == 15\n"
    )
    for _ in range(6):
        subprocess.run([sys.executable, "-c", script, str(tmp_path / "a.parquet")], check=True, timeout=120)


def test_table_is_read_without_python(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.table({"a": [1]}), tmp_path / "2026-01-01T12:30.parquet")
    with opened_table(tmp_path / "2026-01-01T12:30.parquet") as opened:
        assert isinstance(opened, pyarrow.OSFile)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError, match="not a regular file"), opened_table(tmp_path / "fifo"):
        pass
