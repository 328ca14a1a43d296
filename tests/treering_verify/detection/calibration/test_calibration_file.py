"""Files of calibrations: they give back what was saved, hold no key, and are refused where nobody's command wrote them."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from helpers.calibrations import (
    DETECTORS,
    FAMILY,
    QUICK,
    SHAPE,
    few_steps,
    judged,
    unmarked_images,
)

from treering_verify.cli.main import main
from treering_verify.detection.calibration import calibration_file
from treering_verify.detection.calibration.build import calibrate
from treering_verify.detection.calibration.calibration_file import CLEAN, Calibration
from treering_verify.errors import UsageError
from treering_verify.media.conversion import save_png
from treering_verify.models import LatentModel
from treering_verify.watermark.keys.key import Family, Key


def test_a_file_gives_back_what_was_saved(calibration: Calibration, tmp_path: Path) -> None:
    calibration.save(tmp_path / "c.json")
    loaded = Calibration.load(tmp_path / "c.json")
    assert loaded.setting == calibration.setting and loaded.digests == calibration.digests
    assert (loaded.resized, loaded.residual, loaded.seed) == (0, calibration.residual, 3)
    assert loaded.learned == calibration.learned
    for detector in DETECTORS:
        for stratum in calibration.strata:
            np.testing.assert_array_equal(loaded.scores[detector][stratum], calibration.scores[detector][stratum])
    assert {p.name for p in tmp_path.iterdir()} == {"c.json"}


def test_a_file_holds_no_key(tiny_model: LatentModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few_steps(monkeypatch)
    numbers: list[float] = []
    original = Key.of.__func__  # type: ignore[attr-defined]

    def watched(cls: type[Key], family: Family, name: str, drawn: Any, *more: Any) -> Key:
        numbers.extend(np.asarray(drawn).tolist())
        return original(cls, family, name, drawn, *more)

    monkeypatch.setattr(Key, "of", classmethod(watched))
    options = {"model": tiny_model, "attacks": (), "classifier_images": 8, "inversion": QUICK}
    made, _ = calibrate(unmarked_images(0, 3), FAMILY, **options)
    made.save(tmp_path / "c.json")
    text = (tmp_path / "c.json").read_text()
    assert len(numbers) == (3 + 8) * FAMILY.degrees_of_freedom  # of the calibration and the classifier
    assert not any(f"{abs(n):.8f}"[:9] in text for n in numbers)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[:-30],
        lambda text: text.replace('"resized": 0', '"resized": 1'),
        lambda text: "[]",
        lambda text: "{}",
        lambda text: "\x00",
    ],
)
def test_a_damaged_file_is_refused(calibration: Calibration, tmp_path: Path, damage: Any) -> None:
    path = tmp_path / "c.json"
    calibration.save(path)
    path.write_text(damage(path.read_text()))
    with pytest.raises(UsageError, match="treering calibrate"):
        Calibration.load(path)


def hostile(content: dict[str, Any], *path: str, to: object) -> dict[str, Any]:
    """Return a calibration with one value changed, and a checksum that fits."""
    changed = json.loads(json.dumps(content))
    changed.pop("checksum", None)
    inner = changed
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = to
    return {**changed, "checksum": calibration_file._checksum(changed)}


HOSTILE: dict[tuple[str, ...], tuple[object, ...]] = {
    ("model",): ("\x1b[2J" * 1000, ["x"], 7, {}),
    ("weights",): ("\x1b[2J", 7),
    ("version",): ("\x1b[2J", None),
    ("image_size",): ([10**9, 10**9], [1], "x", [1.5, 2]),
    ("family",): ({}, [], "x"),
    ("family", "pattern"): ("\x1b[2J", ["x"], None),
    ("family", "latent_shape"): ([4, 10**9, 10**9], [1024] * 3, [-1] * 3),
    ("family", "channels"): (list(range(1000)), "abcd"),
    ("family", "outer_radius"): (10**9, -1),
    ("inversion",): ([], {"method": {"x": 1}}, {"\x1b[2J": "\x1b[2J"}, "x"),
    ("scores",): ({}, [], {"\x1b[2J": {}}, {"chi-square": {"clean": []}}, {"chi-square": {"clean": [[1.0]] * 19}}),
    ("scores", "chi-square", CLEAN): (["x"], [None], [1e400], [True] * 19, {"a": 1}, "x" * 19, 7),
    ("resized",): (10**30, "x", -1),
    ("residual",): (["x", "y"], [1, 2, 3], 7, [None, None]),
    ("seed",): ("x", 10**400),
    ("learned",): (
        [],
        "x",
        {"weights": "x"},
        {"weights": [1e400], "intercept": 0, "scale": 1, "shift": 0},
        {"weights": []},
    ),
    ("digests",): ([["x"]] * 100, 7, {"a": 1}),
    ("training",): ("x", None),
}


@pytest.mark.parametrize("path", HOSTILE)
def test_a_file_that_no_command_wrote_ends_in_one_line_or_a_verdict(
    path: tuple[str, ...], calibration: Calibration, tiny_model: LatentModel, tiny_folder: Path, tmp_path: Path
) -> None:
    calibration.save(tmp_path / "c.json")
    content = json.loads((tmp_path / "c.json").read_text())
    Key.generate(SHAPE, seed=99).save(tmp_path / "k.json")
    (image,) = unmarked_images(500, 1)
    save_png(image, tmp_path / "i.png")
    words = ["verify", "i.png", "--key", "k.json", "--calibration", "h.json", "--alpha", "0.1", "--model", tiny_folder]
    for value in HOSTILE[path]:
        (tmp_path / "h.json").write_text(json.dumps(hostile(content, *path, to=value)))
        with contextlib.chdir(tmp_path):
            done = CliRunner().invoke(main, [*map(str, words), "--detector", "chi-square"])
        assert isinstance(done.exception, SystemExit | None), (value, done.exception)
        assert done.exit_code in (0, 2) and "\x1b" not in done.output, (value, done.output)
        assert len(done.output) < 8000
        for detector in ("chi-square", "classifier"):
            with contextlib.suppress(UsageError):
                (verdict,) = judged([image], Calibration.load(tmp_path / "h.json"), tiny_model, detector)
                assert 0 < verdict.pvalue <= 1


def test_a_file_of_brackets_and_a_fifo_are_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text("[" + "[]," * 5_000_000 + "0]")
    with pytest.raises(UsageError, match="not a calibration file"):
        Calibration.load(tmp_path / "c.json")
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(UsageError, match="cannot read"):
        Calibration.load(tmp_path / "fifo")
