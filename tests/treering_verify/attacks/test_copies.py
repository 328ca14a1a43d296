"""`treering attack` and what it stands on: copies, sidecars, refusals."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from treering_verify.attacks import RANGES, Attack, copies, parse
from treering_verify.attacks.copies import attack_files
from treering_verify.cli.main import main
from treering_verify.errors import UsageError
from treering_verify.media.images import CODES, open_image
from treering_verify.models import LatentModel


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.radial_gradient("L").resize((40, 30)).convert("RGB").save(path)
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["attack", *map(str, arguments)])


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def test_every_copy_is_the_attacks_pixels_beside_a_sidecar_that_makes_it_again(photo: Path, tmp_path: Path) -> None:
    out, texts = tmp_path / "new" / "out", ["jpeg:quality=25", "resize:share=0.5+noise:sigma=0.1"]
    second = tmp_path / "second.bmp"
    open_image(photo).rotate(180).save(second)
    result = run(
        photo, second, "--attack", texts[0], "--attack", texts[1], "--output", out, "--seed", 7, "--format", "jsonl"
    )
    assert result.exit_code == 0, result.output
    records = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(r["path"], r["attack"], r["seed"]) for r in records] == [
        (str(source), text, seed) for source, seed in ((photo, 7), (second, 8)) for text in texts
    ]
    for record in records:
        copy = Path(record["output"])
        sidecar = json.loads(copy.with_suffix(".json").read_text())
        assert sidecar == record
        again = parse(sidecar["attack"]).apply(open_image(sidecar["path"]), sidecar["seed"])
        assert open_image(copy).tobytes() == again.tobytes()
        assert record["status"] == "ok" and record["schema_version"] == 1 and record["model"] is None
        assert record["source_sha256"] == hashlib.sha256(Path(record["path"]).read_bytes()).hexdigest()
        assert record["sha256"] == hashlib.sha256(copy.read_bytes()).hexdigest()
        assert (record["width"], record["height"]) == (40, 30)
        provenance = record["provenance"]
        assert (
            provenance["settings"] == {"attack": record["attack"], "seed": record["seed"]} and not provenance["model"]
        )
        assert provenance["versions"]["pillow"] and record["time"].endswith("Z")
        stages = [Attack(stage["name"], stage["parameters"]) for stage in record["stages"]]
        assert "+".join(map(str, stages)) == record["attack"]
    assert "photo-jpeg-quality=25.png" in names(out) and len(names(out)) == 8


def test_text_names_the_copies_and_json_is_one_array(photo: Path, tmp_path: Path) -> None:
    text = run(photo, "--attack", "flip", "--output", tmp_path / "a")
    assert text.stdout == f"{tmp_path / 'a' / 'photo-flip.png'}\n" and text.stderr == ""
    array = run(photo, "--attack", "flip", "--attack", "flip", "--output", tmp_path / "b", "--format", "json")
    assert [r["status"] for r in json.loads(array.stdout)] == ["ok"]  # an attack named twice is one attack


def test_codec_bytes_are_kept_when_asked_for(photo: Path, tmp_path: Path) -> None:
    attacks = ["jpeg:quality=25", "flip+webp:quality=30", "avif:quality=40", "flip"]
    chosen = [part for text in attacks for part in ("--attack", text)]
    assert run(photo, *chosen, "--output", tmp_path / "raw", "--codec-bytes").exit_code == 0
    assert run(photo, *chosen, "--output", tmp_path / "png").exit_code == 0
    raw = {p.stem: p for p in (tmp_path / "raw").iterdir() if p.suffix != ".json"}
    decoded = {p.stem: p for p in (tmp_path / "png").iterdir() if p.suffix != ".json"}
    assert {p.suffix for p in raw.values()} == {".jpg", ".webp", ".avif", ".png"}
    assert {p.suffix for p in decoded.values()} == {".png"} and set(raw) == set(decoded)
    for stem, path in raw.items():
        with Image.open(path) as image:
            assert image.format is not None and Image.registered_extensions()[path.suffix] == image.format
        assert open_image(path).tobytes() == open_image(decoded[stem]).tobytes()


def test_what_cannot_be_read_is_a_record_and_the_others_are_done(photo: Path, tmp_path: Path) -> None:
    broken, out = tmp_path / "broken.jpg", tmp_path / "out"
    broken.write_bytes(b"no image")
    (tmp_path / "empty.png").touch()
    result = run(broken, tmp_path / "empty.png", photo, "--attack", "flip", "--output", out, "--format", "jsonl")
    assert result.exit_code == 3
    records = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(r["status"], r["code"]) for r in records] == [
        ("error", "not_an_image"),
        ("error", "empty"),
        ("ok", ""),
    ]
    assert records[0]["attack"] is None and records[0]["output"] is None and records[2]["seed"] == 2
    assert names(out) == ["photo-flip.json", "photo-flip.png"]
    text = run(broken, "--attack", "flip", "--output", out)
    assert text.exit_code == 3 and "not_an_image: " in text.stdout


def test_an_image_that_one_codec_refuses_is_still_attacked_by_the_others(tmp_path: Path) -> None:
    wide = tmp_path / "wide.png"
    Image.new("RGB", (16400, 8)).save(wide)
    made = list(attack_files([wide], [parse("webp"), parse("flip")], tmp_path / "out"))
    assert [(m.status, m.code) for m in made] == [("error", "not_encodable"), ("ok", "")]
    assert made[0].code in CODES and str(made[0].attack) == "webp:quality=75"
    assert names(tmp_path / "out") == ["wide-flip.json", "wide-flip.png"]


def test_what_exists_is_never_replaced_unless_asked(photo: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run(photo, "--attack", "noise", "--output", out).exit_code == 0
    before = {name: (out / name).read_bytes() for name in names(out)}
    refused = run(photo, "--attack", "flip", "--attack", "noise", "--output", out, "--seed", 5)
    assert refused.exit_code == 2 and "--overwrite" in refused.stderr and refused.stdout == ""
    assert {name: (out / name).read_bytes() for name in names(out)} == before
    assert run(photo, "--attack", "noise", "--output", out, "--seed", 5, "--overwrite").exit_code == 0
    assert {name: (out / name).read_bytes() for name in names(out)} != before


def test_two_copies_never_take_one_name_nor_a_sources(photo: Path, tmp_path: Path) -> None:
    twin = tmp_path / "sub" / "photo.bmp"
    twin.parent.mkdir()
    open_image(photo).save(twin)
    clash = run(photo, twin, "--attack", "flip", "--output", tmp_path / "out")
    assert clash.exit_code == 2 and "two folders" in clash.stderr and not (tmp_path / "out").exists()
    own = tmp_path / "photo-flip.png"
    open_image(photo).save(own)
    before = own.read_bytes()
    refused = run(photo, own, "--attack", "flip", "--output", tmp_path, "--overwrite")
    assert refused.exit_code == 2 and "one of the files to attack" in refused.stderr
    assert own.read_bytes() == before


def test_a_crash_leaves_nothing_under_a_final_name(
    photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    result = run(photo, "--attack", "flip", "--output", tmp_path / "out")
    assert result.exit_code == 2 and "No space left" in result.stderr
    assert names(tmp_path / "out") == []


def test_a_copy_is_never_without_its_sidecar(photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    monkeypatch.setattr(copies, "write_atomic", lambda path, data, **_: written.append(Path(path).suffix))
    list(attack_files([photo], [parse("flip")], tmp_path / "out"))
    assert written == [".json", ".png"]


def test_wrong_attacks_and_seeds_are_refused_before_anything_is_written(photo: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for attack in ("jpg", "jpeg:quality=0", "flip+"):
        assert run(photo, "--attack", attack, "--output", out).exit_code == 2
    assert run(photo, "--attack", "flip", "--output", out, "--seed", -1).exit_code == 2
    assert run(photo, "--attack", "regenerate_vae", "--output", out, "--model", tmp_path / "none").exit_code == 2
    assert run(photo, "--output", out).exit_code == 2
    with pytest.raises(UsageError, match="needs a model"):
        list(attack_files([photo], [parse("regenerate_vae")], out))
    with pytest.raises(UsageError, match="seed"):
        list(attack_files([photo], [parse("flip")], out, seed=-1))
    assert not out.exists()
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert run(photo, "--attack", "flip", "--output", blocked).exit_code == 2


def test_a_model_attack_loads_the_model_and_names_it(
    photo: Path, tmp_path: Path, tiny_folder: Path, tiny_model: LatentModel
) -> None:
    out = tmp_path / "out"
    result = run(
        photo, "--attack", "regenerate_vae", "--attack", "flip", "--output", out, "--model", tiny_folder,
        "--format", "json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    first, second = json.loads(result.stdout)
    assert first["model"] == tiny_model.name and second["model"] is None
    expected = parse("regenerate_vae").apply(open_image(photo), 0, tiny_model)
    assert open_image(first["output"]).tobytes() == expected.tobytes()


def test_the_list_names_every_attack_with_its_ranges_and_needs_nothing_else() -> None:
    result = run("--list")
    assert result.exit_code == 0
    for name, ranges in RANGES.items():
        (line,) = (line for line in result.stdout.splitlines() if line.startswith(f"{name}:"))
        assert all(f"{p} (" in line and f"from {low:g} to {high:g}" in line for p, (low, high) in ranges.items())
        assert ("needs a model" in line) == Attack(name).needs_model
