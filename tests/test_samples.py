from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.places import SAMPLES
from PIL import Image

import treering_verify as tv


def test_the_samples_give_the_verdicts_that_are_written_beside_them(sample_key: tv.Key) -> None:
    expected = json.loads((SAMPLES / "expected.json").read_text())
    assert len(expected) == 8
    assert {p.name for p in SAMPLES.iterdir() if p.suffix in (".png", ".jpg")} - {"overview.png", "edit.png"} == set(
        expected
    )
    for verdict in tv.verify_many([SAMPLES / name for name in expected], sample_key):
        want = expected[Path(verdict.path).name]
        assert (verdict.verdict, verdict.key or None) == (want["verdict"], want["key"])
        assert verdict.best is not None
        assert verdict.best.log10_adjusted == pytest.approx(want["log10_pvalue"], rel=0.05, abs=0.3)


def test_the_sample_key_is_the_one_that_its_script_derives() -> None:
    content = json.loads((SAMPLES / "sample.key.json").read_text())
    derived = tv.Key.generate(tuple(content["latent_shape"]), name="sample", seed=5 << 32)
    assert content["numbers"] == derived.numbers.tolist()


def test_the_editing_example_shows_what_its_readme_says_of_the_background(tmp_path: Path) -> None:
    output = tmp_path / "edit.png"
    done = subprocess.run([sys.executable, SAMPLES / "edit.py", output], capture_output=True, text=True, check=True)
    errors = {line.split()[0]: float(line.split()[-2]) for line in done.stdout.splitlines()}
    assert errors["auto"] < errors["encoder"] < -10
    with Image.open(output) as sheet:
        assert sheet.size == (524, 128)
