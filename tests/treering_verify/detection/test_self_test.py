"""A model's self-test: what it measures, and the commands that list models and check one."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from treering_verify.cli.main import main
from treering_verify.detection.self_test import BANDS, SETTINGS, SelfTest, check_model
from treering_verify.errors import UsageError
from treering_verify.models import FAMILIES, LatentModel, load_model


@pytest.mark.slow
def test_the_embedded_model_is_usable_and_each_setting_is_measured() -> None:
    found = check_model(load_model("landscape"), count=2, steps=5)
    assert found.usable and found.best.log10_marked < -20
    assert len(found.trials) == len(SETTINGS) + 1 and found.trials[-1].steps == 5  # the few that generated, too
    for trial in found.trials:
        assert 0 < trial.error < 1.5 and trial.seconds > 0
        assert len(trial.agreement) == BANDS and trial.agreement[0] > trial.agreement[-1]
        assert trial.log10_unmarked > -6 > trial.log10_marked
        assert trial.log10_marked < trial.log10_attacked < 0
    assert 0 < found.ode_error < math.inf and 0 < found.autoencoder_error < 1


@pytest.fixture(scope="module")
def found(tiny_model: LatentModel) -> SelfTest:
    return check_model(tiny_model, count=2, steps=2)


def test_a_model_that_loses_the_noise_is_not_usable(found: SelfTest, tiny_model: LatentModel) -> None:
    # Random weights: the autoencoder keeps nothing.
    assert not found.usable and not found.record()["usable"]
    with pytest.raises(UsageError, match="2 images or more"):
        check_model(tiny_model, count=1)


def test_a_setting_that_fails_under_attack_is_not_recommended(found: SelfTest) -> None:
    first = found.trials[0]
    clean = replace(first, noise_method="exact", log10_marked=-318.0, log10_attacked=-15.0)
    sturdy = replace(first, noise_method="auto", log10_marked=-305.0, log10_attacked=-32.0)
    lost = replace(first, noise_method="naive", log10_marked=-5.0, log10_attacked=-400.0)
    assert replace(found, trials=(clean, sturdy)).best == sturdy
    assert replace(found, trials=(lost, clean)).best == clean and replace(found, trials=(lost, clean)).usable
    assert replace(found, trials=(lost,)).best == lost and not replace(found, trials=(lost,)).usable


def test_the_commands_list_families_and_check_a_model(tiny_folder: Path, tmp_path: Path) -> None:
    listed = CliRunner().invoke(main, ["models"])
    assert listed.exit_code == 0 and all(name in listed.stdout for name in FAMILIES)
    output = tmp_path / "check.json"
    arguments = ["models", "check", str(tiny_folder), "--count", "2", "--steps", "2", "--output", str(output)]
    checked = CliRunner().invoke(main, arguments)
    assert checked.exit_code == 1 and "not usable" in checked.stdout
    record = json.loads(output.read_text())
    assert record["usable"] is False and len(record["trials"]) == len(SETTINGS) + 1
    assert CliRunner().invoke(main, ["models", "check", "nowhere"]).exit_code == 2
