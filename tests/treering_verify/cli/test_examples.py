"""The example at the end of each command's help runs, as it stands there."""

from __future__ import annotations

import glob
import os
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from treering_verify.cli.main import main
from treering_verify.detection import self_test

SLOW = {
    "treering benchmark detection --quick --output bench",
    "treering demo --output demo",
    "treering models fit landscape-tiny --output landscape-tiny-inverter",
}

ELSEWHERE = {  # run by models/diffusers/test_lavie.py, which makes the files
    "treering models convert lavie_base.pt --base stable-diffusion-v1-4 --output lavie",
}


def examples(group: click.Group) -> Iterator[str]:
    for command in group.commands.values():
        yield str(command.epilog).removeprefix("Example: ")
        if isinstance(command, click.Group):
            yield from examples(command)


def ran(line: str) -> None:
    words = [match for word in shlex.split(line)[1:] for match in (sorted(glob.glob(word)) or [word])]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, f"{line}: {result.output}"


def key_folder() -> None:
    os.makedirs("keys", exist_ok=True)
    shutil.copy("my.key.json", "keys")


def secret() -> None:
    descriptor = os.open("my.secret", os.O_CREAT | os.O_WRONLY, 0o600)
    os.write(descriptor, bytes(range(32)))
    os.close(descriptor)


def shots() -> None:
    os.mkdir("shots")
    shutil.copy("images/marked-000000.png", "shots")


def verdicts() -> None:
    line = ["verify", *sorted(glob.glob("images/*.png"))[:1], "--key", "my.key.json", "--format", "jsonl"]
    Path("verdicts.jsonl").write_text(CliRunner().invoke(main, line).stdout)


SHORT = {
    "TREERING_CALIBRATE_CLEAN_ONLY": "1",
    "TREERING_GENERATE_STEPS": "5",
    "TREERING_IDENTIFY_SEARCH": "off",
    "TREERING_MODELS_CHECK_STEPS": "5",
}
"""Defaults by which the examples do their work in a short form: their lines stay as they are."""

# What the examples need that an earlier one did not make.
BEFORE: dict[str, Callable[[], None]] = {
    "treering recheck verdicts.jsonl --key my.key.json": verdicts,
    "treering keys list keys/": key_folder,
    "treering keys retire old.key.json --note 'replaced by new.key.json'": lambda: ran(
        "treering keygen --output old.key.json"
    ),
    "treering keys index --from-secret my.secret --generate 1000 --output my.index": secret,
    "treering audit shots/ --key my.key.json --output audit": shots,
    "treering decode images/*.png --key message.key.json": lambda: ran(
        "treering keygen --pattern gaussian-shading --output message.key.json"
    ),
    "treering calibrate photographs/ --output my.calibration.json": lambda: ran(
        "treering generate --unmarked --count 2 --steps 2 --output photographs"
    ),
}


def test_every_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in SHORT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(self_test, "SETTINGS", self_test.SETTINGS[:2])
    lines = list(examples(main))
    assert set(BEFORE) | SLOW | ELSEWHERE <= set(lines)
    for line in lines:
        if line not in SLOW | ELSEWHERE:
            BEFORE.get(line, lambda: None)()
            ran(line)


@pytest.mark.slow
@pytest.mark.parametrize("line", sorted(SLOW))
def test_every_slow_example_runs(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ran(line)
