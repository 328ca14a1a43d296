"""Mutated images of every format through `verify`: each gets a verdict or a code, soon and within bounded memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from helpers.hostile.fuzz import seeds
from helpers.places import ROOT

from treering_verify.media.images import CODES, open_image


def test_every_seed_is_read_or_named_as_what_it_is() -> None:
    found = seeds()
    assert len(found) >= 41
    for name, data in found.items():
        if name != "runs.bmp":  # an empty one
            assert min(open_image(data).size) >= 16, name


@pytest.mark.parametrize("count", [200, pytest.param(10_000, marks=pytest.mark.slow)])
def test_mutated_images_end_in_a_verdict_or_a_code_within_20_seconds_and_2_gib(count: int) -> None:
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "detectors", ROOT / "tests")))
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "helpers" / "hostile" / "fuzz.py"), str(count), "7"],
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    assert found["uncaught"] == 0 and sum(found["outcomes"].values()) == count
    assert set(found["outcomes"]) <= {"judged", *CODES} and found["outcomes"]["judged"] > count / 10
    assert found["decoded_apart"] > count / 4 and found["slowest"] < 20
    assert max(found["peak_mb"], found["peak_mb_of_the_decoder"]) < 2048
    assert done.stderr == ""
