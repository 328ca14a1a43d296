"""Secrets: no command takes one as text, and none comes out again, in whatever way a command ends."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from helpers.audits import audited
from helpers.leaks import shows_any
from helpers.places import ROOT
from PIL import Image

from treering_verify.cli.main import main
from treering_verify.media.isolation import decoding
from treering_verify.watermark.keys.key import Key

SECRET, MESSAGE, TOKEN = "CANARY-secret-0123456789", "CANARY-message", "hf_CANARYtoken0123456789"
WORDS = ("secret", "message", "token", "password", "passphrase", "seed-phrase", "credential")


def commands(group: click.Command, name: str = "treering") -> Iterator[tuple[str, click.Command]]:
    """Yield every command with its name."""
    if isinstance(group, click.Group):
        for each in group.list_commands(click.Context(group)):
            found = group.get_command(click.Context(group), each)
            assert found is not None
            yield from commands(found, f"{name} {each}")
    else:
        yield name, group


def test_no_command_takes_a_secret_as_text() -> None:
    found = []
    for name, each in commands(main):
        for option in each.params:
            named = any(word in flag for word in WORDS for flag in option.opts)
            if named and isinstance(option.type, click.types.StringParamType):
                found.append((name, option.opts))
    assert found == []
    listed = {flag for _, each in commands(main) for option in each.params for flag in option.opts}
    assert {"--from-secret", "--message-from"} <= listed


def said_of(process: int) -> list[str]:
    """Return command line and environment of a process; at its very beginning they are empty."""
    for _ in range(500):
        told = [(Path("/proc") / str(process) / name).read_bytes() for name in ("cmdline", "environ")]
        if all(told):
            return [each.decode("latin-1") for each in told]
        time.sleep(0.01)
    raise AssertionError("a process without a command line")


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Command line and environment of each process that is started, as lists of processes show them."""
    found: list[str] = []

    class Watched(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, *given: Any, **options: Any) -> None:
            super().__init__(*given, **options)
            found.extend(said_of(self.pid))

    monkeypatch.setattr(subprocess, "Popen", Watched)
    decoding._decoder.close()  # one that is there already was started by another test
    return found


def test_no_secret_comes_out_of_any_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: list[str]
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("HUGGING_FACE_HUB_TOKEN", TOKEN)
    monkeypatch.chdir(tmp_path)
    secret, message = tmp_path / "my.secret", tmp_path / "message"
    secret.write_text(SECRET)
    secret.chmod(0o600)
    message.write_text(MESSAGE)
    image = str(ROOT / "samples" / "marked-0.png")
    Image.open(image).save("marked.tiff")
    derived = ("--from-secret", "my.secret")
    shading = ("--pattern", "gaussian-shading")
    calls = [
        ("keygen", *derived, "--output", "a.key.json"),
        ("keygen", *derived, "--output", "a.key.json"),  # it exists
        ("keygen", *derived, *shading, "--message-from", "message", "--output", "b.key.json"),
        ("keygen", "--message-from", "message", "--output", "c.key.json"),  # of another pattern
        ("keygen", "--from-secret", "message", "--output", "d.key.json"),  # too short
        ("keys", "index", *derived, "--generate", "3", "--output", "my.index"),
        ("keys", "list", "."),
        ("keys", "retire", "b.key.json"),
        ("generate", *derived, "--count", "1", "--steps", "1", "--output", "made"),
        ("generate", "--key", "a.key.json", "--count", "1", "--steps", "1", "--output", "marked"),
        ("verify", image, "--key", "a.key.json", "--key", "my.index", "--format", "json", "--search", "off"),
        ("verify", "marked.tiff", "--key", "a.key.json", "--search", "off"),  # in a process of its own
        ("verify", image, "--key", "my.secret"),  # no key
        ("verify", "my.secret", "--key", "a.key.json"),  # no image
        ("verify", image, "--key", "a.key.json", "--model", "no/such-model"),
        ("identify", image, "--key", "my.index", "--format", "jsonl", "--search", "off"),
        ("identify", image, "--key", "message"),
        ("decode", image, "--key", "b.key.json", "--format", "json"),
        ("decode", image, "--key", "a.key.json"),
        ("attack", image, "--attack", "jpeg:quality=50", "--output", "attacked"),
        (
            "audit",
            image,
            "my.secret",
            "message",
            "a.key.json",
            "--key",
            "a.key.json",
            "--output",
            "out",
            "--log-file",
            "log",
        ),
        ("report", "out", "--format", "csv"),
        ("report", "out", "--key", "a.key.json", "--output", "out.html"),
        ("--config", "my.secret", "verify", image, "--key", "a.key.json"),
        ("models", "show", "my.secret"),
    ]
    said = []
    for call in calls:
        done = CliRunner().invoke(main, list(call))
        assert done.exception is None or isinstance(done.exception, SystemExit), (call, done.exception)
        said.append(done.output)
    keys = {"my.secret", "message", "a.key.json", "b.key.json", "my.index"}
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path.name not in keys}
    assert len(files) > 12 and (tmp_path / "log").stat().st_size > 0
    for module in ("decoder_process", "reader_process", "plan"):
        assert any(module in each for each in processes), module
    numbers = [float(number) for name in ("a", "b") for number in Key.load(f"{name}.key.json").numbers]
    prks = [Key.load(f"{name}.key.json").prk.hex() for name in ("a", "b")]
    told = [*enumerate([*said, *processes]), *((path, data.decode("latin-1")) for path, data in files.items())]
    for where, text in told:
        for canary in (SECRET, MESSAGE, TOKEN, *prks):
            assert canary not in text, (where, canary)
        assert not shows_any(text, [number for number in numbers if number != int(number)]), where
    assert os.environ["HF_TOKEN"] == TOKEN


def test_credentials_reach_only_what_opens_urls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: list[str]
) -> None:
    names = ("AWS_SECRET_ACCESS_KEY", "AZURE_STORAGE_CONNECTION_STRING", "azure_storage_account_key", "DB_PASSWORD")
    for name in (*names, "OPENAI_API_KEY"):
        monkeypatch.setenv(name, SECRET)
    monkeypatch.setenv("PLAIN", "kept")
    Image.new("RGB", (64, 64)).save(tmp_path / "a.tiff")
    decoding.decode_image(tmp_path / "a.tiff")
    audited(str(tmp_path))
    started = dict(zip(processes[::2], processes[1::2], strict=True))
    assert len(started) >= 3
    for line, environment in started.items():
        assert SECRET not in line and "PLAIN=kept" in environment
        assert (SECRET in environment) == ("reader_process" in line), line
