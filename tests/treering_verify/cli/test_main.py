from __future__ import annotations

import json
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from helpers.leaks import shows_any
from helpers.places import ROOT
from PIL import Image

from treering_verify.benchmark import BENCHMARKS
from treering_verify.cli.main import main


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


@pytest.mark.parametrize("command", sorted(main.commands))
def test_every_command_has_help_an_example_and_a_line_in_the_docs(command: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    assert f"Example: treering {command}" in re.sub(r"\s+", " ", result.output)
    assert f"`{command}" in (ROOT / "docs" / "commands.md").read_text()


def test_help_imports_nothing_heavy() -> None:
    heavy = "('torch', 'scipy', 'PIL', 'numpy')"
    code = f"import sys; from treering_verify.cli.main import main; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_the_main_job_from_the_command_line(tmp_path: Path) -> None:
    key, folder = tmp_path / "mine.key.json", tmp_path / "images"
    made = run("keygen", "--output", key)
    assert made.exit_code == 0 and "degrees of freedom" in made.stderr and made.stdout == ""
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    numbers = json.loads(key.read_text())["numbers"]
    output = made.output
    for options in (["--key", key], ["--unmarked"]):
        result = run("generate", *options, "--count", 2, "--seed", 40, "--steps", 20, "--output", folder)
        assert result.exit_code == 0 and len(result.stdout.splitlines()) == 2
        output += result.output
    sidecar = json.loads((folder / "marked-000040.json").read_text())
    assert sidecar["seed"] == 40 and sidecar["marked"] is True
    attacked = tmp_path / "attacked"
    assert (
        run("attack", folder / "marked-000040.png", "--attack", "jpeg:quality=75", "--output", attacked).exit_code == 0
    )
    files = [*sorted(folder.glob("*.png")), *attacked.glob("*.png")]
    result = run("verify", *files, "--key", key, "--format", "jsonl")
    assert result.exit_code == 0
    records = [json.loads(line) for line in result.stdout.splitlines()]
    assert [r["verdict"] for r in records] == ["detected"] * 2 + ["no evidence"] * 2 + ["detected"]
    assert all(r["schema_version"] == 2 and r["path"] == str(f) for r, f in zip(records, files, strict=True))
    text = run("verify", *files, "--key", key, "--search", "off")
    assert text.stdout.count("key mine") == 3
    assert shows_any(key.read_text(), numbers) and not shows_any(output + result.output + text.output, numbers)


def test_exit_codes_tell_found_bad_usage_and_unjudged_apart(tmp_path: Path) -> None:
    key, image, broken = tmp_path / "k.json", tmp_path / "grey.png", tmp_path / "broken.png"
    assert run("keygen", "--output", key).exit_code == 0
    Image.new("RGB", (128, 128), "grey").save(image)
    broken.write_bytes(b"no image")
    assert run("verify", image, "--key", key).exit_code == 0
    assert run("verify", image, "--key", key, "--fail-on", "no-evidence", "--fail-on", "inconclusive").exit_code == 1
    mixed = run("verify", broken, image, "--key", key, "--format", "json")
    assert mixed.exit_code == 3
    assert [r["status"] for r in json.loads(mixed.stdout)] == ["error", "ok"]
    assert run("verify", image, "--key", tmp_path / "none.json").exit_code == 2
    key.chmod(0o644)
    refused = run("verify", image, "--key", key)
    assert refused.exit_code == 2 and "chmod 600" in refused.stderr


def test_keygen_refuses_a_key_that_cannot_convince(tmp_path: Path) -> None:
    weak = ["keygen", "--pattern", "rings", "--channels", "3", "--inner-radius", 1, "--outer-radius", 8]
    refused = run(*weak, "--output", tmp_path / "weak.json")
    assert refused.exit_code == 2 and "8 numbers" in refused.stderr and not (tmp_path / "weak.json").exists()
    assert run(*weak, "--output", tmp_path / "weak.json", "--allow-weak").exit_code == 0
    assert run("keygen", "--pattern", "rings", "--output", tmp_path / "rings.json").exit_code == 0


def test_keygen_derives_the_same_key_from_the_same_secret_and_never_overwrites(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(range(32)))
    for name in ("a", "b"):
        assert run("keygen", "--from-secret", secret, "--name", "same", "--output", tmp_path / name).exit_code == 0
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    again = run("keygen", "--output", tmp_path / "a")
    assert again.exit_code == 2 and "exists" in again.stderr


def test_contradictory_options_are_refused(tmp_path: Path) -> None:
    assert run("generate", "--output", tmp_path / "x").exit_code == 2
    assert (
        run("generate", "--unmarked", "--class", "lake", "--prompt", "lake", "--output", tmp_path / "x").exit_code == 2
    )
    unknown = run("generate", "--unmarked", "--class", "city", "--output", tmp_path / "x")
    assert unknown.exit_code == 2 and "lake" in unknown.stderr


def test_the_demo_refuses_a_folder_that_exists(tmp_path: Path) -> None:
    refused = run("demo", "--output", tmp_path)
    assert refused.exit_code == 2 and "name a new folder" in " ".join(refused.stderr.split())


@pytest.mark.parametrize("name", BENCHMARKS)
@pytest.mark.slow
def test_every_benchmark_runs_in_its_quick_form(name: str, tmp_path: Path) -> None:
    result = run("benchmark", name, "--quick", "--output", tmp_path)
    assert result.exit_code == 0, result.output
    assert f"repeat: treering benchmark {name} --quick" in result.stdout
    assert (tmp_path / f"{name}.parquet").stat().st_size > 0


def test_an_unknown_benchmark_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    result = run("benchmark", "pareto", "speed", "--output", tmp_path / "bench")
    assert result.exit_code == 2 and "cocoercivity" in result.stderr
    assert not (tmp_path / "bench").exists()
