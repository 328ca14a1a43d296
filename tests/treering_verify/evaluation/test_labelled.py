"""Folders of images whose keys are known: three ways to say which, and what is wrong with each."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from treering_verify.errors import UsageError
from treering_verify.evaluation import labelled_images
from treering_verify.watermark.keys.index import KeyIndex
from treering_verify.watermark.keys.key import Key

SHAPE = (4, 32, 32)
KEYS = [Key.generate(SHAPE, name=name, seed=i) for i, name in enumerate(("ann", "bob"))]


def put(path: Path, sidecar: object = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8)).save(path)
    if sidecar is not None:
        path.with_suffix(".json").write_text(json.dumps(sidecar))
    return path


def test_sidecars_name_keys_by_fingerprint_and_subfolders_by_name(tmp_path: Path) -> None:
    wanted = [
        (put(tmp_path / "a.png", {"marked": True, "fingerprint": KEYS[1].fingerprint}), "bob"),
        (put(tmp_path / "ann" / "1.png"), "ann"),
        (put(tmp_path / "ann" / "2.png", {"marked": False, "fingerprint": None}), "none"),
        (put(tmp_path / "bob" / "deeper" / "ann" / "x.png"), "ann"),
        (put(tmp_path / "none" / "1.jpg"), "none"),
    ]
    (tmp_path / "ann" / "notes.txt").write_text("no image")
    put(tmp_path / "ann" / ".hidden.png")
    assert labelled_images(tmp_path, KEYS) == wanted
    assert labelled_images(tmp_path, [KeyIndex.from_keys(KEYS)]) == wanted


def test_a_table_names_the_images_that_count_by_name_or_fingerprint(tmp_path: Path) -> None:
    one, two, three = (put(tmp_path / "images" / f"{name}.png") for name in "123")
    put(tmp_path / "images" / "not-listed.png")
    table = tmp_path / "truth.csv"
    table.write_text(f"key,path\n{KEYS[0].fingerprint},2.png\nbob,1.png\n,3.png\n")
    assert labelled_images(tmp_path / "images", KEYS, table=table) == [(one, "bob"), (two, "ann"), (three, "none")]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("path\n1.png\n", "needs the columns path and key"),
        ("path,key\n1.png,bobb\n", "line 2 of .*truth.csv: .*'?bobb.*bob"),
        ("path,key\n9.png,bob\n", "line 2 of .*there is no file .*9.png"),
        ("path,key\n1.png,bob\n1.png,ann\n", "line 3 of .*listed twice"),
        ("path,key\n", "has no images"),
    ],
)
def test_what_is_wrong_with_a_table_is_said_with_its_line(tmp_path: Path, lines: str, message: str) -> None:
    put(tmp_path / "1.png")
    (tmp_path / "truth.csv").write_text(lines)
    with pytest.raises(UsageError, match=message):
        labelled_images(tmp_path, KEYS, table=tmp_path / "truth.csv")


def test_an_image_without_a_label_or_with_an_unknown_one_is_named(tmp_path: Path) -> None:
    image = put(tmp_path / "a.png")
    with pytest.raises(UsageError, match=r"nothing says which key .*a\.png has: .*treering generate.*subfolder.*table"):
        labelled_images(tmp_path, KEYS)
    put(image, {"marked": True, "fingerprint": "0" * 16})
    with pytest.raises(UsageError, match=r"the sidecar .*a\.json: .*0000"):
        labelled_images(tmp_path, KEYS)
    put(image, {"width": 8})
    with pytest.raises(UsageError, match="no field 'marked'"):
        labelled_images(tmp_path, KEYS)
    image.with_suffix(".json").write_text("{")
    with pytest.raises(UsageError, match="cannot be read as a sidecar"):
        labelled_images(tmp_path, KEYS)
    put(tmp_path / "b" / "eve" / "a.png")
    with pytest.raises(UsageError, match=r"the folder of .*eve"):
        labelled_images(tmp_path / "b", KEYS)
    with pytest.raises(UsageError, match="is not a folder"):
        labelled_images(tmp_path / "missing", KEYS)
    with pytest.raises(UsageError, match="'none', which stands for unmarked"):
        labelled_images(tmp_path, [Key.generate(SHAPE, name="none", seed=1)])
