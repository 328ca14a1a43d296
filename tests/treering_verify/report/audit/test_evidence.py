"""Evidence on the page: spectra and agreement, what the audit kept, and the part of a page that was found."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.audit_rows import row, write_audit
from helpers.images import smooth

from treering_verify.detection.exhibits import FOLDER, Kept, KeptFolder
from treering_verify.report.audit import write_report
from treering_verify.report.figures import spectrum_tile
from treering_verify.results import KeyEvidence
from treering_verify.watermark.embedding import embed
from treering_verify.watermark.keys.key import Key


def test_the_spectrum_is_made_from_the_image_alone() -> None:
    noise = torch.zeros((4, 32, 32), dtype=torch.float64)
    noise[2] = torch.cos(torch.arange(32) * 2 * torch.pi * 6 / 32)  # frequency 6 to the right, channel 2
    pixels = np.asarray(spectrum_tile(noise, (2,), (4, 9), 230)).astype(int)  # 23 bins of 10 pixels
    bright = {(y // 10 - 11, x // 10 - 11) for y, x in np.argwhere(pixels[..., 0] + pixels[..., 2] // 2 > 240)}
    assert {(0, 6), (0, -6)} <= bright
    dark = np.asarray(spectrum_tile(noise, (0, 1), (4, 9), 230)).astype(int)
    assert (dark[115, 175] == dark[5, 5]).all()


def test_a_report_never_holds_a_number_of_the_key(tmp_path: Path, tiny_model: Any) -> None:
    key = Key.generate(tiny_model.latent_shape, seed=11, name="mine")
    smooth(128, 128).save(tmp_path / "a.png")
    known = hashlib.sha256((tmp_path / "a.png").read_bytes()).hexdigest()
    rows = [row(str(tmp_path / "a.png"), "detected", -9.0, key="mine", fingerprint=key.fingerprint, sha256=known)]
    folder = write_audit(tmp_path / "audit", [rows], [{"name": "mine", "fingerprint": key.fingerprint}])
    page = write_report(folder, model=tiny_model, keys=[key], root=tmp_path).read_text()
    assert page.count("data:image/png") == 1 and 'class="rings"' in page
    assert not any(f"{abs(number):.6f}"[:8] in page for number in key.numbers)


def exhibited(tmp_path: Path, key: Key, **fields: Any) -> Path:
    """Return an audit of one detected file that is gone, of which the audit has kept what reports need."""
    noise = embed(torch.randn((1, *key.latent_shape), generator=torch.Generator().manual_seed(1)), key)[0]
    digest = "5a" * 32
    folder = tmp_path / "audit"
    evidence = KeyEvidence("mine", key.fingerprint, 0.9, -99.0, -99.0, key.degrees_of_freedom)
    (folder / "state").mkdir(parents=True)
    store = KeptFolder(folder / "state" / FOLDER, "abc")
    Kept("abc", store.put).add(digest, evidence, smooth(400, 300), smooth(128, 128), noise)
    found = row("gone.png", "detected", -99.0, key="mine", fingerprint=key.fingerprint, sha256=digest) | fields
    return write_audit(folder, [[found]], [{"name": "mine", "fingerprint": key.fingerprint}])


def no_model() -> Any:
    raise AssertionError("the model is not needed")


def test_what_an_audit_kept_is_neither_read_nor_inverted_again(tmp_path: Path) -> None:
    key = Key.generate((4, 32, 32), seed=11, name="mine")
    folder = exhibited(tmp_path, key)
    page = write_report(folder, keys=[key], load=no_model).read_text()
    assert page.count("data:image/jpeg") == 2 and page.count("data:image/png") == 1
    drawn = re.search(r"Agreement with the key: (\d+) of (\d+) groups", page)
    assert drawn and drawn[1] == drawn[2] and "Power of the recovered noise" not in page
    without = write_report(folder, load=no_model).read_text()
    assert "Agreement with the key" not in without and "Power of the recovered noise" in without
    plain = write_report(folder, keys=[key], load=no_model, spectra=False).read_text()
    assert plain.count("data:image/jpeg") == 2 and "data:image/png" not in plain


def test_a_found_part_is_outlined_and_shown_with_its_hypothesis_in_words(tmp_path: Path) -> None:
    key = Key.generate((4, 32, 32), seed=11, name="mine")
    placement = {
        "box": [100, 30, 200, 130],
        "corners": [[100, 30], [200, 30], [200, 130], [100, 130]],
        "scale": [0.31, 0.31],
        "degrees": 0.0,
        "mirrored": True,
    }
    size = {"width": 400, "height": 300}
    page = write_report(exhibited(tmp_path, key, placement=json.dumps(placement), **size), keys=[key]).read_text()
    assert "Found mirrored, at 31 % of the model&#39;s scale, in this box" in page
    near = exhibited(tmp_path / "near", key, placement=json.dumps(placement), hypothesis="found near: mirrored", **size)
    assert "Found near: mirrored, at 31 %" in write_report(near, keys=[key]).read_text()
    other = exhibited(tmp_path / "other", key, hypothesis="found near: the image as it is")
    assert "Found near: the image as it is" in write_report(other).read_text()
    assert 'points="0.2500,0.1000 0.5000,0.1000 0.5000,0.4333 0.2500,0.4333"' in page
    assert "The part in the box, as the model made it" in page and "<dt>box<dd>100, 30, 200, 130" in page


@pytest.mark.parametrize("damage", ["null", "[]", "{", '{"box": [1, 2]}', "[" * 5000, '{"corners": "x"}', '"<b>"'])
def test_a_placement_that_nobody_wrote_is_none(tmp_path: Path, damage: str) -> None:
    key = Key.generate((4, 32, 32), seed=11, name="mine")
    page = write_report(exhibited(tmp_path, key, placement=damage)).read_text()
    assert "<polygon" not in page and '<b>"' not in page
