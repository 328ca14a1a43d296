"""`treering audit`: its input, its output, its exit codes, and what never shows in it."""

from __future__ import annotations

import json
import os
import pkgutil
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
from click.testing import CliRunner, Result
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


MOMENTS = {  # what is called then, which call of it is interrupted (-1: once all is judged), and by which signals
    "while files are read": ("treering_verify.audit.inputs.reader_pool.ReaderPool._assign", 1, (signal.SIGTERM,)),
    "while a batch is judged": ("treering_verify.audit.judge.judge_batch", 3, (signal.SIGINT,)),
    "twice, in a batch": ("treering_verify.audit.judge.judge_batch", 3, (signal.SIGTERM, signal.SIGINT)),
    "in the second pass": ("treering_verify.detection.two_pass.recover_noise", 1, (signal.SIGHUP,)),
    "while rows are written": ("treering_verify.audit.output.store.Store.write_part", 1, (signal.SIGINT,)),
    "while the last page is made": ("treering_verify.report.audit.digest.gather", -1, (signal.SIGTERM,)),
    "while the model is loaded": ("treering_verify.models.load_model", 1, (signal.SIGTERM,)),
}
SLOW_MOMENTS = ("while a batch is judged", "while rows are written", "while the model is loaded")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    fill(folder / "in", 12)
    KEY.save(folder / "canary.key.json")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("treering_verify.models.load_model", lambda name: NullModel())
        assert audit_in_two_passes(folder, folder / "out").exit_code == 0
    return folder


def audit_in_two_passes(folder: Path, output: Path) -> Result:
    options = "--steps 0 --inversion encoder --readers 1 --batch-size 2 --shard-rows 8 --search off --screening on"
    names = str(folder / "in"), "--key", str(folder / "canary.key.json"), "--output", str(output)
    return CliRunner().invoke(main, ["audit", *names, *options.split()])


@pytest.mark.parametrize(
    "moment", [pytest.param(one, marks=[pytest.mark.slow] * (one in SLOW_MOMENTS)) for one in MOMENTS]
)
def test_a_signal_at_any_moment_leaves_an_audit_that_goes_on(
    tmp_path: Path, undisturbed: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    monkeypatch.setattr("treering_verify.models.load_model", lambda name: NullModel())
    output = tmp_path / "out"
    name, which, numbers = MOMENTS[moment]
    calls, function = [], pkgutil.resolve_name(name)

    def interrupted(*arguments: Any, **more: Any) -> Any:
        calls.append(name)
        if len(calls) == which or (which < 0 and summary(output)["finished"]):
            for number in numbers:
                os.kill(os.getpid(), number)
        return function(*arguments, **more)

    with monkeypatch.context() as patched:
        patched.setattr(name, interrupted)
        stopped = audit_in_two_passes(undisturbed, output)
    if which < 0:  # nothing is left to do but the page, which is made to its end
        assert calls and stopped.exit_code == 0 and "Stopping" in stopped.stderr
        assert b'"refresh"' not in (output / "report.html").read_bytes()
    else:
        assert calls and stopped.exit_code == 130 and "Interrupted" in stopped.stderr, stopped.output
    kept = stored_records(output)
    assert len(kept) >= {1: 0, 3: 3, -1: 12}[which], "what was judged is written"
    assert which < 0 or not kept or not summary(output)["finished"]
    assert audit_in_two_passes(undisturbed, output).exit_code == 0
    assert stored_records(output) == stored_records(undisturbed / "out")
    assert summary(output)["finished"] and b'"refresh"' not in (output / "report.html").read_bytes()
    assert not list(output.rglob("*.tmp"))


def stored_records(output: Path) -> list[dict[str, Any]]:
    """Return all rows, those of unfinished shards too, without times."""
    found = [record for path in sorted(output.glob("rows-*.parquet")) for record in records(path)]
    return [{name: value for name, value in record.items() if name != "seconds"} for record in found]


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
