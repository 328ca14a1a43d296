"""Secrets: no command takes one as text, and none comes out again, in whatever way a command ends."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from helpers.leaks import shows_any
from helpers.places import ROOT

from treering_verify.cli.main import main
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


def test_no_secret_comes_out_of_any_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.chdir(tmp_path)
    secret, message = tmp_path / "my.secret", tmp_path / "message"
    secret.write_text(SECRET)
    secret.chmod(0o600)
    message.write_text(MESSAGE)
    image = str(ROOT / "samples" / "marked-0.png")
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
    numbers = [float(number) for name in ("a", "b") for number in Key.load(f"{name}.key.json").numbers]
    for where, text in [*enumerate(said), *((path, data.decode("latin-1")) for path, data in files.items())]:
        for canary in (SECRET, MESSAGE, TOKEN):
            assert canary not in text, (where, canary)
        assert not shows_any(text, [number for number in numbers if number != int(number)]), where
    assert os.environ["HF_TOKEN"] == TOKEN
