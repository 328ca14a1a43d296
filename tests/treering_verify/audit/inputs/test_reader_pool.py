"""Reading, and reader processes: a file costs itself and nothing else."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from helpers.audits import audited, fill, noisy_image
from PIL import Image

from treering_verify.audit.inputs.reading import FAILED, SKIPPED, read_encoded, read_path, read_url, refused
from treering_verify.audit.inputs.urls import Access
from treering_verify.audit.output.rows import Row
from treering_verify.files import printable
from treering_verify.media.images import CODES

SIZE = (128, 128)


def by_name(rows: list[Row]) -> dict[str, Row]:
    assert len({row.path for row in rows}) == len(rows)
    return {Path(row.path).name: row for row in rows}


def test_a_reading_says_what_the_file_is(tmp_path: Path) -> None:
    image = noisy_image(1).convert("L").resize((200, 100))
    image.save(tmp_path / "wide.png")
    reading = read_path(str(tmp_path / "wide.png"), SIZE)
    data = (tmp_path / "wide.png").read_bytes()
    assert (reading.status, reading.width, reading.height, reading.mode, reading.bytes) == (
        "ok",
        200,
        100,
        "L",
        len(data),
    )
    assert reading.pixels is not None and reading.pixels.shape == (128, 128, 3) and "cropped" in reading.note
    again = read_encoded("x", data, SIZE)
    assert again.sha256 == reading.sha256 and (again.pixels == reading.pixels).all()


def test_magic_bytes_decide_and_not_suffixes(tmp_path: Path) -> None:
    noisy_image(1).save(tmp_path / "image.txt", format="PNG")
    (tmp_path / "text.png").write_text("a text")
    (tmp_path / "short.png").write_bytes((tmp_path / "image.txt").read_bytes()[:300])
    (tmp_path / "empty.png").touch()
    codes = {p.name: (r.status, r.code) for p in tmp_path.iterdir() if (r := read_path(str(p), SIZE))}
    assert codes == {
        "image.txt": ("ok", ""),
        "text.png": ("skipped", "not_an_image"),
        "short.png": ("error", "cut_short"),
        "empty.png": ("error", "empty"),
    }
    short = read_path(str(tmp_path / "short.png"), SIZE)
    assert (short.width, short.mode, len(short.sha256 or "")) == (128, "RGB", 64)  # what could be read is told


def test_what_is_no_file_is_skipped_and_never_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("fifo")
    (tmp_path / "folder").mkdir()
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as listener:
        listener.bind(str(tmp_path / "socket"))
        found = {p.name: read_path(str(p), SIZE) for p in tmp_path.iterdir()}
    assert {name: (r.status, r.code) for name, r in found.items()} == {
        "fifo": ("skipped", "fifo"),
        "link": ("skipped", "symlink"),
        "folder": ("skipped", "folder"),
        "socket": ("skipped", "socket"),
    }
    assert all(r.reason for r in found.values())
    assert read_path("/dev/null", SIZE).code == "device"
    assert read_path(str(tmp_path / "none"), SIZE).code == "not_found"
    assert read_path("a\0b", SIZE).status == "error"


def test_urls_are_opened_by_fsspec() -> None:
    import fsspec

    files = fsspec.filesystem("memory")
    with files.open("/audit/1.png", "wb") as file:
        noisy_image(1).save(file, format="PNG")
    files.pipe("/audit/text", b"no image")
    access = Access(("memory", "nonsense"))
    assert read_url("memory://audit/1.png", SIZE, access).status == "ok"
    assert read_url("memory://audit/text", SIZE, access).code == "not_an_image"
    assert read_url("memory://audit/none", SIZE, access).code == "not_found"
    unknown = read_url("nonsense://x", SIZE, access)
    assert unknown.code == "url_not_readable" and "nonsense" in unknown.reason


def test_no_code_means_two_things() -> None:
    assert {code for code, n in Counter([*SKIPPED, *FAILED, *CODES]).items() if n > 1} == {
        "not_an_image",
        "unread_format",
        "container",
        "video_file",
    }
    assert all(
        refused("x", code).status == ("skipped" if code in SKIPPED else "error") for code in {**SKIPPED, **FAILED}
    )


def test_a_file_that_harms_its_reader_costs_itself_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("treering_verify.audit.inputs.reader_pool._MODULE", "helpers.hostile.reader")
    good = [Path(path).name for path in fill(tmp_path / "in", 6)]
    for name in ("crash.png", "hang.png", "hungry.png", "once.png", "strange.png", "eio.png", "eacces.png"):
        noisy_image(hash(name) % 1000).save(tmp_path / "in" / name)
    rows = by_name(audited(tmp_path / "in", tmp_path / "out", seconds=2))
    assert {name: row.code for name, row in rows.items() if row.status != "ok"} == {
        "crash.png": "reader_crashed",
        "hang.png": "reader_timeout",
        "hungry.png": "reader_memory",
        "strange.png": "reader_failed",
        "eio.png": "not_readable",
        "eacces.png": "not_readable",
    }
    assert {name for name, row in rows.items() if row.status == "ok"} == {*good, "once.png"}  # one strike is forgiven
    assert "\x1b" not in rows["strange.png"].reason and printable("\x1b") in rows["strange.png"].reason
    assert "Input/output error" in rows["eio.png"].reason
    assert (tmp_path / "in" / "crash.png.tried").exists()


def test_a_module_in_the_audited_folder_is_never_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "in", 1)
    for name in ("numpy", "PIL", "json", "treering_verify"):
        (tmp_path / "in" / f"{name}.py").write_text(f"open({str(tmp_path / name)!r}, 'w')\nraise SystemExit(1)")
    monkeypatch.chdir(tmp_path / "in")
    assert by_name(audited("."))["000000.png"].status == "ok"
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


def test_readers_end_with_the_audit(tmp_path: Path) -> None:
    fill(tmp_path / "in", 12)
    rows = iter_rows(tmp_path / "in")
    next(rows)
    assert children()
    rows.close()  # type: ignore[attr-defined]
    assert not children()


def iter_rows(folder: Path) -> object:
    from helpers.audits import KEY

    from treering_verify.audit.folder import audit_folder
    from treering_verify.audit.inputs.reader_pool import Limits
    from treering_verify.audit.options import Options
    from treering_verify.benchmark.speed.null_model import NULL_INVERSION, NullModel

    options = Options(limits=Limits(readers=1), batch_size=2, shard_rows=2)
    return audit_folder(
        folder, KEY, model=NullModel(), inversion=NULL_INVERSION, output=f"{folder}-out", options=options
    )


def children() -> list[str]:
    listed = subprocess.run(
        ["ps", "-ww", "-o", "args=", "--ppid", str(os.getpid())], capture_output=True, text=True
    ).stdout
    return [line for line in listed.splitlines() if "reader_process" in line]


def test_an_image_of_the_wrong_size_is_judged_in_the_models_size(tmp_path: Path) -> None:
    Image.new("RGB", (40, 30), "red").save(tmp_path / "small.png")
    (row,) = audited(tmp_path)
    assert (row.status, row.width, row.height) == ("ok", 40, 30)
    assert stat.S_ISREG(os.stat(row.path).st_mode)
