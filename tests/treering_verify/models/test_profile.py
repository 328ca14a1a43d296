"""Profiles: what a model's self-test found is read back, belongs to one model, and limits where 'no evidence' is said."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from helpers.models import pipelines

import treering_verify as tv
from treering_verify.audit.judge import AuditJudge
from treering_verify.audit.settings import settings_of
from treering_verify.cli.main import main
from treering_verify.detection.decision import decide
from treering_verify.detection.self_test import check_model
from treering_verify.errors import UsageError
from treering_verify.models import LatentModel, from_pipeline, load_model
from treering_verify.models.profile import FLOOR, Profile
from treering_verify.results import KeyEvidence


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments], catch_exceptions=False)


def keep(record: dict[str, Any], path: Path) -> Path:
    path.write_text(json.dumps(record))
    return path


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a pipeline that keeps its marks, its profile in a folder of profiles, and a key with a marked image."""
    folder = tmp_path_factory.mktemp("profiled")
    pipelines.stable_diffusion().save_pretrained(folder / "model")
    (folder / "profiles").mkdir()
    output = folder / "profiles" / "sd.json"
    checked = run("models", "check", folder / "model", "--count", 2, "--steps", 4, "--output", output)
    assert checked.exit_code == 0, checked.output
    model = load_model(folder / "model")
    key = tv.Key.generate(model.latent_shape, channels=pipelines.KEPT, name="my", seed=1)
    key.save(folder / "my.key.json")
    for name, written in (("marked", key), ("unmarked", None)):
        (made,) = tv.generate(model, written, seeds=[3], prompts=["a cat"], steps=4)
        made.image.save(folder / f"{name}.png")
    return folder


@pytest.fixture(scope="module")
def weak(tiny_model: LatentModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the profile of a model that loses every mark."""
    record = check_model(tiny_model, count=2, steps=2).record()
    assert not record["usable"]
    return keep(record, tmp_path_factory.mktemp("weak") / "tiny.json")


# --- the file ---------------------------------------------------------------------------------------------------------


def test_a_profile_says_what_the_self_test_recommended(saved: Path) -> None:
    record = json.loads((saved / "profiles" / "sd.json").read_text())
    profile = Profile.load(saved / "profiles" / "sd.json")
    chosen = record["recommended"]
    assert (profile.inversion, profile.noise_method, profile.steps) == (
        chosen["inversion"],
        chosen["noise_inversion"],
        chosen["steps"],
    )
    sound = [trial for trial in record["trials"] if trial["log10_marked"] <= FLOOR]
    best = min(sound, key=lambda trial: trial["log10_marked"] + trial["log10_attacked"])
    assert profile.log10_marked == best["log10_marked"] < FLOOR
    inversion = tv.InversionOptions.of(profile, batch_size=3)
    assert (inversion.method, inversion.noise_method, inversion.steps, inversion.batch_size, inversion.profile) == (
        profile.inversion,
        profile.noise_method,
        profile.steps,
        3,
        profile,
    )


def test_what_is_not_a_profile_is_refused_with_what_to_do(saved: Path, tmp_path: Path) -> None:
    record = json.loads((saved / "profiles" / "sd.json").read_text())
    broken = {
        "cannot read": tmp_path / "missing.json",
        "not a profile": keep({"type": "another"}, tmp_path / "other.json"),
        "version 99": keep({**record, "schema_version": 99}, tmp_path / "newer.json"),
        "damaged": keep({k: v for k, v in record.items() if k != "weights"}, tmp_path / "short.json"),
        "not finite": keep(
            {**record, "recommended": {**record["recommended"], "log10_marked": math.nan}}, tmp_path / "nan.json"
        ),
    }
    (tmp_path / "text.json").write_text("no JSON")
    for message, path in [*broken.items(), ("damaged", tmp_path / "text.json")]:
        with pytest.raises(UsageError, match=message):
            Profile.load(path)


# --- whose it is ------------------------------------------------------------------------------------------------------


def test_a_profile_belongs_to_one_models_weights_size_precision_and_tiles(saved: Path) -> None:
    profile, pipe = Profile.load(saved / "profiles" / "sd.json"), pipelines.stable_diffusion()
    profile.check(from_pipeline(pipe))
    with torch.no_grad():
        other = pipelines.stable_diffusion()
        other.unet.conv_out.bias[0] += 1e-3
    half = pipelines.stable_diffusion().to(torch.bfloat16)
    for model, message in (
        (from_pipeline(other), "weights [0-9a-f]{16}, not"),
        (from_pipeline(pipe, image_size=(64, 48)), "images of 48x48, not 64x48"),
        (from_pipeline(pipe, tile=24), "tiles of 0, not 24"),
        (from_pipeline(half), "weights in float32, not bfloat16"),
    ):
        with pytest.raises(UsageError, match=message):
            profile.check(model)


def test_a_folder_gives_the_one_profile_of_the_model(saved: Path, weak: Path, tmp_path: Path) -> None:
    model = load_model(saved / "model")
    for source in (saved / "profiles" / "sd.json", weak):
        (tmp_path / source.name).write_bytes(source.read_bytes())
    found = Profile.find(tmp_path, model)
    assert found == Profile.find(saved / "profiles" / "sd.json", model)
    (tmp_path / "again.json").write_bytes((saved / "profiles" / "sd.json").read_bytes())
    with pytest.raises(UsageError, match="several profiles"):
        Profile.find(tmp_path, model)
    with pytest.raises(UsageError, match="none of the 1 profiles"):
        Profile.find(weak.parent, model)


# --- what it changes --------------------------------------------------------------------------------------------------


def test_the_floor_is_one_in_a_million_and_lower_where_more_is_asked(saved: Path) -> None:
    profile = replace(Profile.load(saved / "profiles" / "sd.json"), log10_marked=-8.0)
    assert profile.weakness(1e-3, 1) == profile.weakness(1e-8, 1) == ""
    assert "not at 1e-09 or below" in profile.weakness(1e-9, 1)
    assert "over 1000 keys" in profile.weakness(1e-6, 1000)
    barely = replace(profile, log10_marked=-5.9)
    assert "not at 1e-06 or below" in barely.weakness(1e-3, 1)
    assert replace(barely, allow_weak=True).weakness(1e-3, 1) == ""


def test_below_the_floor_nothing_is_no_evidence_and_what_is_found_is_found(
    weak: Path, tiny_model: LatentModel, saved: Path
) -> None:
    key = tv.Key.generate(tiny_model.latent_shape, seed=1)
    image = saved / "unmarked.png"
    verdicts = {
        allowed: tv.verify(
            image,
            key,
            model=tiny_model,
            inversion=tv.InversionOptions.of(Profile.load(weak, allow_weak=allowed)),
            search=None,
        )
        for allowed in (False, True)
    }
    assert (verdicts[False].verdict, verdicts[False].code) == ("inconclusive", "weak_model")
    assert "a mark may be there" in verdicts[False].reason
    assert verdicts[True].code != "weak_model"
    assert verdicts[False].evidence == verdicts[True].evidence  # p is what it was
    found = (KeyEvidence("k", "f", 0.5, -9.0, -9.0, 100),)
    assert decide(found, 1e-6, "", "tolerance", "weak").verdict == "detected"


def test_another_models_profile_is_refused_by_every_judge(weak: Path, saved: Path) -> None:
    model, key = load_model(saved / "model"), tv.Key.load(saved / "my.key.json")
    inversion = tv.InversionOptions.of(Profile.load(weak))
    with pytest.raises(UsageError, match=r"treering models check"):
        tv.verify(saved / "marked.png", key, model=model, inversion=inversion)
    with pytest.raises(UsageError, match=r"treering models check"):
        tv.detection.identify(saved / "marked.png", key, model=model, inversion=inversion)
    with pytest.raises(UsageError, match=r"treering models check"):
        AuditJudge.of(key, model, 1e-6, inversion)


def test_an_audits_settings_name_the_profile_and_whether_its_floor_held(saved: Path) -> None:
    model, key = load_model(saved / "model"), tv.Key.load(saved / "my.key.json")
    path = saved / "profiles" / "sd.json"
    found = [
        settings_of(AuditJudge.of(key, model, 1e-6, inversion))
        for inversion in (
            tv.InversionOptions.of(Profile.load(path)),
            tv.InversionOptions.of(Profile.load(path, allow_weak=True)),
            tv.InversionOptions(),
        )
    ]
    assert found[0]["profile"]["digest"] == Profile.load(path).digest
    assert found[0] != found[1] and found[2]["profile"] is None
    json.dumps(found)


def test_the_commands_take_a_profile_from_the_command_line_or_a_folder(saved: Path, tmp_path: Path) -> None:
    digest = Profile.load(saved / "profiles" / "sd.json").digest
    model = ("--model", saved / "model", "--profile")
    images = [saved / "marked.png", saved / "unmarked.png"]
    for command, keys in (("verify", "--key"), ("identify", "--key")):
        ran = run(command, *images, keys, saved / "my.key.json", "--format", "jsonl", *model, saved / "profiles")
        assert ran.exit_code == 0, ran.output
        records = [json.loads(line) for line in ran.stdout.splitlines()]
        assert [record["verdict"] for record in records] == ["detected", "no evidence"]
        assert {record["profile"] for record in records} == {digest}
        assert "profile sd.json: inversion" in ran.stderr
    audited = run(
        "audit",
        *images,
        "--key",
        saved / "my.key.json",
        "--output",
        tmp_path / "audit",
        *model,
        saved / "profiles" / "sd.json",
    )
    assert audited.exit_code == 0, audited.output
    settings = json.loads((tmp_path / "audit" / "summary.json").read_text())["settings"]
    assert settings["profile"]["digest"] == digest
    assert settings["steps"] == Profile.load(saved / "profiles" / "sd.json").steps


def test_a_profile_and_single_settings_contradict_each_other(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = (
        "verify",
        saved / "marked.png",
        "--key",
        saved / "my.key.json",
        "--model",
        saved / "model",
        "--profile",
        saved / "profiles",
    )
    ran = run(*asked, "--steps", 10)  # though it is the default
    assert ran.exit_code == 2 and "and so does --steps" in ran.stderr
    monkeypatch.setenv("TREERING_VERIFY_NOISE_INVERSION", "exact")
    ran = run(*asked)
    assert ran.exit_code == 2 and "--noise-inversion" in ran.stderr
    monkeypatch.delenv("TREERING_VERIFY_NOISE_INVERSION")
    assert run(*asked).exit_code == 0
    ran = run(*asked[:-2], "--allow-weak")
    assert ran.exit_code == 2 and "give --profile too" in ran.stderr
