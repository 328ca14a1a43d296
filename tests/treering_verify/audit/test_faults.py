"""What happens to an audit: kills, full and failing disks, damage, stops. No row is lost or doubled."""

from __future__ import annotations

import errno
import multiprocessing
import os
import random
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from click.testing import CliRunner
from helpers.audits import KEY, audited, essence, fill, run_to_the_end, stored, summary

from treering_verify.audit import engine
from treering_verify.audit.batcher import Batcher
from treering_verify.audit.inputs.reader_pool import Limits
from treering_verify.audit.inputs.sources import Inputs
from treering_verify.audit.judge import AuditJudge, judge_batch
from treering_verify.audit.options import Options
from treering_verify.audit.output import store as shards
from treering_verify.audit.output.cache import NAME as CACHE
from treering_verify.audit.output.rows import from_table
from treering_verify.benchmark.speed.null_model import NULL_INVERSION, NullModel
from treering_verify.cli.audit import _logged
from treering_verify.cli.main import main
from treering_verify.errors import UsageError
from treering_verify.files import write_atomic


def judge_of() -> AuditJudge:
    return AuditJudge.of([KEY], NullModel(), 1e-6, NULL_INVERSION, None, "off")


def killed_and_resumed(tmp_path: Path, count: int, kills: int, seed: int) -> None:
    """Kill audits at random points until that many have died, then let one finish, and compare with an undisturbed one."""
    paths = fill(tmp_path / "in", count)
    (tmp_path / "in" / "torn.png").write_bytes(Path(paths[0]).read_bytes()[:200])
    (tmp_path / "in" / "zz").write_text("no image")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "helpers.audits", "treering_verify.audit.folder"])
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
        if len(seen) in (4, 5):
            raise SystemExit  # where a kill would have come
        seen.extend(reading.path for reading in readings)
        return judge_batch(judge, readings)

    monkeypatch.setattr("treering_verify.audit.judge.judge_batch", failing)
    with pytest.raises(SystemExit):
        audited(tmp_path / "in", tmp_path / "out", batch_size=2)
    assert not summary(tmp_path / "out")["finished"] and not shards.shard_files(tmp_path / "out")
    (part,) = shards.part_files(tmp_path / "out")
    assert [row.path for row in from_table(pyarrow.parquet.read_table(part))] == seen and len(seen) == 5
    seen.append("")
    audited(tmp_path / "in", tmp_path / "out", batch_size=2)
    assert not shards.part_files(tmp_path / "out")
    assert sorted(path for path in seen if path) == paths  # the shard was dropped, its answers were not


def test_a_full_disk_ends_the_audit_with_advice_and_more_space_lets_it_go_on(tmp_path: Path) -> None:
    fill(tmp_path / "in", 60)
    if shutil.which("mount") is None:
        pytest.skip("no program mounts a small file system here")
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(small)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no small file system can be mounted here, run as root: {mounted.stderr.decode().strip()}")
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
        with pytest.raises(UsageError, match="Input/output error; what is finished there stays"):
            audited(tmp_path / "in", tmp_path / "out", shard_rows=2)
    assert (tmp_path / "out" / "rows-000000.parquet").exists()
    assert len(audited(tmp_path / "in", tmp_path / "out", shard_rows=2)) == 6


def test_an_output_that_is_deleted_meanwhile_is_named_and_nothing_untrue_is_said(tmp_path: Path) -> None:
    fill(tmp_path / "in", 12)
    output = tmp_path / "out"
    run = engine.run_audit(
        Inputs((str(tmp_path / "in"),)), judge_of(), output, Options(Limits(readers=1), batch_size=2, shard_rows=2)
    )
    next(run)
    shutil.rmtree(output)
    with pytest.raises(UsageError, match="out was deleted, or a part of it") as caught:
        list(run)
    assert "stays" not in str(caught.value) and str(output) in str(caught.value)


def test_a_full_disk_is_told_by_the_path_and_a_missing_permission_otherwise(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "lock").touch()
    full = shards.unwritable(tmp_path, OSError(errno.ENOSPC, "No space left on device"))
    denied = shards.unwritable(tmp_path, PermissionError(errno.EACCES, "Permission denied"))
    assert all(str(tmp_path) in text and "stays" in text for text in (full, denied))
    assert "permissions" in denied and "permissions" not in full


def test_nobody_else_may_write_to_an_audits_folder_under_a_umask_of_0(tmp_path: Path) -> None:
    fill(tmp_path / "in", 4)
    before = os.umask(0)
    try:
        audited(tmp_path / "in", tmp_path / "made" / "out", shard_rows=2)
        with _logged(tmp_path / "log"):
            pass
    finally:
        os.umask(before)
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o644
    found = [tmp_path / "made" / "out", *(tmp_path / "made" / "out").rglob("*")]
    assert len(found) > 6
    assert {path.name: oct(path.stat().st_mode) for path in found if path.stat().st_mode & 0o022} == {}


def test_a_second_audit_of_an_output_is_refused_before_its_model_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    KEY.save(tmp_path / "my.key.json")
    fill(tmp_path / "in", 1)

    def refuse(*_: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("treering_verify.models.load_model", refuse)
    options = [str(tmp_path / "in"), "--key", str(tmp_path / "my.key.json"), "--output", str(tmp_path / "out")]
    with shards.Store(tmp_path / "out", {}, "x"):
        done = CliRunner().invoke(main, ["audit", *options])
    assert done.exit_code == 2 and "another audit is writing to" in done.stderr


def test_a_damaged_cache_costs_time_only(tmp_path: Path) -> None:
    fill(tmp_path / "in", 4)
    output = tmp_path / "out"
    first = audited(tmp_path / "in", output, shard_rows=2)
    shards.shard_files(output)[0].unlink()
    (output / "state" / CACHE).write_bytes(b"this is no database, although it is long enough to be taken for one" * 50)
    assert essence(audited(tmp_path / "in", output, shard_rows=2)) == essence(first)


def test_a_stopped_audit_keeps_what_is_finished(tmp_path: Path) -> None:
    import threading

    from treering_verify.audit.inputs.reader_pool import Limits
    from treering_verify.audit.judge import AuditJudge
    from treering_verify.benchmark.speed.null_model import NULL_INVERSION

    fill(tmp_path / "in", 12)
    judge, stop = AuditJudge.of(KEY, NullModel(), 1e-6, NULL_INVERSION, search="auto"), threading.Event()
    options = engine.Options(limits=Limits(readers=1), batch_size=2, shard_rows=2)
    run = engine.run_audit(Inputs((str(tmp_path / "in"),)), judge, tmp_path / "out", options, stop=stop)
    next(run)
    stop.set()
    with pytest.raises(KeyboardInterrupt):
        list(run)
    found = summary(tmp_path / "out")
    assert not found["finished"] and 2 <= found["files"] < 12
    assert len(audited(tmp_path / "in", tmp_path / "out", shard_rows=2, batch_size=2)) == 12


def test_memory_does_not_hold_the_images_of_a_folder_of_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    most = 0
    take = Batcher.take

    def watched(batcher: Batcher, task: Any, reading: Any) -> Iterator[Any]:
        nonlocal most
        yield from take(batcher, task, reading)
        most = max(most, sum(r.pixels is not None for group in batcher._waiting.values() for _, r in group))
        assert sum(map(len, batcher._waiting.values())) <= 4 * 4

    monkeypatch.setattr(Batcher, "take", watched)
    first = fill(tmp_path / "in", 1)
    for i in range(60):
        shutil.copy(first[0], tmp_path / "in" / f"copy-{i:02d}.png")
    assert len(audited(tmp_path / "in")) == 61 and most == 1
