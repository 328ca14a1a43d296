"""Audits at work: early rows and a live page, progress in lines, a quick end at any moment, and nothing done twice."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet
import pytest
from click.testing import CliRunner, Result
from helpers.audits import KEY, fill, noisy_image, summary

from treering_verify.audit.output import store as shards
from treering_verify.audit.output.open_shards import Tally
from treering_verify.benchmark.speed.null_model import NullModel
from treering_verify.cli.main import main
from treering_verify.cli.running import progress
from treering_verify.cli.running.progress import Pace, audit_progress, duration, progress_words

PROGRAM = """
import sys
import treering_verify.models
import treering_verify.cli.running.signals as signals
from treering_verify.benchmark.speed.null_model import NullModel

signals._GRACE = 0.5

def forever():
    print("busy", file=sys.stderr, flush=True)
    while True:
        pass

class Slow(NullModel):
    images = 0
    def encode(self, image):
        Slow.images += len(image)
        return super().encode(image) if Slow.images <= 1 else forever()

def load(name):
    return forever() if sys.argv[1] == "loading" else Slow()

treering_verify.models.load_model = load
from treering_verify.cli.main import main
options = ["--inversion", "encoder", "--steps", "0", "--readers", "1", "--search", "off", "--batch-size", "64"]
main(["audit", *sys.argv[2:], *options])
"""


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    KEY.save(tmp_path / "k.key.json")
    return tmp_path / "k.key.json"


def started(stage: str, *arguments: object) -> subprocess.Popen[bytes]:
    """Start an audit that is busy for ever at a stage, and wait until it is."""
    command = [sys.executable, "-c", PROGRAM, stage, *map(str, arguments)]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert run.stderr is not None
    while b"busy" not in (line := run.stderr.readline()):
        assert line, "it ended"
    return run


def test_a_signal_while_the_model_is_loaded_ends_it_at_once(tmp_path: Path, key_file: Path) -> None:
    fill(tmp_path / "in", 2)
    run = started("loading", tmp_path / "in", "--key", key_file, "--output", tmp_path / "out")
    run.terminate()
    stdout, stderr = run.communicate(timeout=60)
    assert (run.returncode, stdout) == (130, b"") and stderr.strip() == b"Interrupted."


def test_a_signal_ends_a_batch_that_goes_on_and_what_was_judged_is_written(tmp_path: Path, key_file: Path) -> None:
    fill(tmp_path / "in", 5)
    output = tmp_path / "out"
    run = started("judging", tmp_path / "in", "--key", key_file, "--output", output)
    time.sleep(0.1)
    run.terminate()
    stdout, stderr = run.communicate(timeout=60)
    assert (run.returncode, stdout) == (130, b"") and b"Stopping after this batch" in stderr
    (part,) = shards.part_files(output)
    assert pyarrow.parquet.read_table(part).num_rows == 1 == summary(output)["files"]
    page = (output / "report.html").read_text()
    assert "is not finished" in page and "000000.png" in page and 'http-equiv="refresh"' not in page


def test_rows_and_a_page_that_loads_again_are_there_before_the_first_shard_is_full(
    tmp_path: Path, key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "in", 4)
    output = tmp_path / "out"
    seen: list[tuple[int, bool]] = []

    class Watched(NullModel):
        def encode(self, image):  # type: ignore[no-untyped-def]
            parts = shards.part_files(output)
            rows = pyarrow.parquet.read_table(parts[0]).num_rows if parts else 0
            page = output / "report.html"
            seen.append((rows, page.exists() and 'http-equiv="refresh" content="30"' in page.read_text()))
            return super().encode(image)

    monkeypatch.setattr("treering_verify.audit.output.open_shards._SOON", 0.0)
    monkeypatch.setattr("treering_verify.audit.output.open_shards._COST", 0.0)
    monkeypatch.setattr("treering_verify.models.load_model", lambda name: Watched())
    result = audit(tmp_path, key_file, "--batch-size", 1)
    assert result.exit_code == 0, result.output
    rows = [count for count, _ in seen]
    assert rows[0] == 0 and rows[-1] > 0 and seen[-1][1]
    assert not shards.part_files(output) and 'http-equiv="refresh"' not in (output / "report.html").read_text()


def audit(tmp_path: Path, key_file: Path, *more: object) -> Result:
    options = ["audit", tmp_path / "in", "--key", key_file, "--output", tmp_path / "out", "--readers", 1, *more]
    return CliRunner().invoke(main, [*map(str, options), "--inversion", "encoder", "--steps", "0", "--search", "off"])


def test_a_finished_audit_is_repeated_without_its_model_unless_something_changed(
    tmp_path: Path, key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[object] = []
    monkeypatch.setattr("treering_verify.models.load_model", lambda name: loads.append(name) or NullModel())
    fill(tmp_path / "in", 3)
    (tmp_path / "in" / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(50))
    page = tmp_path / "out" / "report.html"
    first = audit(tmp_path, key_file)
    assert first.exit_code == 3 and len(loads) == 1
    before = page.read_bytes()
    again = audit(tmp_path, key_file)
    assert (again.exit_code, again.stdout) == (3, first.stdout) and len(loads) == 1 and page.read_bytes() == before
    page.unlink()
    assert audit(tmp_path, key_file).exit_code == 3 and len(loads) == 1 and page.exists()
    audit(tmp_path, key_file, "--retry-errors")
    assert len(loads) == 2
    shard = shards.shard_files(tmp_path / "out")[0]
    shard.write_bytes(shard.read_bytes()[:-9])
    audit(tmp_path, key_file)
    assert len(loads) == 3  # a damaged shard is made again
    assert "alpha was 1e-06" in audit(tmp_path, key_file, "--alpha", "1e-3").stderr and len(loads) == 3
    noisy_image(9).save(tmp_path / "in" / "later.png")
    assert audit(tmp_path, key_file, "--overwrite").exit_code == 3 and len(loads) == 4
    assert summary(tmp_path / "out")["files"] == 5


def test_the_pace_is_that_of_the_last_minute_and_says_how_long_it_takes() -> None:
    now = 0.0
    pace = Pace(lambda: now)
    assert pace.words(10) == ""
    for second in range(301):
        now = float(second)
        pace.add(second * 4 if second <= 200 else 800 + (second - 200) // 2)
    assert pace.rate == pytest.approx(0.5, abs=0.02)
    assert pace.words(120) == "2.0 s a file, 4 min left" and pace.words(None) == "2.0 s a file"
    assert [duration(seconds) for seconds in (40, 300, 12_000)] == ["40 s", "5 min", "3 h 20 min"]


def test_where_there_is_no_terminal_progress_is_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    tally = Tally(total=1600, walked=True)
    with audit_progress(False) as watch:
        for _ in range(200):
            now += 0.5
            tally.add({"status:ok": 1, "verdict:detected": 1})
            watch(tally)
    said = capsys.readouterr()
    lines = said.err.splitlines()
    assert said.out == "" and len(lines) == 2  # after 10 and 70 of 100 seconds
    assert lines[0].startswith("Auditing: 20 of 1600 files; 2.0 files/s, 13 min left; 20 detected")
    with audit_progress(True) as watch:
        now += 1000
        watch(tally)
    assert capsys.readouterr().err == ""
    tally.walked = False
    assert progress_words(tally, Pace()).startswith("200 of 1600 files or more")
