"""An audit as a whole: every input has one row, whatever happens to files, disk and process."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
from audits import KEY, audited, essence, fill, run_to_the_end, stored
from click.testing import CliRunner

import treering_verify as tv
from treering_verify.audit import engine, shards
from treering_verify.audit.cache import NAME as CACHE
from treering_verify.audit.judging import judge_batch
from treering_verify.audit.null import NullModel
from treering_verify.audit.plan import Plan
from treering_verify.audit.rows import schema
from treering_verify.audit.sources import Inputs
from treering_verify.cli import main
from treering_verify.errors import UsageError
from treering_verify.files import write_atomic

LEDGER = Path("state") / "shards.jsonl"


def summary(output: Path) -> dict[str, Any]:
    return json.loads((output / "summary.json").read_text())


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the list, kept up to date, of the paths that went through the model."""
    seen: list[str] = []

    def counting(judge: Any, readings: Any) -> Any:
        seen.extend(reading.path for reading in readings)
        return judge_batch(judge, readings)

    monkeypatch.setattr("treering_verify.audit.judging.judge_batch", counting)
    return seen


def test_every_input_has_one_row_in_order_and_the_summary_counts_them(tmp_path: Path) -> None:
    paths = fill(tmp_path / "in", 7)
    (tmp_path / "in" / "note.txt").write_text("no image")
    (tmp_path / "in" / "torn.png").write_bytes(Path(paths[0]).read_bytes()[:200])
    (tmp_path / "in" / "link").symlink_to(paths[0])
    (tmp_path / "in" / "cafe\udce9.png").write_bytes(Path(paths[1]).read_bytes())
    output = tmp_path / "out"
    rows = audited(tmp_path / "in", output, shard_rows=4)
    names = [os.path.basename(row.path) for row in rows]
    assert names == [*(os.path.basename(p) for p in paths), "cafe\udce9.png", "link", "note.txt", "torn.png"]
    assert [row.status for row in rows] == ["ok"] * 8 + ["skipped"] * 2 + ["error"]
    assert [p.name for p in shards.shard_files(output)] == [f"rows-00000{i}.parquet" for i in range(3)]
    assert stored(output) == rows
    found = summary(output)
    assert found["finished"] and found["files"] == 11
    assert found["status"] == {"error": 1, "ok": 8, "skipped": 2} and found["verdict"] == {"no evidence": 8}
    assert found["code"] == {"corrupt": 1, "not_an_image": 1, "symlink": 1}
    assert found["expected_false_positives"] == pytest.approx(8e-6)
    assert found["keys"] == [{"name": KEY.name, "fingerprint": KEY.fingerprint}]
    assert {row.settings_id for row in rows} == {found["settings_id"]}
    for path in shards.shard_files(output):
        assert pyarrow.parquet.read_schema(path).remove_metadata().equals(schema())


def test_the_package_offers_it() -> None:
    from treering_verify.audit.folder import audit_folder

    assert tv.audit_folder is audit_folder


def test_without_an_output_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    fill(tmp_path / "in", 3)
    assert len(audited(tmp_path / "in")) == 3
    assert os.listdir(tmp_path / "temporary") == []


def test_pictures_of_the_same_content_are_judged_once(tmp_path: Path, judged: list[str]) -> None:
    first = fill(tmp_path / "in", 2)
    for i in range(40):
        shutil.copy(first[i % 2], tmp_path / "in" / f"copy-{i:02d}.png")
    rows = audited(tmp_path / "in", tmp_path / "out", shard_rows=5)
    assert judged == first and len(rows) == 42
    assert len({row.sha256 for row in rows}) == len({row.log10_pvalue for row in rows}) == 2


def test_an_empty_folder_is_an_audit_of_nothing(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    assert audited(tmp_path / "in", tmp_path / "out", q_values=True) == []
    assert summary(tmp_path / "out")["files"] == 0 and summary(tmp_path / "out")["finished"]


def test_a_finished_audit_is_not_done_again(tmp_path: Path, judged: list[str]) -> None:
    fill(tmp_path / "in", 5)
    first = audited(tmp_path / "in", tmp_path / "out", shard_rows=2)
    before = {p: p.stat().st_mtime_ns for p in shards.shard_files(tmp_path / "out")}
    judged.clear()
    assert audited(tmp_path / "in", tmp_path / "out", shard_rows=2) == first
    assert judged == [] and {p: p.stat().st_mtime_ns for p in shards.shard_files(tmp_path / "out")} == before


@pytest.mark.parametrize("damage", ["flipped", "cut", "gone", "foreign", "ledger"])
def test_a_damaged_shard_is_done_again_and_no_other(tmp_path: Path, judged: list[str], damage: str) -> None:
    paths = fill(tmp_path / "in", 6)
    output = tmp_path / "out"
    first = audited(tmp_path / "in", output, shard_rows=2)
    victim = output / "rows-000001.parquet"
    data = victim.read_bytes()
    if damage == "flipped":
        victim.write_bytes(data[:100] + bytes([data[100] ^ 1]) + data[101:])
    elif damage == "cut":
        victim.write_bytes(data[:-50])
    elif damage == "gone":
        victim.unlink()
    elif damage == "foreign":
        shutil.copy(output / "rows-000000.parquet", victim)
    else:
        lines = (output / LEDGER).read_bytes().split(b"\n\n")
        (output / LEDGER).write_bytes(b"\n\n".join([lines[0], lines[1][:40], lines[2]]))
    judged.clear()
    assert essence(audited(tmp_path / "in", output, shard_rows=2)) == essence(stored(output)) == essence(first)
    assert sorted(judged) == paths[2:4]


def test_other_settings_are_refused_by_name_and_overwritten_on_request_only(tmp_path: Path) -> None:
    fill(tmp_path / "in", 2)
    output = tmp_path / "out"
    first = audited(tmp_path / "in", output)
    with pytest.raises(UsageError, match="shard_rows was 1000 and is 5"):
        audited(tmp_path / "in", output, shard_rows=5)
    with pytest.raises(UsageError, match=r"inputs was .* and is .*--overwrite"):
        audited(tmp_path, output)
    with pytest.raises(UsageError, match=r"alpha was 1e-06 and is 0\.001"):
        list(tv.audit_folder(tmp_path / "in", KEY, model=NullModel(), alpha=1e-3, output=output))
    assert stored(output) == first
    assert len(audited(tmp_path / "in", output, shard_rows=1, overwrite=True)) == 2
    assert len(shards.shard_files(output)) == 2


def test_a_folder_of_something_else_is_never_written_to(tmp_path: Path) -> None:
    fill(tmp_path / "in", 1)
    for overwrite in (False, True):
        with pytest.raises(UsageError, match="something else"):
            audited(tmp_path / "in", tmp_path / "in", overwrite=overwrite)
    assert os.listdir(tmp_path / "in") == ["000000.png"]


def test_the_output_may_lie_in_the_folder(tmp_path: Path) -> None:
    fill(tmp_path / "in", 2)
    for _ in range(2):
        assert len(audited(tmp_path / "in", tmp_path / "in" / "out")) == 2


def test_two_audits_on_one_output_refuse_each_other(tmp_path: Path) -> None:
    with shards.Store(tmp_path / "out", {"a": 1}, "s"), pytest.raises(UsageError, match="another audit"):
        shards.Store(tmp_path / "out", {"a": 1}, "s", overwrite=True)
    with shards.Store(tmp_path / "out", {"a": 1}, "s"):
        pass


def test_q_values_are_those_of_benjamini_and_hochberg(tmp_path: Path, judged: list[str]) -> None:
    fill(tmp_path / "in", 9)
    (tmp_path / "in" / "text").write_text("no image")
    audited(tmp_path / "in", tmp_path / "out", shard_rows=4)
    judged.clear()
    for _ in range(2):
        audited(tmp_path / "in", tmp_path / "out", shard_rows=4, q_values=True)
    rows = stored(tmp_path / "out")
    assert judged == [] and rows[-1].q_value is None
    pvalues = np.array([row.pvalue_adjusted for row in rows[:-1]])
    order = np.argsort(pvalues)
    steps = pvalues[order] * len(pvalues) / np.arange(1, len(pvalues) + 1)
    expected = np.empty_like(pvalues)
    expected[order] = np.minimum(1, np.minimum.accumulate(steps[::-1])[::-1])
    assert [row.q_value for row in rows[:-1]] == pytest.approx(expected)
    assert pyarrow.parquet.read_schema(tmp_path / "out" / "rows-000000.parquet").remove_metadata().equals(schema(True))


# --- what changes between two runs ------------------------------------------------------------------------------------


def test_a_complete_plan_is_frozen_new_files_wait_and_lost_files_get_a_row(tmp_path: Path) -> None:
    paths = fill(tmp_path / "in", 4)
    output = tmp_path / "out"
    audited(tmp_path / "in", output, shard_rows=2)
    shards.shard_files(output)[1].unlink()
    fill(tmp_path / "in", 1, first=99)
    Path(paths[3]).unlink()
    rows = audited(tmp_path / "in", output, shard_rows=2)
    assert [(row.path, row.code) for row in rows] == [*((p, "") for p in paths[:3]), (paths[3], "not_found")]


def test_a_walk_that_was_cut_short_keeps_the_shards_whose_inputs_are_the_same(
    tmp_path: Path, judged: list[str]
) -> None:
    paths = fill(tmp_path / "in", 9)
    output = tmp_path / "out"
    audited(tmp_path / "in", output, shard_rows=3)
    (output / "state" / "plan.json").unlink()  # as if killed during the walk
    for path in paths[4:]:
        Path(path).unlink()
    judged.clear()
    rows = audited(tmp_path / "in", output, shard_rows=3)
    assert [row.path for row in rows] == paths[:4] and judged == paths[3:4]
    assert len(shards.shard_files(output)) == 2  # the third is of inputs that are no more


def test_a_damaged_plan_is_refused(tmp_path: Path) -> None:
    fill(tmp_path / "in", 2)
    audited(tmp_path / "in", tmp_path / "out")
    plan = tmp_path / "out" / "state" / "plan"
    plan.write_bytes(b"x" * plan.stat().st_size)
    shards.shard_files(tmp_path / "out")[0].unlink()
    with pytest.raises(UsageError, match="plan is damaged"):
        audited(tmp_path / "in", tmp_path / "out")


def test_inputs_that_cannot_be_listed_are_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read the list"):
        audited(Inputs(lists=(str(tmp_path / "none"),)), tmp_path / "out")


def test_a_plan_says_what_it_holds_while_it_is_made(tmp_path: Path) -> None:
    paths = fill(tmp_path / "in", 5)
    (tmp_path / "state" / "scratch").mkdir(parents=True)
    for _ in range(2):  # made, then read
        with Plan(tmp_path / "state", Inputs((str(tmp_path / "in"),)), 2) as plan:
            found: list[str] = []
            while True:
                if chunk := plan.next_chunk():
                    found += [entry.path for entry in plan.read(chunk[1])]
                elif plan.complete:
                    break
            assert found == paths and plan.total == 5


# --- faults -----------------------------------------------------------------------------------------------------------


def killed_and_resumed(tmp_path: Path, count: int, kills: int, seed: int) -> None:
    """Kill audits at random points until that many have died, then let one finish, and compare with an undisturbed one."""
    paths = fill(tmp_path / "in", count)
    (tmp_path / "in" / "torn.png").write_bytes(Path(paths[0]).read_bytes()[:200])
    (tmp_path / "in" / "zz").write_text("no image")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "audits", "treering_verify.audit.folder"])
    for target, arguments in ((int, ()), (run_to_the_end, (str(tmp_path / "in"), str(tmp_path / "undisturbed")))):
        started = time.monotonic()  # of the second: the first waits for the server's imports
        undisturbed = context.Process(target=target, args=arguments)
        undisturbed.start()
        undisturbed.join()
        took = time.monotonic() - started
        assert undisturbed.exitcode == 0
    generator, output, died = random.Random(seed), tmp_path / "out", 0
    while died < kills:
        audit = context.Process(target=run_to_the_end, args=(str(tmp_path / "in"), str(output)))
        audit.start()
        audit.join(generator.uniform(0, took))
        audit.kill()
        audit.join()
        died += audit.exitcode != 0
        if audit.exitcode == 0 and died < kills:
            shutil.rmtree(output)  # begin anew: there is nothing left to kill
    audited(tmp_path / "in", output, shard_rows=10)
    rows = stored(output)
    assert essence(rows) == essence(stored(tmp_path / "undisturbed"))
    found = summary(output)
    assert sum(found["status"].values()) == found["files"] == len(rows) == count + 2 and found["finished"]
    assert not [p for folder in (output, output / "state") for p in folder.iterdir() if p.name.endswith(".tmp")]


def test_killed_audits_go_on_and_lose_no_row(tmp_path: Path) -> None:
    killed_and_resumed(tmp_path, count=30, kills=3, seed=1)


@pytest.mark.slow
def test_fifty_killed_audits_go_on_and_lose_no_row(tmp_path: Path) -> None:
    killed_and_resumed(tmp_path, count=150, kills=50, seed=2)


def test_after_a_kill_no_judged_image_is_judged_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = fill(tmp_path / "in", 8)
    seen: list[str] = []

    def failing(judge: Any, readings: Any) -> Any:
        if len(seen) == 4:
            raise SystemExit  # where a kill would have come
        seen.extend(reading.path for reading in readings)
        return judge_batch(judge, readings)

    monkeypatch.setattr("treering_verify.audit.judging.judge_batch", failing)
    with pytest.raises(SystemExit):
        audited(tmp_path / "in", tmp_path / "out", batch_size=2)
    assert not summary(tmp_path / "out")["finished"] and not shards.shard_files(tmp_path / "out")
    seen.append("")
    audited(tmp_path / "in", tmp_path / "out", batch_size=2)
    assert sorted(path for path in seen if path) == paths  # the shard was dropped, its answers were not


def test_a_full_disk_ends_the_audit_with_advice_and_more_space_lets_it_go_on(tmp_path: Path) -> None:
    fill(tmp_path / "in", 60)
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=160k", "tmpfs", str(small)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no small file system can be mounted here: {mounted.stderr.decode().strip()}")
    try:
        with pytest.raises(UsageError, match="free space"):
            audited(tmp_path / "in", small / "out", shard_rows=2)
        left = len(shards.shard_files(small / "out"))
        for path in shards.shard_files(small / "out"):
            assert pyarrow.parquet.read_table(path).num_rows == 2  # whole, or not there
        subprocess.run(["mount", "-o", "remount,size=20m", str(small)], check=True)
        assert len(audited(tmp_path / "in", small / "out", shard_rows=2)) == 60
        assert 0 < left < 30
        assert not [p for p in (small / "out").iterdir() if p.name.endswith(".tmp")]
    finally:
        subprocess.run(["umount", str(small)], check=True)


@pytest.mark.parametrize("what", ["rows-000001.parquet", "summary.json"])
def test_an_output_that_cannot_be_written_is_said_and_what_is_there_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    fill(tmp_path / "in", 6)

    def failing(path: Path, data: bytes) -> None:
        if Path(path).name == what and shards.shard_files(tmp_path / "out"):
            raise OSError(5, "Input/output error")
        write_atomic(path, data)

    with monkeypatch.context() as patched:
        patched.setattr(shards, "write_atomic", failing)
        with pytest.raises(UsageError, match="Input/output error; what is finished there is kept"):
            audited(tmp_path / "in", tmp_path / "out", shard_rows=2)
    assert (tmp_path / "out" / "rows-000000.parquet").exists()
    assert len(audited(tmp_path / "in", tmp_path / "out", shard_rows=2)) == 6


def test_a_damaged_cache_costs_time_only(tmp_path: Path) -> None:
    fill(tmp_path / "in", 4)
    output = tmp_path / "out"
    first = audited(tmp_path / "in", output, shard_rows=2)
    shards.shard_files(output)[0].unlink()
    (output / "state" / CACHE).write_bytes(b"this is no database, although it is long enough to be taken for one" * 50)
    assert essence(audited(tmp_path / "in", output, shard_rows=2)) == essence(first)


def test_a_stopped_audit_keeps_what_is_finished(tmp_path: Path) -> None:
    import threading

    from treering_verify.audit.judging import Judge
    from treering_verify.audit.null import NULL_PIPELINE
    from treering_verify.audit.readers import Limits

    fill(tmp_path / "in", 12)
    judge, stop = Judge.of(KEY, NullModel(), 1e-6, NULL_PIPELINE), threading.Event()
    options = engine.Options(limits=Limits(readers=1), batch_size=2, shard_rows=2)
    run = engine.run_audit(Inputs((str(tmp_path / "in"),)), judge, tmp_path / "out", options, stop=stop)
    next(run)
    stop.set()
    with pytest.raises(KeyboardInterrupt):
        list(run)
    found = summary(tmp_path / "out")
    assert not found["finished"] and 2 <= found["files"] < 12
    assert len(audited(tmp_path / "in", tmp_path / "out", shard_rows=2, batch_size=2)) == 12


def test_memory_does_not_hold_the_pictures_of_a_folder_of_copies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = 0
    take = engine._Run._take

    def watched(run: Any, task: Any, reading: Any) -> Iterator[Any]:
        nonlocal most
        yield from take(run, task, reading)
        most = max(most, sum(r.pixels is not None for group in run._waiting.values() for _, r in group))
        assert sum(map(len, run._waiting.values())) <= 4 * 4

    monkeypatch.setattr(engine._Run, "_take", watched)
    first = fill(tmp_path / "in", 1)
    for i in range(60):
        shutil.copy(first[0], tmp_path / "in" / f"copy-{i:02d}.png")
    assert len(audited(tmp_path / "in")) == 61 and most == 1


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    KEY.save(tmp_path / "canary.key.json")
    return tmp_path / "canary.key.json"


PROGRAM = """
import sys
import treering_verify.models, treering_verify.verification as verification
from treering_verify.audit.null import NULL_PIPELINE, NullModel
treering_verify.models.load_model = lambda name: NullModel()
from treering_verify.cli import main
main(["audit", *sys.argv[1:], "--inversion", "encoder", "--steps", "0", "--readers", "1"])
"""


def command(*arguments: object, **options: Any) -> subprocess.Popen[bytes]:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.Popen([sys.executable, "-c", PROGRAM, *map(str, arguments)], **pipes)


def test_no_number_of_a_key_is_in_any_output(tmp_path: Path, key_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "in", 5)
    shutil.copy(key_file, tmp_path / "in" / "a-key-among-the-files.json")
    monkeypatch.setattr("treering_verify.audit.cache.remove", lambda folder: None)
    output, log = tmp_path / "out", tmp_path / "log"
    audited(tmp_path / "in", output, shard_rows=2, q_values=True)
    again = command(
        tmp_path / "in", "--keys", key_file, "--output", tmp_path / "cli", "--log-file", log, "--shard-rows", 2
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
    options = ("--keys", key_file, "--files-from", "-", "--null")
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
        "--keys",
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
    assert "2 no evidence" in results[2].stdout and "expected by chance: 2e-06" in results[2].stdout


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_signal_ends_the_command_after_a_checkpoint(tmp_path: Path, key_file: Path, number: int) -> None:
    fill(tmp_path / "in", 300)
    output = tmp_path / "out"
    options = (tmp_path / "in", "--keys", key_file, "--output", output, "--shard-rows", 5, "--batch-size", 1)
    run = command(*options)
    while not shards.shard_files(output) if output.exists() else True:
        assert run.poll() is None
        time.sleep(0.02)
    run.send_signal(number)
    stdout, stderr = run.communicate()
    assert (run.returncode, stdout) == (130, b"") and b"Traceback" not in stderr and b"Interrupted" in stderr
    assert not summary(output)["finished"] and 0 < len(shards.shard_files(output)) < 60


def test_a_request_without_inputs_is_refused(tmp_path: Path, key_file: Path) -> None:
    result = CliRunner().invoke(main, ["audit", "--keys", str(key_file), "--output", str(tmp_path / "out")])
    assert result.exit_code == 2 and "--files-from" in result.stderr and not (tmp_path / "out").exists()
