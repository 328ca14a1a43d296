"""Keys over time: equal by fingerprint, named by it, retired in their file, and still verified then."""

from __future__ import annotations

import copy
import json
import pickle
import re
import stat
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from helpers.places import SAMPLES

import treering_verify as tv
from treering_verify.cli.main import main
from treering_verify.errors import KeyFileError, UsageError
from treering_verify.watermark.keys.index import KeyIndex, retired_keys
from treering_verify.watermark.keys.index_file import blocks_of, write_index
from treering_verify.watermark.keys.key import Key
from treering_verify.watermark.keys.key_dates import state_of
from treering_verify.watermark.keys.key_folder import retire

SHAPE = (4, 32, 32)
DAY = date(2026, 3, 1)


@pytest.fixture
def key() -> Key:
    return Key.generate(SHAPE, name="gallery", seed=1)


def test_keys_are_equal_by_fingerprint_whatever_they_are_called(key: Key) -> None:
    other = Key.generate(SHAPE, name="gallery", seed=2)
    again = replace(key, name="other", retired=DAY, note="gone")
    assert key == again and hash(key) == hash(again) and len({key, again, other}) == 2
    assert key != other and key != key.fingerprint
    assert again.fingerprint == key.fingerprint


def test_a_copy_through_pickle_is_equal_and_read_only(key: Key) -> None:
    dated = replace(key, not_before=DAY, note="a note")
    for again in (pickle.loads(pickle.dumps(dated)), copy.copy(dated), copy.deepcopy(dated)):
        assert again == dated and again is not dated
        assert (again.name, again.not_before, again.note) == ("gallery", DAY, "a note")
        with pytest.raises(ValueError, match="read-only"):
            again.numbers[0] = 1.0


def test_a_key_without_a_name_is_called_by_its_fingerprint(key: Key, tmp_path: Path) -> None:
    unnamed = Key.generate(SHAPE, seed=1)
    assert unnamed == key and unnamed.name == key.fingerprint[:8]
    assert Key.of(key.family, None, key.numbers).name == key.fingerprint[:8]
    made = CliRunner().invoke(main, ["keygen", "--output", str(tmp_path / "my images.json")])
    read = Key.load(tmp_path / "my images.json")
    assert made.exit_code == 0 and read.name == read.fingerprint[:8]


def test_dates_and_note_are_read_back_and_change_no_fingerprint(key: Key, tmp_path: Path) -> None:
    dated = replace(key, not_before=date(2026, 1, 1), retired=DAY, note="replaced by «new»")
    dated.save(tmp_path / "k.json")
    again = Key.load(tmp_path / "k.json")
    assert (again.not_before, again.retired, again.note) == (date(2026, 1, 1), DAY, "replaced by «new»")
    assert again.fingerprint == key.fingerprint
    key.save(tmp_path / "plain.json")
    assert not {"not_before", "retired", "note"} & set(json.loads((tmp_path / "plain.json").read_text()))


def test_a_key_may_be_made_for_later(tmp_path: Path) -> None:
    path = str(tmp_path / "next.key.json")
    wanted = ["--not-before", "9999-01-01", "--note", "for the next release"]
    assert CliRunner().invoke(main, ["keygen", "--output", path, *wanted]).exit_code == 0
    listed = CliRunner().invoke(main, ["keys", "list", path]).stdout
    assert "not in use before 9999-01-01  for the next release" in listed
    refused = CliRunner().invoke(main, ["generate", "--key", path, "--count", "1", "--output", str(tmp_path / "out")])
    assert refused.exit_code == 2 and "is not in use before 9999-01-01" in refused.stderr


@pytest.mark.parametrize(
    "change",
    [
        {"retired": "soon"},
        {"retired": 20260301},
        {"retired": "20260301"},
        {"not_before": "2026-02-30"},
        {"not_before": "2026-03-02", "retired": "2026-03-01"},
        {"note": 5},
        {"note": "x" * 1001},
    ],
)
def test_a_file_with_impossible_dates_or_note_is_refused(key: Key, tmp_path: Path, change: dict[str, Any]) -> None:
    path = tmp_path / "k.json"
    key.save(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(KeyFileError, match="not a key file"):
        Key.load(path)


def test_the_state_of_a_key_depends_on_the_day() -> None:
    first, last = date(2026, 1, 10), date(2026, 2, 10)
    days = [date(2026, 1, 9), date(2026, 1, 10), date(2026, 2, 9), date(2026, 2, 10)]
    assert [state_of(first, last, day) for day in days] == [
        "not in use before 2026-01-10",
        "in use until 2026-02-10",
        "in use until 2026-02-10",
        "retired since 2026-02-10",
    ]
    assert state_of(None, None) == "in use"


def test_retiring_rewrites_the_file_which_stays_private(key: Key, tmp_path: Path) -> None:
    path = tmp_path / "k.json"
    replace(key, note="old").save(path)
    result = CliRunner().invoke(main, ["keys", "retire", str(path), "--date", "2026-03-01"])
    assert result.exit_code == 0, result.stderr
    again = Key.load(path)
    assert (again.retired, again.note) == (DAY, "old") and again == key and np.array_equal(again.numbers, key.numbers)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and [p.name for p in tmp_path.iterdir()] == ["k.json"]
    before = path.read_bytes()
    second = CliRunner().invoke(main, ["keys", "retire", str(path)])
    assert second.exit_code == 2 and "retired since 2026-03-01 already" in second.stderr
    assert path.read_bytes() == before
    wrong = CliRunner().invoke(main, ["keys", "retire", str(path), "--date", "March"])
    assert wrong.exit_code == 2 and "not a date" in wrong.stderr


def test_a_key_is_never_rewritten_over_another(key: Key, tmp_path: Path) -> None:
    path = tmp_path / "k.json"
    Key.generate(SHAPE, seed=9).save(path)
    before = path.read_bytes()
    with pytest.raises(KeyFileError, match="contains another key"):
        key.rewrite(path)
    assert path.read_bytes() == before


def test_a_folder_is_listed_without_a_number_of_a_key_and_with_what_cannot_be_read(key: Key, tmp_path: Path) -> None:
    replace(key, note="a\x1b[31mred").save(tmp_path / "a.json")
    Key.generate(SHAPE, seed=2, pattern="rings", name="rings").save(tmp_path / "b.json")
    retire(tmp_path / "b.json", day=DAY)
    (tmp_path / "c.json").write_text("{}")
    (tmp_path / "c.json").chmod(0o600)
    runner = CliRunner()
    text = runner.invoke(main, ["keys", "list", str(tmp_path)])
    listed = runner.invoke(main, ["keys", "list", str(tmp_path), "--format", "json"])
    assert text.exit_code == listed.exit_code == 3 and "c.json is not a key file" in text.stderr
    lines = text.stdout.splitlines()
    assert re.search(rf"gallery +{key.fingerprint} +random +4x32x32 +derived +in use +a\\x1b", lines[2])
    assert "retired since 2026-03-01" in lines[3]
    assert [(one["name"], one["retired"]) for one in json.loads(listed.stdout)] == [
        ("gallery", None),
        ("rings", "2026-03-01"),
    ]
    digits = {f"{abs(number):.9f}"[2:8] for number in key.numbers[:50]}
    assert not [d for d in digits if d in text.output + listed.output]


def test_a_retired_key_verifies_and_identifies_and_the_record_says_so(sample_key: Key, tmp_path: Path) -> None:
    key = replace(sample_key, retired=DAY)
    image = str(SAMPLES / "marked-0.png")
    index = tmp_path / "keys.index"
    write_index(index, key.family, 1, blocks_of([key], key.family))
    assert retired_keys([KeyIndex.load(index)]) == {key.fingerprint: "2026-03-01"}
    assert retired_keys([replace(key, retired=date(9999, 1, 1))]) == {}
    path = tmp_path / "k.json"
    key.save(path)
    with_file = CliRunner().invoke(main, ["verify", image, "--key", str(path)])
    assert f"key sample {key.fingerprint} (retired since 2026-03-01)" in with_file.stdout
    for keys in (key, KeyIndex.load(index)):
        verdict = tv.Detector(keys).identify(image)
        assert (verdict.verdict, verdict.record()["key_retired"]) == ("detected", "2026-03-01")
    (row,) = tv.Detector(key).audit(image)
    assert (row.verdict, row.key_retired) == ("detected", "2026-03-01")
    unmarked = tv.Detector(key).verify(str(SAMPLES / "photograph.png")).record()
    assert (unmarked["verdict"], unmarked["key_retired"]) != ("detected", None) and unmarked["key_retired"] is None


def test_a_retired_key_marks_nothing(key: Key) -> None:
    for unusable, message in (
        (replace(key, retired=DAY), "is retired since 2026-03-01: mark images with another key"),
        (replace(key, not_before=date(9999, 1, 1)), "is not in use before 9999-01-01"),
    ):
        with pytest.raises(UsageError, match=message):
            next(tv.generate(tv.load_model("landscape"), unusable, seeds=[0]))
