"""`Detector`: one object for verify, identify, decode and audit. It answers as the functions do, and checks first."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.places import SAMPLES
from PIL import Image

import treering_verify as tv
from treering_verify import detector as module
from treering_verify.detection import Screening, with_message
from treering_verify.models import LatentModel
from treering_verify.watermark.keys.index_file import write_index

SHAPE = (4, 32, 32)
QUICK: dict[str, Any] = {"inversion": "encoder", "noise_inversion": "naive", "steps": 1, "search": "off"}
MARKED, UNMARKED = SAMPLES / "marked-1.png", SAMPLES / "unmarked-1.png"


@pytest.fixture(scope="module")
def model() -> LatentModel:
    return tv.load_model("landscape")


@pytest.fixture
def unloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(module, "load_model", refuse)


def other(i: int, **options: Any) -> tv.Key:
    return tv.Key.generate(SHAPE, name=f"other-{i}", seed=i, **options)


def facts(verdict: tv.Verdict) -> tuple[object, ...]:
    return verdict.path, verdict.verdict, verdict.evidence, verdict.note, verdict.keys_tried


def test_it_answers_as_the_functions_do(sample_key: tv.Key, model: LatentModel) -> None:
    keys, images = [sample_key, other(1)], [MARKED, UNMARKED]
    options = tv.InversionOptions(method="encoder", noise_method="naive", steps=1)
    found = tv.Detector(keys, model=model, **QUICK)
    verified = tv.verify_many(images, keys, model=model, inversion=options, search=None)
    assert [facts(v) for v in found.verify_many(images)] == [facts(v) for v in verified]
    named = tv.detection.identify_many(images, keys, model=model, inversion=options, top=2, search=None)
    assert [facts(v) for v in found.identify_many(images, top=2)] == [facts(v) for v in named]
    assert found.verify(MARKED).key == "sample" and found.identify(UNMARKED).verdict == "no evidence"
    assert facts(found.verify(MARKED)) == facts(next(found.verify_many([MARKED])))
    assert found.identify(MARKED, top=1).best == found.identify(MARKED).evidence[0]
    assert found.verify(Image.open(MARKED).convert("RGB")).key == "sample"
    assert found.verify(b"no image").status == "error"


def test_a_list_of_images_has_a_list_of_verdicts(sample_key: tv.Key, model: LatentModel) -> None:
    found = tv.Detector(sample_key, model=model, **QUICK)
    image = Image.open(MARKED).convert("RGB")
    pixels = np.asarray(image)
    tensor = torch.from_numpy(pixels / np.float32(255)).movedim(-1, 0)
    kinds: list[Any] = [
        MARKED,
        str(MARKED),
        MARKED.read_bytes(),
        io.BytesIO(MARKED.read_bytes()),
        image,
        pixels,
        tensor,
    ]
    assert [one.key for one in found.verify([*kinds, UNMARKED, b"none"])] == ["sample"] * len(kinds) + ["", ""]
    assert [one.key for one in found.verify((pixels[None], tensor[None]))] == ["sample", "sample"]
    assert [one.key for one in found.identify([MARKED, UNMARKED], top=1)] == ["sample", ""]
    options = tv.InversionOptions(method="encoder")
    assert [one.key for one in tv.verify([MARKED], sample_key, model=model, inversion=options, search=None)] == [
        "sample"
    ]
    named = tv.detection.identify([UNMARKED], sample_key, model=model, inversion=options, search=None)
    assert [one.verdict for one in named] == ["no evidence"]
    assert found.verify([]) == [] and found.identify(()) == []
    with pytest.raises(tv.UsageError, match="a list in a list of images is several"):
        found.verify([[MARKED]])  # type: ignore[list-item]


def test_a_batch_of_several_is_judged_by_verify_many_and_verify_says_so(sample_key: tv.Key, model: LatentModel) -> None:
    found = tv.Detector(sample_key, model=model, **QUICK)
    image = Image.open(MARKED).convert("RGB")
    pixels = np.asarray(image)
    tensor = torch.from_numpy(pixels / np.float32(255)).movedim(-1, 0)
    several: tuple[Any, ...] = (np.stack([pixels, pixels]), torch.stack([tensor, tensor]))
    for images in (*several, [MARKED, image], (MARKED, image)):
        assert [one.key for one in found.verify_many(images)] == ["sample", "sample"]
    for images in several:
        with pytest.raises(tv.UsageError, match=r"holds 2 images.* verify_many all"):
            found.verify(images)
    for one in (pixels[None], tensor[None]):
        assert found.verify(one).key == "sample", "a batch of one is an image"
        assert [verdict.key for verdict in found.verify_many(one)] == ["sample"]
    for alone in (
        str(MARKED),
        MARKED,
        MARKED.read_bytes(),
        io.BytesIO(MARKED.read_bytes()),
        image,
        pixels,
        tensor,
        {"a": image},
        5,
        None,
    ):
        with pytest.raises(tv.UsageError, match="give a list of them"):
            next(found.verify_many(alone))  # type: ignore[arg-type]


def test_it_audits_with_and_without_a_folder_for_the_rows(
    sample_key: tv.Key, model: LatentModel, tmp_path: Path
) -> None:
    found = tv.Detector(sample_key, model=model, **QUICK)
    plain = [(Path(row.path).name, row.verdict, row.log10_pvalue) for row in found.audit([MARKED, UNMARKED])]
    stored = [
        (Path(row.path).name, row.verdict, row.log10_pvalue)
        for row in found.audit([MARKED, UNMARKED], output=tmp_path / "out")
    ]
    assert plain == stored and sorted(v for _, v, _ in plain) == ["detected", "no evidence"]
    assert (tmp_path / "out" / "summary.json").is_file()


def test_it_decodes_under_one_key(model: LatentModel) -> None:
    key = with_message(tv.Key.generate(SHAPE, name="shading", pattern="gaussian-shading", seed=3), "edition 7")
    (made,) = tv.generate(model, key, seeds=[5])
    assert tv.Detector(key, model=model).decode(made.image).message == "edition 7"
    with pytest.raises(tv.UsageError, match="under one key"):
        tv.Detector([key, other(1)], model=model).decode(made.image)


def test_keys_are_taken_as_objects_files_folders_and_indexes(sample_key: tv.Key, tmp_path: Path, model: Any) -> None:
    folder = tmp_path / "keys"
    folder.mkdir()
    for i in range(3):
        other(i).save(folder / f"{i}.json")
    sample_key.save(tmp_path / "sample.json")
    write_index(tmp_path / "all.index", sample_key.family, 2, _blocks([other(7), other(8)], sample_key), "float16")
    for keys, count in (
        (sample_key, 1),
        (tmp_path / "sample.json", 1),
        (str(folder), 3),
        ([folder, tmp_path / "sample.json"], 4),
        (tv.KeyIndex.load(tmp_path / "all.index"), 2),
        ([tmp_path / "all.index", sample_key], 3),
    ):
        found = tv.Detector(keys, model=model, **QUICK)
        assert f"of {count} key" in repr(found)
        assert found.verify(MARKED).keys_tried == count
    assert tv.Detector([tmp_path / "all.index", sample_key], model=model, **QUICK).verify(MARKED).key == "sample"


def _blocks(keys: list[tv.Key], like: tv.Key) -> Any:
    from treering_verify.watermark.keys.index_file import blocks_of

    return blocks_of(keys, like.family)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 0.0}, "alpha"),
        ({"inversion": "learnd"}, "did you mean learned"),
        ({"noise_inversion": "naiv"}, "did you mean naive"),
        ({"precision": "float61"}, "did you mean float16"),
        ({"steps": -1}, "steps"),
        ({"search": "flips"}, "flip"),
        ({"search": "sloppy"}, "no search"),
        ({"decoys": -1}, "decoys"),
        ({"detector": "distanc"}, "did you mean distance"),
        ({"detector": "distance"}, "needs calibration"),
        ({"calibration": "x.json"}, "the exact test needs no calibration"),
        ({"screening": "of"}, "did you mean off"),
        ({"model": 7}, "model is of type int"),
        ({"allow_weak": True}, "give profile too"),
        ({"profile": "x.json", "steps": 3}, "a profile decides"),
        ({"inversion": tv.InversionOptions(), "steps": 3}, "InversionOptions hold"),
    ],
)
def test_what_is_wrong_is_told_before_the_model_is_loaded(
    unloaded: None, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(tv.UsageError, match=message):
        tv.Detector(other(1), **options)


def test_keys_that_cannot_be_right_are_told_before_the_model_is_loaded(unloaded: None, tmp_path: Path) -> None:
    with pytest.raises(tv.UsageError, match="no key"):
        tv.Detector([])
    with pytest.raises(tv.UsageError, match="same name"):
        tv.Detector([other(1), other(1)])
    with pytest.raises(tv.UsageError, match=r"noise \(4, 16, 16\), model 'landscape' has \(4, 32, 32\)"):
        tv.Detector(tv.Key.generate((4, 16, 16), seed=1, inner_radius=2, outer_radius=5))
    with pytest.raises(tv.errors.KeyFileError, match="missing"):
        tv.Detector(tmp_path / "missing.json")
    with pytest.raises(tv.errors.ModelError, match="did you mean landscape"):
        tv.Detector(other(1), model="lanscape")


def test_it_says_what_it_is_and_keeps_secrets() -> None:
    key = other(1)
    shown = repr(tv.Detector(key))
    assert shown == "<Detector of 1 key, model landscape, alpha 1e-06>"
    assert tv.Detector(key).keys == (key,) and tv.Detector(key).alpha == 1e-6


def test_inversion_and_screening_may_be_objects(sample_key: tv.Key, model: LatentModel) -> None:
    options = tv.InversionOptions(method="encoder", noise_method="naive", steps=1)
    found = tv.Detector(sample_key, model=model, inversion=options, screening=Screening(method="latent"), search=None)
    assert found.inversion is options and found.verify(MARKED).key == "sample"
    (row,) = found.audit(MARKED)
    assert row.verdict == "detected" and row.decided_by == "first"


TYPED = """
from typing import assert_type
from PIL import Image
import treering_verify as tv
from treering_verify.models import LatentModel, VideoModel, makes_videos

def judged(image: Image.Image, key: tv.Key, given: tv.Detector, loaded: LatentModel, video: VideoModel) -> None:
    for detector in (tv.Detector(key), tv.Detector(key, model="landscape"), tv.Detector(key, model=loaded), given):
        assert_type(detector.verify(image), tv.Verdict)
        assert_type(detector.verify("image.png"), tv.Verdict)
        assert_type(detector.verify([image, image]), list[tv.Verdict])
    assert_type(tv.Detector(key, model=video).verify([image, image]), tv.Verdict)
    assert_type(tv.Detector(key, model=video).verify("video.mp4"), tv.Verdict)
    if makes_videos(loaded):
        assert_type(tv.Detector(key, model=loaded).verify([image, image]), tv.Verdict)
"""


@pytest.mark.slow
def test_type_checkers_know_what_verify_returns_also_of_frames_of_a_video(tmp_path: Path) -> None:
    (tmp_path / "typed.py").write_text(TYPED)
    command = [sys.executable, "-m", "mypy", "--config-file", "pyproject.toml", str(tmp_path / "typed.py")]
    run = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "MYPYPATH": "."})
    assert run.returncode == 0, run.stdout
