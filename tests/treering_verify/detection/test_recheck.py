"""Records are judged again: the same verdict is the same, and what changed is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

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


def test_records_of_calibrated_detectors_are_refused(tmp_path: Path) -> None:
    record = {"path": "x", "status": "ok", "alpha": 0.01, "provenance": {"settings": {}}, "detector": "distance"}
    (tmp_path / "r").write_text(json.dumps(record))
    with pytest.raises(UsageError, match="calibrated detector"):
        read_records(tmp_path / "r")


@pytest.mark.parametrize("text", ["", "[]", "{", "[1]", '{"path": "x"}', NO_SETTINGS])
def test_what_is_no_record_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "r").write_text(text)
    with pytest.raises(UsageError, match="record"):
        read_records(tmp_path / "r")
