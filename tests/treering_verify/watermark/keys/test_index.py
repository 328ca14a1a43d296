"""Index files: what is written is read back, nothing half, foreign or readable by others is used, secrets stay secret."""

from __future__ import annotations

import json
import os
import re
import stat
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from treering_verify.errors import KeyFileError, UsageError
from treering_verify.watermark.keys import index_file
from treering_verify.watermark.keys.index import KeyIndex, key_files, load_keys
from treering_verify.watermark.keys.index_file import FACTS, MAGIC, PAGE, Block, blocks_of, numbers_start, write_index
from treering_verify.watermark.keys.key import Family, Key

SHAPE = (4, 32, 32)
FAMILY = Family.choose(SHAPE, pattern="rings", channels=(0, 3))
D = FAMILY.degrees_of_freedom


def some_keys(count: int, first: int = 0) -> list[Key]:
    return [Key.of_index(bytes(range(32)), FAMILY, f"user-{first + i}") for i in range(count)]


def drawn(count: int, block: int = 256) -> Iterator[Block]:
    """Blocks of keys that were never derived, for sizes at which deriving takes long."""
    for start in range(0, count, block):
        rows = range(start, min(count, start + block))
        numbers = np.random.default_rng(start).standard_normal((len(rows), D))
        yield Block([f"k{i}" for i in rows], [f"{i:016x}" for i in rows], numbers)


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    path = tmp_path / "my.index"
    write_index(path, FAMILY, 7, blocks_of(some_keys(7), FAMILY), "float32")
    return path


@pytest.mark.parametrize(("dtype", "error"), [("float16", 2**-11), ("float32", 2**-24)])
def test_an_index_gives_back_names_fingerprints_and_numbers(dtype: str, error: float, tmp_path: Path) -> None:
    keys = some_keys(1100)  # three blocks
    write_index(tmp_path / "i", FAMILY, len(keys), blocks_of(keys, FAMILY), dtype)
    index = KeyIndex.load(tmp_path / "i")
    assert len(index) == len(keys) and index.family == FAMILY and index.numbers.dtype == dtype
    names, fingerprints, numbers = index.entries(np.arange(len(keys)))
    assert names == [k.name for k in keys] and fingerprints == [k.fingerprint for k in keys]
    exact = np.stack([k.numbers for k in keys])
    np.testing.assert_allclose(numbers.astype(np.float64), exact, rtol=error, atol=1e-7)
    np.testing.assert_allclose(index.lengths, np.linalg.norm(numbers.astype(np.float64), axis=1))


def test_keys_in_memory_are_indexed_without_rounding() -> None:
    keys = some_keys(3)
    index = KeyIndex.from_keys(keys)
    assert np.array_equal(index.numbers, np.stack([k.numbers for k in keys]))
    assert not index.facts["drift"].any() and index.entries(np.array([2]))[0] == ["user-2"]


def test_the_file_is_its_owners_alone_and_never_overwritten(stored: Path) -> None:
    assert stat.S_IMODE(stored.stat().st_mode) == 0o600
    before = stored.read_bytes()
    with pytest.raises(KeyFileError, match="never overwritten"):
        write_index(stored, FAMILY, 1, blocks_of(some_keys(1), FAMILY))
    assert stored.read_bytes() == before
    with pytest.raises(KeyFileError, match="cannot write"):
        write_index(stored.parent / "none" / "x", FAMILY, 1, blocks_of(some_keys(1), FAMILY))


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o602])
def test_an_index_that_others_can_reach_is_refused(mode: int, stored: Path) -> None:
    stored.chmod(mode)
    with pytest.raises(KeyFileError, match="chmod 600"):
        KeyIndex.load(stored)
    with pytest.raises(KeyFileError, match="chmod 600"):
        load_keys([stored])


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def failing() -> Iterator[Block]:
        yield next(blocks_of(some_keys(2), FAMILY))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_index(tmp_path / "i", FAMILY, 4, failing())
    for count in (1, 3):
        with pytest.raises(UsageError, match="pass their number"):
            write_index(tmp_path / "i", FAMILY, count, blocks_of(some_keys(2), FAMILY))
    assert list(tmp_path.iterdir()) == []


def test_two_keys_of_one_name_or_one_content_are_refused_and_named(tmp_path: Path) -> None:
    a, b = some_keys(2)
    named_alike = Key.of(FAMILY, a.name, b.numbers)
    alike = Key.of(FAMILY, "other", a.numbers)
    for keys, what in (
        ([a, b, named_alike], "'user-0' and 'user-0'.*same name"),
        ([a, b, alike], "'other'.*same numbers"),
    ):
        with pytest.raises(UsageError, match=what):
            write_index(tmp_path / "i", FAMILY, 3, blocks_of(keys, FAMILY))
        with pytest.raises(UsageError, match=what):
            KeyIndex.from_keys(keys)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "change",
    [
        {"pattern": "random"},
        {"channels": (0, 2)},
        {"inner_radius": 4},
        {"outer_radius": 9},
        {"latent_shape": (4, 32, 64)},
    ],
)
def test_an_index_holds_one_family(change: dict[str, object], tmp_path: Path) -> None:
    options = {"pattern": "rings", "channels": (0, 3), "latent_shape": SHAPE, **change}
    foreign = Key.generate(**options, name="foreign", seed=1)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"'foreign' is of another family.*one index for each"):
        write_index(tmp_path / "i", FAMILY, 2, blocks_of([*some_keys(1), foreign], FAMILY))


@pytest.mark.parametrize("numbers", [np.zeros(D), np.full(D, 1e-9), np.full(D, 1e6)])
def test_a_key_whose_numbers_do_not_fit_is_refused_by_name(numbers: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'odd'") as caught:
        key = Key.of(FAMILY, "odd", numbers)
        write_index(tmp_path / "i", FAMILY, 1, blocks_of([key], FAMILY), "float16")
    assert "1e" not in str(caught.value)


def test_an_index_of_holes_is_refused_by_its_first_keys(tmp_path: Path) -> None:
    path, count = tmp_path / "i", 10**8
    write_index(path, FAMILY, 3, blocks_of(some_keys(3), FAMILY))
    head = bytearray(path.read_bytes()[:PAGE])
    fields = json.loads(head[len(MAGIC) :])
    fields.pop("sha256")
    fields["count"] = count
    text = MAGIC + json.dumps({**fields, "sha256": index_file._digest(fields)}).encode()
    with open(path, "r+b") as file:
        file.write(text.ljust(PAGE))
        file.truncate(numbers_start(count) + count * D * 2)
    started = time.process_time()
    with pytest.raises(KeyFileError, match="damaged"):
        KeyIndex.load(path)
    assert time.process_time() - started < 2


def test_bad_requests_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="float16, float32"):
        write_index(tmp_path / "i", FAMILY, 1, blocks_of(some_keys(1), FAMILY), "int8")
    with pytest.raises(UsageError, match="at least one"):
        write_index(tmp_path / "i", FAMILY, 0, iter(()))
    with pytest.raises(UsageError, match="at least one"):
        KeyIndex.from_keys([])


# --- damaged and foreign files ----------------------------------------------------------------------------------------


def header(**changes: object) -> bytes:
    """Header of a file of 7 keys with changed fields, and a right checksum."""
    from treering_verify.watermark.keys import index_file

    fields = json.loads(index_file._header(FAMILY, 7, "float32")[len(MAGIC) :])
    del fields["sha256"]
    fields = {k: v for k, v in {**fields, **changes}.items() if v is not None}
    return (MAGIC + json.dumps({**fields, "sha256": index_file._digest(fields)}).encode()).ljust(PAGE)


def test_the_header_that_the_cases_below_change_is_a_good_one(stored: Path) -> None:
    stored.write_bytes(header() + stored.read_bytes()[PAGE:])
    assert len(KeyIndex.load(stored)) == 7


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 3}, "version 2"),
        ({"type": "certificate"}, "version 2"),
        ({"type": None}, "version 2"),
        ({"dtype": "float64"}, "version 2"),
        ({"dtype": ["float16"]}, "version 2"),
        ({"count": 0}, "version 2"),
        ({"count": 7.5}, "version 2"),
        ({"count": 8}, "cut short"),
        ({"count": 10**15}, "cut short"),
        ({"count": 10**400}, "cut short"),
        ({"dtype": "float16"}, "cut short"),
        ({"pattern": "zeros"}, "version 2"),
        ({"channels": [0, 9]}, "version 2"),
        ({"channels": 4}, "version 2"),
        ({"channels": [0]}, "cut short"),
        ({"latent_shape": [4, 10**9, 10**9]}, "version 2"),
        ({"outer_radius": None}, "version 2"),
    ],
)
def test_a_header_that_does_not_fit_is_refused(change: dict[str, object], message: str, stored: Path) -> None:
    stored.write_bytes(header(**change) + stored.read_bytes()[PAGE:])
    with pytest.raises(KeyFileError, match=message):
        KeyIndex.load(stored)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"\x00" * 10_000,
        b"[" * 10_000,
        MAGIC,
        MAGIC + b"null".ljust(PAGE),
        MAGIC + b"[" * PAGE,
        MAGIC.ljust(PAGE),
    ],
)
def test_a_foreign_file_is_refused(content: bytes, stored: Path) -> None:
    stored.write_bytes(content)
    with pytest.raises(KeyFileError, match="version 2: make one with treering keys index"):
        KeyIndex.load(stored)


def test_a_header_that_was_touched_is_refused(stored: Path) -> None:
    content = stored.read_bytes()
    stored.write_bytes(content.replace(b'"inner_radius": 3', b'"inner_radius": 2', 1))
    with pytest.raises(KeyFileError, match="damaged"):
        KeyIndex.load(stored)


def test_a_file_cut_short_or_grown_is_refused(stored: Path) -> None:
    content = stored.read_bytes()
    for wrong in (content[:-1], content[: PAGE + 100], content + b"\0"):
        stored.write_bytes(wrong)
        with pytest.raises(KeyFileError, match="cut short"):
            KeyIndex.load(stored)


@pytest.mark.parametrize("place", [PAGE + 2 * FACTS.itemsize + 20, PAGE + 2 * FACTS.itemsize + 40, None])
def test_a_key_that_was_touched_is_found_out_before_it_is_named(place: int | None, stored: Path) -> None:
    content = bytearray(stored.read_bytes())
    content[place or numbers_start(7) + 2 * D * 4 + 5] ^= 1
    stored.write_bytes(content)
    index = KeyIndex.load(stored)
    assert index.entries(np.array([0, 1, 3]))[0] == ["user-0", "user-1", "user-3"]
    with pytest.raises(KeyFileError, match="damaged"):
        index.entries(np.array([1, 2]))


def test_lengths_that_are_none_are_refused_when_the_index_is_loaded(stored: Path) -> None:
    content = bytearray(stored.read_bytes())
    for bad in (0.0, -1.0, float("nan"), float("inf")):
        content[PAGE : PAGE + 8] = np.array(bad, "<f8").tobytes()
        stored.write_bytes(content)
        with pytest.raises(KeyFileError, match="damaged"):
            KeyIndex.load(stored)


def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)
    for path, message in (
        (tmp_path / "fifo", "regular file"),
        (tmp_path / "none", "cannot read"),
        (tmp_path, "regular"),
    ):
        with pytest.raises(KeyFileError, match=message):
            KeyIndex.load(path)


# --- loading what paths name ------------------------------------------------------------------------------------------


def test_folders_files_and_indexes_are_told_apart(stored: Path, tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    folder.mkdir()
    for key in some_keys(2, first=100):
        key.save(folder / f"{key.name}.json")
    other = Key.generate(SHAPE, seed=5, name="random")
    other.save(tmp_path / "random.key.json")
    indexes = load_keys([folder, stored, tmp_path / "random.key.json"])
    assert [(len(i), i.family.pattern) for i in indexes] == [(7, "rings"), (2, "rings"), (1, "random")]
    assert key_files([folder]) == [folder / "user-100.json", folder / "user-101.json"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"no \*.json"):
        load_keys([tmp_path / "empty"])


# --- memory and secrecy -----------------------------------------------------------------------------------------------


def test_writing_takes_the_memory_of_a_block_and_a_few_bytes_a_key(tmp_path: Path) -> None:
    def peak(count: int) -> int:
        tracemalloc.start()
        write_index(tmp_path / f"{count}", FAMILY, count, drawn(count))
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(256)  # imports
    few, many = peak(2048), peak(16_384)
    assert many - few < 60 * (16_384 - 2048)  # of 176 that a key takes in the file


def test_loading_takes_eight_bytes_a_key(tmp_path: Path) -> None:
    write_index(tmp_path / "i", FAMILY, 8192, drawn(8192), "float32")
    tracemalloc.start()
    index = KeyIndex.load(tmp_path / "i")
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(index) == 8192 and most < 8192 * 12 + 100_000


def test_no_text_about_an_index_holds_a_number(stored: Path) -> None:
    index = KeyIndex.load(stored)
    digits = {f"{abs(n):.4f}" for n in np.ravel(index.numbers)}
    shown = f"{index!r} {index} {index.family}"
    assert not any(text in digits for text in re.findall(r"\d+\.\d{4}", shown)) and "array" not in shown
