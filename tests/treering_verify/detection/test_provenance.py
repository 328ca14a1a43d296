"""Records say which file was judged, when, by which model, keys, settings and versions."""

from __future__ import annotations

import hashlib
import io
import json
from datetime import UTC, datetime
from pathlib import Path

from click.testing import CliRunner
from PIL import Image

import treering_verify as tv
from treering_verify.cli.main import main
from treering_verify.detection.judge import Judge
from treering_verify.detection.verification import key_test
from treering_verify.media.digests import sha256_of
from treering_verify.models import LatentModel
from treering_verify.models.weights import fingerprint
from treering_verify.version import __version__
from treering_verify.watermark.keys.index import public_keys
from treering_verify.watermark.keys.key import Key


def test_a_record_has_the_digest_of_its_file_and_what_judged_it(
    tiny_model: LatentModel, tiny_folder: Path, tmp_path: Path
) -> None:
    key = Key.generate(tiny_model.latent_shape, name="mine", seed=1)
    key.save(tmp_path / "k.json")
    image, broken = tmp_path / "grey.png", tmp_path / "broken.png"
    Image.linear_gradient("L").resize((128, 128)).save(image)
    broken.write_bytes(b"no image")
    before = datetime.now(UTC).replace(microsecond=0)
    call = ["--key", tmp_path / "k.json", "--model", tiny_folder, "--steps", 3, "--alpha", 1e-4, "--search", "off"]
    for command in ("verify", "identify"):
        result = CliRunner().invoke(main, [command, *map(str, [image, broken, *call, "--format", "jsonl"])])
        assert result.exit_code == 3, result.output
        records = [json.loads(line) for line in result.stdout.splitlines()]
        for record, path in zip(records, (image, broken), strict=True):
            assert record["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
            assert before <= datetime.fromisoformat(record["time"]) <= datetime.now(UTC)
            found = record["provenance"]
            assert found["weights"] == fingerprint(tiny_model)
            assert found["keys"] == [{"name": "mine", "fingerprint": key.fingerprint}]
            assert found["versions"]["treering-verify"] == __version__ and found["versions"]["torch"]
            settings = found["settings"]
            assert (settings["alpha"], settings["steps"], settings["search"]) == (1e-4, 3, "off")
        numbers = {f"{abs(number):.9f}"[2:8] for number in key.numbers}
        assert not [digits for digits in numbers if digits in result.stdout]


def test_an_image_in_memory_has_no_digest_and_other_settings_show(tiny_model: LatentModel) -> None:
    key = Key.generate(tiny_model.latent_shape, seed=1)
    (verdict,) = Judge.of(tiny_model, key_test(key, tiny_model)).verdicts([Image.new("RGB", (128, 128))])
    assert verdict.record()["sha256"] is None and verdict.record()["time"]
    buffer = io.BytesIO()
    Image.new("RGB", (128, 128)).save(buffer, "PNG")
    data = buffer.getvalue()
    judge = Judge.of(tiny_model, key_test(key, tiny_model))
    (verdict,) = judge.verdicts([io.BytesIO(data)])  # an open file has one
    assert verdict.record()["sha256"] == hashlib.sha256(data).hexdigest()
    other = Judge.of(tiny_model, key_test(key, tiny_model), inversion=tv.InversionOptions(steps=7)).provenance
    changed = {name for name, value in other["settings"].items() if verdict.provenance["settings"][name] != value}
    assert changed == {"steps"}


def test_many_keys_are_told_by_a_digest_that_depends_on_each(tiny_model: LatentModel) -> None:
    keys = [Key.generate(tiny_model.latent_shape, name=f"k{i}", seed=i) for i in range(4)]
    assert [one["name"] for one in public_keys(keys[::-1], 4)] == ["k0", "k1", "k2", "k3"]  # type: ignore[index]
    many, fewer = public_keys(keys, 2), public_keys(keys[:3], 2)
    assert isinstance(many, dict) and isinstance(fewer, dict)
    assert many["count"] == 4 and many["digest"] != fewer["digest"]


def test_sidecars_have_the_digest_of_the_image_beside_them(tiny_folder: Path, tmp_path: Path) -> None:
    words = ["generate", "--unmarked", "--steps", "1", "--model", str(tiny_folder), "--output", str(tmp_path)]
    assert CliRunner().invoke(main, words).exit_code == 0
    sidecar = json.loads((tmp_path / "unmarked-000000.json").read_text())
    assert sidecar["sha256"] == sha256_of(tmp_path / "unmarked-000000.png") is not None
    assert sidecar["provenance"]["keys"] == [] and sidecar["provenance"]["settings"] == {"steps": 1, "guidance": 2.0}
