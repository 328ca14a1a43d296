"""Records are judged again: the same verdict is the same, and what changed is named."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from PIL import Image

import treering_verify as tv
from treering_verify.cli.main import main
from treering_verify.detection.recheck import read_records
from treering_verify.errors import UsageError
from treering_verify.models import LatentModel
from treering_verify.watermark.keys.key import Key

NO_SETTINGS = '{"path": "x", "status": "ok", "alpha": 0.01, "detector": "exact-cosine", "provenance": "y"}'


def run(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def test_records_are_judged_again_and_differences_named(
    tiny_model: LatentModel, tiny_folder: Path, tmp_path: Path
) -> None:
    Key.generate(tiny_model.latent_shape, name="mine", seed=1).save(tmp_path / "k.json")
    image, records = tmp_path / "grey.png", tmp_path / "r.jsonl"
    Image.linear_gradient("L").resize((128, 128)).save(image)
    common = ["--key", tmp_path / "k.json", "--model", tiny_folder]
    made = run("verify", image, *common, "--steps", 3, "--search", "off", "--format", "jsonl")
    records.write_text(made.stdout)
    again = run("recheck", records, *common)
    assert again.exit_code == 0 and again.stdout.startswith("same  ") and "differs" not in again.stdout
    (tmp_path / "moved").mkdir()
    moved = image.rename(tmp_path / "moved" / "other.png")
    assert run("recheck", records, moved, *common).exit_code == 0
    assert run("recheck", records, *common).exit_code == 1  # the file is gone: an error where there was a verdict

    content = json.loads(made.stdout)
    content["verdict"], content["provenance"]["versions"]["torch"] = "detected", "0.1"
    content["provenance"]["weights"] = "0" * 16
    records.write_text(json.dumps([content]))
    result = run("recheck", records, moved, *common, "--format", "jsonl")
    found = json.loads(result.stdout)
    assert result.exit_code == 1 and found["changed"]
    assert found["differences"] == ["versions.torch", "weights"]
    assert found["before"]["log10_pvalue"] == found["now"]["log10_pvalue"]


def test_messages_are_read_again_by_the_key_that_the_record_names(
    tiny_model: LatentModel, tiny_folder: Path, tmp_path: Path
) -> None:
    for name, seed in (("mine", 1), ("other", 2)):
        key = Key.generate(tiny_model.latent_shape, name=name, pattern="gaussian-shading", seed=seed)
        key.save(tmp_path / f"{name}.json")
    Key.generate(tiny_model.latent_shape, name="rings", seed=3).save(tmp_path / "rings.json")
    keys = {name: ["--key", tmp_path / f"{name}.json"] for name in ("mine", "other", "rings")}
    model, image, records = ["--model", tiny_folder], tmp_path / "grey.png", tmp_path / "r.jsonl"
    Image.linear_gradient("L").resize((128, 128)).save(image)
    # An alpha that every p reaches: a message of noise is told, too.
    made = run("decode", image, *keys["mine"], *model, "--steps", 3, "--alpha", 0.999999, "--format", "jsonl")
    record = json.loads(made.stdout)
    records.write_text(made.stdout)
    again = run("recheck", records, *keys["other"], *keys["mine"], *model)
    assert again.exit_code == 0 and again.stdout.startswith("same  "), again.output
    changed = run("recheck", records, *keys["other"], *model, "--format", "jsonl")
    assert changed.exit_code == 1 and any(name.startswith("keys") for name in json.loads(changed.stdout)["differences"])

    assert record["verdict"] == "detected" and record["message"]
    records.write_text(json.dumps({**record, "message": "another"}))
    result = run("recheck", records, *keys["mine"], *model, "--format", "jsonl")
    found = json.loads(result.stdout)
    assert result.exit_code == 1 and found["changed"]
    assert (found["before"]["message"], found["now"]["message"]) == ("another", record["message"])
    assert "message 'another'" in run("recheck", records, *keys["mine"], *model).stdout
    assert "carries no message" in run("recheck", records, *keys["rings"], *model).output
    assert "the one key file" in run("recheck", records, *keys["other"], *keys["rings"], *model).output


def test_records_of_calibrated_detectors_are_judged_again_by_their_calibration(
    tiny_model: LatentModel, tiny_folder: Path, tmp_path: Path
) -> None:
    Key.generate(tiny_model.latent_shape, name="mine", seed=1).save(tmp_path / "k.json")
    image, records = tmp_path / "grey.png", tmp_path / "r.jsonl"
    (tmp_path / "unmarked").mkdir()
    for i in range(3):
        Image.linear_gradient("L").rotate(10 * i).resize((128, 128)).save(tmp_path / "unmarked" / f"{i}.png")
    Image.linear_gradient("L").rotate(45).resize((128, 128)).save(image)
    model, quick = ["--model", tiny_folder], ["--inversion", "encoder", "--steps", 2]
    for name, seed in (("c", 1), ("other", 2)):
        asked = [*model, *quick, "--clean-only", "--seed", seed, "--output", tmp_path / f"{name}.json"]
        made = run("calibrate", tmp_path / "unmarked", *asked)
        assert made.exit_code == 0, made.output
    keys = ["--key", tmp_path / "k.json"]
    mine, other = (["--calibration", tmp_path / f"{name}.json"] for name in ("c", "other"))
    asked = [*quick, "--detector", "distance", "--alpha", 0.3, "--format", "jsonl"]
    made = run("verify", image, *keys, *model, *mine, *asked)
    record = json.loads(made.stdout)
    assert made.exit_code == 0 and record["detector"] == "distance"
    assert record["provenance"]["calibration"] == json.loads((tmp_path / "c.json").read_text())["checksum"]

    records.write_text(made.stdout)
    again = run("recheck", records, *keys, *model, *other, *mine)
    assert again.exit_code == 0 and again.stdout.startswith("same  ") and "differs" not in again.stdout, again.output
    changed = run("recheck", records, *keys, *model, *other, "--format", "jsonl")
    assert json.loads(changed.stdout)["differences"] == ["calibration"]
    missing = run("recheck", records, *keys, *model)
    assert missing.exit_code == 2 and "--calibration FILE" in missing.output and "'distance'" not in missing.stdout


@pytest.mark.parametrize("text", ["", "[]", "{", "[1]", '{"path": "x"}', NO_SETTINGS])
def test_what_is_no_record_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "r").write_text(text)
    with pytest.raises(UsageError, match="record"):
        read_records(tmp_path / "r")


def test_records_of_other_commands_are_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "summary.json").write_text("{}")
    (tmp_path / "rows").write_bytes(b"PAR1 and so on")
    for name, content in (("row", {"path": "a.png", "settings_id": "0"}), ("sidecar", {"model": "m", "marked": True})):
        (tmp_path / name).write_text(json.dumps(content, indent=2) if name == "sidecar" else json.dumps(content))
    for name, words in (
        ("out", "audit again"),
        ("rows", "audit again"),
        ("row", "audit again"),
        ("sidecar", "to treering verify"),
    ):
        with pytest.raises(UsageError, match=words):
            read_records(tmp_path / name)


# --- records from people who mean harm --------------------------------------------------------------------------------

FULL = {"iterations": 5, "step": 0.1}


def record_of(image: Path, **settings: object) -> dict[str, Any]:
    usual = {"method": "encoder", "settings": None, "noise_method": "auto", "steps": 2, "precision": "float32"}
    provenance = {"model": "m", "keys": [], "settings": {**usual, "alpha": 1e-6, "search": "off", **settings}}
    facts = {"status": "ok", "verdict": "no evidence", "alpha": 1e-6, "detector": "exact-cosine", "sha256": None}
    return {"path": str(image), **facts, "provenance": provenance}


HOSTILE = {
    "steps without end": {"steps": 10**9},
    "steps in words": {"steps": "9"},
    "half a step": {"steps": 2.5},
    "iterations without end": {"method": "gradient", "settings": {**FULL, "iterations": 10**9}},
    "a memory without end": {"method": "anderson", "settings": {**FULL, "memory": 10**9}},
    "problems without end": {"method": "gauss-newton", "settings": {**FULL, "inner": 10**9}},
    "a step that is no number": {"method": "gradient", "settings": {**FULL, "step": float("nan")}},
    "a step in words": {"method": "gradient", "settings": {**FULL, "step": "x\x1b[2J"}},
    "settings of another kind": {"settings": {"__class__": 1}},
    "settings that are a list": {"settings": [1]},
    "a method that is a list": {"method": ["x"]},
    "a method with escapes": {"method": "\x1b[2J"},
    "a noise inversion that is a table": {"noise_method": {}},
    "a precision that is a table": {"precision": {}},
    "alpha that is no number": {"alpha": float("nan")},
    "alpha above 1": {"alpha": 2},
    "alpha that is no float": {"alpha": 10**400},
    "a search with escapes": {"search": "x\x1b[2J"},
    "a search that is a list": {"search": [1]},
}


@pytest.mark.parametrize(
    "change",
    [
        *({"log10_pvalue": value} for value in (float("nan"), 1e308, 10**400, float("-inf"), 1, "-3", [])),
        *({"verdict": value} for value in (None, 3, [])),
    ],
)
def test_a_record_whose_verdict_no_command_writes_is_none(change: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text(json.dumps(record_of(tmp_path / "a.png") | change))
    with pytest.raises(UsageError, match="record 1"):
        read_records(tmp_path / "r.jsonl")


@pytest.mark.parametrize("name", HOSTILE)
def test_settings_that_no_command_writes_are_refused_at_once(name: str, tiny_folder: Path, tmp_path: Path) -> None:
    Image.linear_gradient("L").resize((128, 128)).save(tmp_path / "a.png")
    Key.generate(tv.load_model(str(tiny_folder)).latent_shape, seed=1).save(tmp_path / "k.json")
    (tmp_path / "r.jsonl").write_text(json.dumps(record_of(tmp_path / "a.png", **HOSTILE[name])))
    started = time.process_time()
    done = run("recheck", tmp_path / "r.jsonl", "--key", tmp_path / "k.json", "--model", tiny_folder)
    assert done.exit_code == 2 and isinstance(done.exception, SystemExit), (done.output, done.exception)
    assert "\x1b" not in done.output and len(done.output.splitlines()) == 1
    assert time.process_time() - started < 20


def test_what_records_lead_to_is_opened_as_any_suspect_file(tiny_folder: Path, tmp_path: Path) -> None:
    Key.generate(tv.load_model(str(tiny_folder)).latent_shape, seed=1).save(tmp_path / "k.json")
    os.mkfifo(tmp_path / "fifo")
    places = [
        tmp_path / "fifo",
        "/dev/zero",
        "http://127.0.0.1:9/x",
        "\x1b[2J",
        "a\0b",
        "/etc/passwd",
        tmp_path,
        "\ud800",
    ]
    (tmp_path / "r.jsonl").write_text("\n".join(json.dumps(record_of(place)) for place in places))
    done = run("recheck", tmp_path / "r.jsonl", "--key", tmp_path / "k.json", "--model", tiny_folder)
    assert done.exit_code == 1 and "\x1b" not in done.output
    assert done.stdout.count("now error") == done.stdout.count("changed ") == len(places)
    done = run("recheck", tmp_path / "fifo", "--key", tmp_path / "k.json", "--model", tiny_folder)
    assert done.exit_code == 2 and "fifo" in done.output
    (tmp_path / "r.jsonl").write_text(json.dumps({**record_of(tmp_path), "sha256": [1]}))
    assert run("recheck", tmp_path / "r.jsonl", tmp_path / "k.json", "--key", tmp_path / "k.json").exit_code == 2


@pytest.mark.parametrize(
    "model", ["somebody/model", "/tmp/somewhere", "http://127.0.0.1:9/x", "\x1b[2J", None, ["x"], 7]
)
def test_no_model_is_loaded_because_records_name_it(
    model: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("it was loaded")

    monkeypatch.setattr("treering_verify.models.load_model", never)
    Key.generate((4, 32, 32), seed=1).save(tmp_path / "k.json")
    record = record_of(tmp_path / "a.png")
    record["provenance"]["model"] = model
    (tmp_path / "r.jsonl").write_text(json.dumps(record))
    done = run("recheck", tmp_path / "r.jsonl", "--key", tmp_path / "k.json")
    assert done.exit_code == 2 and "is not embedded: give it by --model" in " ".join(done.output.split())
    assert "\x1b" not in done.output
