"""What a change of names and places must not change: p-values and images, to the last digit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest
from helpers.places import TESTS

HELPERS = TESTS / "helpers"


def close(found: Any, wanted: Any) -> bool:
    """Whether two values agree as far as processors do: log10 p by 5 % or .3, grey levels by 3."""
    if isinstance(wanted, dict):
        keys = set(wanted) - {"sha256"}
        return all(close(found[key], wanted[key]) for key in keys)
    if isinstance(wanted, list):
        return len(found) == len(wanted) and all(map(close, found, wanted))
    if isinstance(wanted, float):
        return bool(found == pytest.approx(wanted, rel=0.05, abs=0.3))
    if isinstance(wanted, int):
        return abs(found - wanted) <= 3
    return bool(found == wanted)


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """Run the script in a process of its own, with one thread."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, HELPERS / "behaviour.py"], capture_output=True, text=True, check=True, env=environment
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize("part", ["verify", "identify", "audit", "decode", "generate"])
@pytest.mark.parametrize("stored", ["behaviour.json", "behaviour-amd.json"])
def test_the_samples_give_what_they_gave(found: dict[str, Any], stored: str, part: str) -> None:
    """Compare with what was stored, digit by digit where the processor is the same, and closely elsewhere."""
    wanted = json.loads((HELPERS / "golden" / stored).read_text())
    assert wanted[part]
    if found["platform"] == wanted["platform"]:
        assert found[part] == wanted[part]
    assert set(found[part]) == set(wanted[part])
    assert close(found[part], wanted[part])
