"""What a command imports before it works; the seconds are measured by tests/helpers/startup.py."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.places import ROOT

# Runs the command as `treering` does, and writes what was imported by its end to the file that is named first.
COMMAND = """
import atexit, json, sys
place = sys.argv.pop(1)
atexit.register(lambda: open(place, "w").write(json.dumps(sorted(sys.modules))))
from treering_verify.cli.main import main
main()
"""
NOT_FOR_ONE_IMAGE = {
    "accelerate",
    "diffusers",
    "huggingface_hub",
    "jinja2",
    "matplotlib",
    "pandas",
    "pyarrow",
    "ray",
    "scipy.optimize",
    "scipy.stats",
    "sklearn",
    "sympy",
    "torch._dynamo",
    "transformers",
}


def imported(folder: Path, *arguments: str, code: int) -> set[str]:
    """Run a command that must end with a code, and return the names of all modules that it imported."""
    place = folder / "modules.json"
    paths = os.pathsep.join([str(ROOT), str(ROOT / "detectors")])
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, str(place), *arguments],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return set(json.loads(place.read_text()))


@pytest.fixture
def key(tmp_path: Path) -> str:
    path = Path(shutil.copyfile(ROOT / "samples" / "sample.key.json", tmp_path / "key.json"))
    path.chmod(0o600)
    return str(path)


def test_verifying_an_image_with_the_embedded_model_imports_only_what_it_needs(tmp_path: Path, key: str) -> None:
    found = imported(tmp_path, "verify", str(ROOT / "samples" / "marked-0.png"), "--key", key, code=0)
    assert {"torch", "numpy", "PIL"} <= found
    assert found & NOT_FOR_ONE_IMAGE == set()


def test_what_is_wrong_in_a_call_is_told_before_torch_is_imported(tmp_path: Path, key: str) -> None:
    image = str(ROOT / "samples" / "marked-0.png")
    missing = str(tmp_path / "missing")
    for arguments in (
        (image, "--key", missing),
        (image, "--key", key, "--alpha", "7"),
        (image, "--key", key, "--model", missing),
        (image, "--key", key, "--device", "nonsense"),
    ):
        assert "torch" not in imported(tmp_path, "verify", *arguments, code=2), arguments
