"""The origin of keys: derivations that a reader repeats, files from before, and files that were changed."""

from __future__ import annotations

import hashlib
import hmac
import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.markings import SECRET, SHAPE

from treering_verify.detection.messages import with_message
from treering_verify.errors import KeyFileError, UsageError
from treering_verify.watermark.keys.index import KeyIndex, origin_of_key
from treering_verify.watermark.keys.index_file import (
    FACTS,
    FACTS_1,
    MAGIC,
    PAGE,
    blocks_of,
    checksums,
    numbers_start,
    write_index,
)
from treering_verify.watermark.keys.key import Family, Key
from treering_verify.watermark.keys.key_folder import retire
from treering_verify.watermark.patterns import PATTERNS

FAMILY = Family.choose(SHAPE, pattern="rings", channels=(0, 3))


def changed(path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    Key.from_secret(SECRET, SHAPE, pattern="rings", name="gallery").save(tmp_path / "key.json")
    return tmp_path / "key.json"


# --- key files --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", PATTERNS)
def test_derived_keys_say_so_also_from_their_files_and_keep_their_fingerprints(pattern: str, tmp_path: Path) -> None:
    key = Key.from_secret(SECRET, SHAPE, pattern=pattern)
    assert key.prk == hmac.digest(b"treering-verify key v1", SECRET, hashlib.sha256)  # RFC 5869, extract
    for i, one in enumerate((key, Key.generate(SHAPE, pattern=pattern), Key.of_index(SECRET, key.family, "user-7"))):
        one.save(tmp_path / f"{i}.json")
        again = Key.load(tmp_path / f"{i}.json")
        assert (one.origin, again.origin, again.prk) == ("derived", "derived", one.prk)
        free = Key.of(one.family, one.name, one.numbers)
        assert (free.origin, free.fingerprint) == ("free numbers", one.fingerprint) and free == again


def test_a_file_from_before_is_read_and_its_numbers_are_free(saved: Path, tmp_path: Path) -> None:
    key = Key.load(saved)
    old = Key.load(changed(saved, lambda content: content.pop("hkdf_prk")))
    assert old.origin == "free numbers" and old == key
    old.save(tmp_path / "again.json")
    assert "hkdf_prk" not in json.loads((tmp_path / "again.json").read_text())


def test_neither_the_secret_nor_the_pseudorandom_key_is_shown(saved: Path) -> None:
    key = Key.load(saved)
    assert SECRET.hex() not in saved.read_text() and key.prk.hex() in saved.read_text()
    assert key.prk.hex() not in f"{key!r}{key}{key.origin}" and repr(key.prk)[2:-1] not in repr(key)


def test_dates_pickle_and_retirement_keep_the_origin(saved: Path) -> None:
    assert pickle.loads(pickle.dumps(Key.load(saved))).origin == "derived"
    assert replace(Key.load(saved), note="n").origin == "derived"
    assert retire(saved, day=date(2026, 3, 1)).origin == Key.load(saved).origin == "derived"


def last_digit(content: dict[str, Any]) -> None:
    content["numbers"][-1] += 1e-9


def other_prk(content: dict[str, Any]) -> None:
    content["hkdf_prk"] = "00" * 32


def other_channel(content: dict[str, Any]) -> None:
    content["channels"] = [0, 1, 3, 2]


@pytest.mark.parametrize("change", [last_digit, other_prk, other_channel])
def test_a_derived_key_that_was_changed_is_refused(change: Callable[[dict[str, Any]], None], saved: Path) -> None:
    with pytest.raises(
        KeyFileError, match=r"numbers in .*key\.json are not those of its hkdf_prk.*restore it"
    ) as caught:
        Key.load(changed(saved, change))
    assert caught.value.__cause__ is None and not any(ch in str(caught.value) for ch in ("0.", "1."))


@pytest.mark.parametrize("wrong", ["", "00" * 31, "zz" * 32, 7, None, ["00"], True])
def test_a_pseudorandom_key_that_is_none_is_refused(wrong: object, saved: Path) -> None:
    changed(saved, lambda content: content.update(hkdf_prk=wrong))
    if wrong == "":
        assert Key.load(saved).origin == "free numbers"
        return
    with pytest.raises(KeyFileError, match="not a key file"):
        Key.load(saved)


def test_numbers_in_memory_are_checked_too() -> None:
    key = Key.from_secret(SECRET, SHAPE, pattern="random")
    with pytest.raises(UsageError, match="not those of its pseudorandom key"):
        replace(key, numbers=-key.numbers)
    with pytest.raises(UsageError, match="not those of its pseudorandom key"):
        Key.of(Family.choose(SHAPE, pattern="random", channels=(3, 2, 1, 0)), None, key.numbers, key.prk)


def test_a_message_is_chosen_and_its_cipher_is_not(tmp_path: Path) -> None:
    key = Key.from_secret(SECRET, SHAPE, pattern="gaussian-shading")
    named = with_message(key, "edition 7 of 20")
    named.save(tmp_path / "key.json")
    assert (key.origin, named.origin, Key.load(tmp_path / "key.json").origin) == (
        "derived",
        "chosen message",
        "chosen message",
    )

    def other_cipher(content: dict[str, Any]) -> None:
        content["numbers"][31] = (content["numbers"][31] + 1) % 256

    with pytest.raises(KeyFileError, match="not those"):
        Key.load(changed(tmp_path / "key.json", other_cipher))


# --- indexes ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def keys() -> list[Key]:
    free = Key.of(FAMILY, "free", np.random.default_rng(0).standard_normal(FAMILY.degrees_of_freedom))
    return [Key.of_index(SECRET, FAMILY, "user-0"), free, Key.of_index(SECRET, FAMILY, "user-1")]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_keys_of_an_index_have_their_own_origins(dtype: str, keys: list[Key], tmp_path: Path) -> None:
    if dtype == "float64":
        index = KeyIndex.from_keys(keys)
    else:
        write_index(tmp_path / "i", FAMILY, 3, blocks_of(keys, FAMILY), dtype)
        index = KeyIndex.load(tmp_path / "i")
    assert [index.origin(row) for row in range(3)] == ["derived", "free numbers", "derived"]
    assert [origin_of_key([index], key.fingerprint) for key in keys[:2]] == [
        ("derived", "rings"),
        ("free numbers", "rings"),
    ]
    assert origin_of_key([keys[0], index], keys[1].fingerprint)[0] == "free numbers"
    assert origin_of_key([keys[0], index], "0" * 16) == ("", "")


def test_a_derived_key_of_an_index_that_was_forged_is_refused(keys: list[Key], tmp_path: Path) -> None:
    """Also where the forger computes length and checksum anew."""
    write_index(tmp_path / "i", FAMILY, 3, blocks_of(keys, FAMILY), "float32")
    whole, d = (tmp_path / "i").read_bytes(), FAMILY.degrees_of_freedom
    facts = np.frombuffer(whole, FACTS, 3, PAGE).copy()
    numbers = np.frombuffer(whole, "<f4", 3 * d, numbers_start(3)).reshape(3, d).copy()

    def index(facts: np.ndarray, numbers: np.ndarray) -> KeyIndex:
        facts["checksum"] = checksums(facts, numbers)
        content = whole[:PAGE] + facts.tobytes()
        (tmp_path / "i").write_bytes(content.ljust(numbers_start(3), b"\0") + numbers.tobytes())
        return KeyIndex.load(tmp_path / "i")

    assert index(facts, numbers).origin(0) == "derived"
    turned = numbers.copy()
    turned[0] *= -1
    renamed = facts.copy()
    renamed["fingerprint"][2] = b"0" * 16
    for changed_facts, changed_numbers, row in ((facts, turned, 0), (renamed, numbers, 2)):
        forged = index(changed_facts, changed_numbers)
        forged.entries(np.arange(3))
        with pytest.raises(KeyFileError, match="damaged"):
            forged.origin(row)
        assert forged.origin(1) == "free numbers"


def test_an_index_of_version_1_is_read_and_its_numbers_are_free(keys: list[Key], tmp_path: Path) -> None:
    write_index(tmp_path / "new", FAMILY, 3, blocks_of(keys, FAMILY), "float16")
    whole = (tmp_path / "new").read_bytes()
    fields = json.loads(whole[len(MAGIC) : PAGE])
    del fields["sha256"]
    fields["schema_version"] = 1
    digest = hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
    new = np.frombuffer(whole, FACTS, 3, PAGE)
    old = np.zeros(3, FACTS_1)
    for name in FACTS_1.names or ():
        old[name] = new[name]
    assert old.itemsize == 104
    numbers = np.frombuffer(whole, "<f2", 3 * FAMILY.degrees_of_freedom, numbers_start(3)).reshape(3, -1)
    old["checksum"] = checksums(old, numbers)
    header = (MAGIC + json.dumps({**fields, "sha256": digest}).encode()).ljust(PAGE)
    (tmp_path / "old").write_bytes((header + old.tobytes()).ljust(2 * PAGE, b"\0") + numbers.tobytes())
    (tmp_path / "old").chmod(0o600)
    index = KeyIndex.load(tmp_path / "old")
    names, fingerprints, stored = index.entries(np.arange(3))
    assert names == [key.name for key in keys] and fingerprints == [key.fingerprint for key in keys]
    assert np.array_equal(stored, numbers) and {index.origin(row) for row in range(3)} == {"free numbers"}
