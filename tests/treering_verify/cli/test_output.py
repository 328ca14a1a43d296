"""What goes where: data on stdout, progress on stderr, and only where it is wanted."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from helpers.audits import KEY, fill

from treering_verify.benchmark.speed.null_model import NullModel
from treering_verify.cli.main import main
from treering_verify.watermark.keys.index_file import blocks_of, write_index

pty = pytest.importorskip("pty")

PROGRAM = """
import sys, time
import treering_verify.cli.output as output
output._PATIENCE = float(sys.argv[1])
with output.progress("Verifying", 4) as advance:
    for i in range(4):
        time.sleep(0.2)
        advance()
        print("verdict", i)
"""


@pytest.mark.parametrize(("patience", "shown"), [(0.1, True), (60, False)])
def test_progress_is_shown_on_the_terminal_after_a_while_and_data_stay_on_stdout(patience: float, shown: bool) -> None:
    ours, theirs = pty.openpty()
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(patience)],
        stdout=subprocess.PIPE,
        stderr=theirs,
        text=True,
        env={**os.environ, "TERM": "xterm", "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))},
    )
    os.set_blocking(ours, False)
    try:
        terminal = os.read(ours, 100_000).decode()
    except BlockingIOError:
        terminal = ""
    os.close(theirs)
    os.close(ours)
    assert run.returncode == 0 and run.stdout.split() == [
        "verdict",
        "0",
        "verdict",
        "1",
        "verdict",
        "2",
        "verdict",
        "3",
    ]
    assert ("Verifying" in terminal) is shown and "verdict" not in terminal


ON_ONE_TERMINAL = """
import time
import treering_verify.cli.output as output
output._PATIENCE = 0.1
with output.progress("Verifying", 3) as advance:
    for i in range(3):
        time.sleep(0.3)
        advance()
        output.echo(f"verdict {i}", advance)
"""


def lines_of(written: str) -> list[str]:
    """Return the lines that a terminal shows, of one that knows the codes which a progress bar needs."""
    lines, row = [""], 0
    for part in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", written):
        if part == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif part == "\x1b[1A":
            row -= 1
        elif part == "\x1b[2K":
            lines[row] = ""
        elif part[0] not in "\r\x1b":
            lines[row] += part
    return [line for line in lines if line]


def test_verdicts_are_lines_of_their_own_on_the_terminal_of_the_bar() -> None:
    ours, theirs = pty.openpty()
    subprocess.run(
        [sys.executable, "-c", ON_ONE_TERMINAL],
        stdout=theirs,
        stderr=theirs,
        check=True,
        env={**os.environ, "TERM": "xterm", "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))},
    )
    written = os.read(ours, 100_000).decode()
    os.close(theirs)
    os.close(ours)
    assert "Verifying" in written
    assert lines_of(written) == ["verdict 0", "verdict 1", "verdict 2"]


@pytest.fixture
def judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with images, a sidecar and a key, judged by a model that computes nothing."""
    monkeypatch.setattr("treering_verify.models.load_model", lambda name: NullModel())
    fill(tmp_path / "images", 3)
    (tmp_path / "images" / "marked.json").write_text("{}")
    KEY.save(tmp_path / "my.key.json")
    return tmp_path


def run(command: str, *arguments: object) -> Result:
    asked = [command, *map(str, arguments), "--inversion", "encoder", "--steps", "0", "--format", "jsonl"]
    return CliRunner().invoke(main, asked)


@pytest.mark.parametrize("command", ["verify", "identify"])
def test_a_small_folder_stands_for_the_images_in_it(command: str, judged: Path) -> None:
    images = sorted((judged / "images").glob("*.png"))
    whole = run(command, judged / "images", "--key", judged / "my.key.json")
    assert whole.exit_code == 0 and len(whole.stdout.splitlines()) == len(images) == 3
    assert all(f'"path": "{image}"' in line for image, line in zip(images, whole.stdout.splitlines(), strict=True))


def test_a_key_option_takes_a_file_a_folder_and_an_index(judged: Path) -> None:
    (judged / "keys").mkdir()
    KEY.save(judged / "keys" / "one.json")
    write_index(judged / "my.index", KEY.family, 1, blocks_of([KEY], KEY.family), "float32")
    for command in ("verify", "identify"):
        lines = [
            run(command, judged / "images", "--key", path).stdout.splitlines()
            for path in (judged / "my.key.json", judged / "keys", judged / "my.index")
        ]
        assert [len(found) for found in lines] == [3, 3, 3]
    refused = run("verify", judged / "images", "--key", judged / "my.index", "--decoys", "10")
    assert refused.exit_code == 2 and "index" in refused.stderr
