"""`treering audit`: its input, its output, its exit codes, and what never shows in it."""

from __future__ import annotations

import json
import shutil
import signal
import struct
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
from click.testing import CliRunner
from helpers.audits import KEY, audited, command, fill, summary

from treering_verify.audit.output import store as shards
from treering_verify.audit.output.cache import NAME as CACHE
from treering_verify.benchmark.speed.null_model import NullModel
from treering_verify.cli.main import main


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    KEY.save(tmp_path / "canary.key.json")
    return tmp_path / "canary.key.json"


def test_no_number_of_a_key_is_in_any_output(tmp_path: Path, key_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "in", 5)
    shutil.copy(key_file, tmp_path / "in" / "a-key-among-the-files.json")
    monkeypatch.setattr("treering_verify.audit.output.cache.remove", lambda folder: None)
    output, log = tmp_path / "out", tmp_path / "log"
    audited(tmp_path / "in", output, shard_rows=2, q_values=True)
    again = command(
        tmp_path / "in", "--key", key_file, "--output", tmp_path / "cli", "--log-file", log, "--shard-rows", 2
    )
    stdout, stderr = again.communicate()
    assert again.returncode == 0 and b"no evidence" in stdout and log.read_text().count("shard") == 3
    written = [p for folder in (output, tmp_path / "cli") for p in folder.rglob("*") if p.is_file()]
    assert any(p.name == CACHE for p in written) and len(written) >= 14
    content = [stdout, stderr, log.read_bytes(), *(p.read_bytes() for p in written)]
    content += [json.dumps(r, default=repr).encode() for p in written if p.suffix == ".parquet" for r in records(p)]
    haystack = b"\n".join(content)
    for number in KEY.numbers.tolist():
        packed = [struct.pack(form, number) for form in ("<d", ">d", "<f")]
        assert not any(needle in haystack for needle in [*packed[:2], repr(abs(number)).encode()])
    floats = np.float32(KEY.numbers[:8]).tobytes()
    assert floats not in haystack and np.float16(KEY.numbers[:8]).tobytes() not in haystack


def records(path: Path) -> list[dict[str, Any]]:
    return pyarrow.parquet.read_table(path).to_pylist()


def test_the_command_reads_stdin_and_exits_as_it_says(tmp_path: Path, key_file: Path) -> None:
    paths = fill(tmp_path / "in", 2)
    bad = tmp_path / "in" / "torn.png"
    bad.write_bytes(Path(paths[0]).read_bytes()[:200])
    options = ("--key", key_file, "--files-from", "-", "--null")
    run = command(*options, "--output", tmp_path / "a", "--format", "json", stdin=subprocess.PIPE)
    stdout, _ = run.communicate("\0".join([*paths, str(bad)]).encode())
    assert run.returncode == 3  # a file could not be judged
    assert json.loads(stdout) == summary(tmp_path / "a") and json.loads(stdout)["files"] == 3


def test_the_command_finds_what_it_is_told_to_fail_on(
    tmp_path: Path, key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("treering_verify.models.load_model", lambda name: NullModel())
    fill(tmp_path / "in", 2)
    options = [
        "audit",
        str(tmp_path / "in"),
        "--key",
        str(key_file),
        "--output",
        str(tmp_path / "out"),
        "--steps",
        "0",
    ]
    options += ["--inversion", "encoder", "--readers", "1"]
    results = [
        CliRunner().invoke(main, [*options, *more])
        for more in (["--quiet"], ["--quiet", "--fail-on", "no-evidence"], ["--fail-on", "detected"])
    ]
    assert [(result.exit_code, bool(result.output)) for result in results] == [(0, False), (1, False), (0, True)]
    assert "2 no evidence" in results[2].stdout and "by chance: 2e-06 on average" in results[2].stdout


@pytest.mark.parametrize(
    "number", [signal.SIGHUP, *(pytest.param(each, marks=pytest.mark.slow) for each in (signal.SIGTERM, signal.SIGINT))]
)
def test_a_signal_ends_the_command_after_a_checkpoint(tmp_path: Path, key_file: Path, number: int) -> None:
    fill(tmp_path / "in", 300)
    output = tmp_path / "out"
    options = (tmp_path / "in", "--key", key_file, "--output", output, "--shard-rows", 5, "--batch-size", 1)
    run = command(*options)
    while not shards.shard_files(output) if output.exists() else True:
        assert run.poll() is None
        time.sleep(0.02)
    run.send_signal(number)
    stdout, stderr = run.communicate()
    assert (run.returncode, stdout) == (130, b"") and b"Traceback" not in stderr and b"Interrupted" in stderr
    assert not summary(output)["finished"] and 0 < len(shards.shard_files(output)) < 60


def test_a_request_without_inputs_is_refused(tmp_path: Path, key_file: Path) -> None:
    result = CliRunner().invoke(main, ["audit", "--key", str(key_file), "--output", str(tmp_path / "out")])
    assert result.exit_code == 2 and "--files-from" in result.stderr and not (tmp_path / "out").exists()


def test_images_that_are_not_read_are_counted_apart_and_can_fail_the_command(
    tmp_path: Path, key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("treering_verify.models.load_model", lambda name: NullModel())
    fill(tmp_path / "in", 1)
    (tmp_path / "in" / "photo.exr").write_bytes(b"\x76\x2f\x31\x01" + bytes(20))
    (tmp_path / "in" / "report.pdf").write_bytes(b"%PDF-1.7\n")
    (tmp_path / "in" / "notes.txt").write_text("notes")
    options = ["--key", str(key_file), "--readers", "1", "--inversion", "encoder", "--steps", "0"]
    for extra, code in (([], 0), (["--fail-on", "unread"], 1)):
        output = tmp_path / f"out{code}"
        run = CliRunner().invoke(main, ["audit", str(tmp_path / "in"), "--output", str(output), *options, *extra])
        assert run.exit_code == code, run.output
        assert "not read: 2 files that hold images" in run.output
        assert summary(output)["code"] == {"container": 1, "not_an_image": 1, "unread_format": 1}
    (reason,) = (
        r["reason"] for r in records(tmp_path / "out0" / "rows-000000.parquet") if r["code"] == "unread_format"
    )
    assert "OpenEXR" in reason and "convert it" in reason
