"""Keys: a derivation that anyone can repeat, a file that keeps the secret, and refusals that do not quote it."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import stat
import traceback
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest
from scipy import stats

from treering_verify.errors import KeyFileError, UsageError
from treering_verify.watermark.key_derivation import normal_numbers
from treering_verify.watermark.keys.key import Family, Key, count_numbers
from treering_verify.watermark.patterns import PATTERNS as REGISTRY

PATTERNS = ("rings", "random")  # test_patterns.py tests all of them

SHAPE = (4, 32, 32)
SECRET = bytes(range(32))


def derive_by_the_book(secret: bytes, info: str, count: int) -> list[float]:
    """Derive as key.py's docstring says, by RFC 5869's own steps: extract, then expand, 1020 numbers a block."""
    numbers: list[float] = []
    pseudorandom = hmac.new(b"treering-verify key v1", secret, hashlib.sha256).digest()
    block = 0
    while len(numbers) < count:
        stream, last, counter = b"", b"", 0
        while len(stream) < 8160:
            counter += 1
            last = hmac.new(pseudorandom, last + f"{info}|{block}".encode() + bytes([counter]), hashlib.sha256).digest()
            stream += last
        for i in range(0, 8160, 8):
            word = int.from_bytes(stream[i : i + 8], "big") >> 11
            numbers.append(round(NormalDist().inv_cdf((word + 0.5) / 2**53), 9))
        block += 1
    return numbers[:count]


@pytest.fixture
def key() -> Key:
    return Key.from_secret(SECRET, SHAPE, name="gallery")


@pytest.fixture
def saved(key: Key, tmp_path: Path) -> Path:
    key.save(tmp_path / "key.json")
    return tmp_path / "key.json"


def rewrite(path: Path, text: str | bytes) -> None:
    path.write_bytes(text.encode() if isinstance(text, str) else text)


# --- derivation -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "channels", "radii", "info"),
    [
        ("rings", (0, 3), (3, 12), "rings|0,3|3-12|4x32x32"),
        ("random", (2,), (4, 9), "random|2|4-9|4x32x32"),
        ("random", (0, 1, 2, 3), (1, 15), "random|0,1,2,3|1-15|4x32x32"),
    ],
)
def test_numbers_are_what_the_documented_derivation_gives(
    pattern: str, channels: tuple[int, ...], radii: tuple[int, int], info: str
) -> None:
    key = Key.from_secret(
        SECRET, SHAPE, pattern=pattern, channels=channels, inner_radius=radii[0], outer_radius=radii[1]
    )
    assert key.numbers.tolist() == derive_by_the_book(SECRET, info, key.degrees_of_freedom)


def test_the_first_numbers_of_a_published_secret_never_change() -> None:
    key = Key.from_secret(b"0123456789abcdef", SHAPE, pattern="rings", channels=(0,), inner_radius=3, outer_radius=12)
    expected = derive_by_the_book(b"0123456789abcdef", "rings|0|3-12|4x32x32", 10)
    assert key.numbers.tolist() == expected
    assert key.numbers[:3].tolist() == [1.740158277, -0.762731765, 0.533999913]


def test_the_fast_normal_numbers_are_those_of_the_documented_ones_also_in_the_tails_and_at_ties() -> None:
    rng = np.random.default_rng(0)
    words = rng.integers(0, 2**53 - 1, 60_000, dtype=np.uint64)
    words[:2000] = rng.integers(0, 2**20, 2000)
    words[2000:4000] = 2**53 - 2 - rng.integers(0, 2**20, 2000)
    # Uniforms around those whose normal number lies half-way between two of nine decimals.
    half = [NormalDist().cdf((n + 0.5) * 1e-9) for n in rng.integers(-(10**9), 10**9, 4000)]
    words[4000:8000] = np.array(half) * 2**53
    expected = [round(NormalDist().inv_cdf((int(word) + 0.5) / 2**53), 9) for word in words]
    assert normal_numbers(words).tolist() == expected


def test_a_key_of_an_index_is_the_key_of_its_secret_and_needs_only_its_name() -> None:
    family = Family.choose(SHAPE, pattern="rings")
    pseudorandom = hmac.new(b"treering-verify member v1", SECRET, hashlib.sha256).digest()
    secret = hmac.new(pseudorandom, b"user-7\x01", hashlib.sha256).digest()  # RFC 5869, one block
    key = Key.of_index(SECRET, family, "user-7")
    assert key.numbers.tolist() == Key.from_secret(secret, SHAPE, pattern="rings").numbers.tolist()
    assert (key.name, key.family) == ("user-7", family)
    others = [Key.of_index(SECRET, family, "user-8"), Key.of_index(SECRET[::-1], family, "user-7")]
    assert len({k.fingerprint for k in [key, *others]}) == 3
    with pytest.raises(UsageError, match="at least 16"):
        Key.of_index(b"short", family, "user-7")
    with pytest.raises(UsageError, match="name"):
        Key.of_index(SECRET, family, "../user")


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_same_secret_and_parameters_give_the_same_key(pattern: str) -> None:
    one, two = (Key.from_secret(SECRET, SHAPE, pattern=pattern) for _ in range(2))
    assert np.array_equal(one.numbers, two.numbers)
    assert one.fingerprint == two.fingerprint
    assert re.fullmatch(r"[0-9a-f]{16}", one.fingerprint)


def test_every_parameter_changes_the_numbers_and_the_fingerprint() -> None:
    base = {"pattern": "random", "channels": (0, 1), "inner_radius": 4, "outer_radius": 9}
    keys = [
        Key.from_secret(secret, shape, **{**base, **change})  # type: ignore[arg-type]
        for secret, shape, change in [
            (SECRET, SHAPE, {}),
            (SECRET[::-1], SHAPE, {}),
            (SECRET, (4, 32, 64), {}),
            (SECRET, (3, 32, 32), {}),
            (SECRET, SHAPE, {"pattern": "rings"}),
            (SECRET, SHAPE, {"channels": (1, 0)}),
            (SECRET, SHAPE, {"channels": (0, 2)}),
            (SECRET, SHAPE, {"inner_radius": 5}),
            (SECRET, SHAPE, {"outer_radius": 10}),
        ]
    ]
    assert len({key.fingerprint for key in keys}) == len(keys)
    assert len({key.numbers[0] for key in keys}) == len(keys)


def test_the_fingerprint_ignores_the_name_and_sees_every_number(key: Key) -> None:
    assert Key.from_secret(SECRET, SHAPE, name="other").fingerprint == key.fingerprint
    changed = key.numbers.copy()
    changed[-1] += 1e-9
    assert Key("gallery", key.pattern, key.channels, 4, 9, SHAPE, changed).fingerprint != key.fingerprint


def test_generated_keys_differ_and_seeded_ones_do_not() -> None:
    assert Key.generate(SHAPE).fingerprint != Key.generate(SHAPE).fingerprint
    assert Key.generate(SHAPE, seed=7).fingerprint == Key.generate(SHAPE, seed=7).fingerprint
    assert Key.generate(SHAPE, seed=7).fingerprint != Key.generate(SHAPE, seed=8).fingerprint


def test_numbers_are_standard_normal_and_independent() -> None:
    keys = np.stack([Key.generate(SHAPE, seed=s, channels=(0,)).numbers for s in range(60)])
    assert stats.kstest(keys.ravel(), "norm").pvalue > 0.01
    # Neighbours along a key, and the same place in different keys, are uncorrelated.
    for pairs in ((keys[:, :-1], keys[:, 1:]), (keys[:-1], keys[1:])):
        correlation = np.corrcoef(pairs[0].ravel(), pairs[1].ravel())[0, 1]
        assert abs(correlation) < 4 / pairs[0].size ** 0.5


@pytest.mark.parametrize("pattern", PATTERNS)
def test_degrees_of_freedom_count_rings_or_twice_the_bins(pattern: str) -> None:
    inner, outer = REGISTRY[pattern].radii
    key = Key.generate(SHAPE, pattern=pattern, channels=(1, 2), seed=0)
    ring = np.rint(np.hypot(*np.mgrid[-16:16, -16:16])).astype(int)
    bins = int(((ring >= inner) & (ring <= outer)).sum())  # both halves: twice the independent ones
    assert key.degrees_of_freedom == 2 * (outer - inner + 1 if pattern == "rings" else bins)


def test_numbers_cannot_be_changed_in_place(key: Key) -> None:
    with pytest.raises(ValueError, match="read-only"):
        key.numbers[0] = 1.0


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_a_short_secret_is_refused_and_not_quoted() -> None:
    with pytest.raises(UsageError, match="at least 16") as caught:
        Key.from_secret(b"hunter2hunter2!", SHAPE)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pattern": "zeros"}, "no pattern"),
        ({"channels": ()}, "channels"),
        ({"channels": (4,)}, "channels"),
        ({"channels": (-1,)}, "channels"),
        ({"channels": (1, 1)}, "channels"),
        ({"inner_radius": 0}, "radii"),
        ({"inner_radius": 9, "outer_radius": 8}, "radii"),
        ({"outer_radius": 16}, "radii"),
        ({"name": ""}, "name"),
        ({"name": "../x"}, "name"),
        ({"name": "a" * 65}, "name"),
        ({"name": "a\n"}, "name"),
        ({"latent_shape": (4, 32)}, "latent_shape"),
        ({"latent_shape": (4, 10**6, 10**6)}, "latent_shape"),
    ],
)
def test_parameters_that_do_not_fit_are_named(change: dict[str, object], message: str) -> None:
    arguments: dict[str, object] = {"latent_shape": SHAPE, "seed": 1, **change}
    with pytest.raises(UsageError, match=message):
        Key.generate(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [[0.5], [float("nan")] * 20, [float("inf")] * 20])
def test_numbers_of_another_count_or_not_finite_are_refused(bad: list[float]) -> None:
    assert count_numbers("rings", (0, 1), 3, 12, SHAPE) == 20
    with pytest.raises(UsageError, match="20 finite numbers"):
        Key("key", "rings", (0, 1), 3, 12, SHAPE, np.array(bad))


# --- the file ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_saved_key_is_read_back_exactly(pattern: str, tmp_path: Path) -> None:
    key = Key.generate(SHAPE, pattern=pattern, channels=(2, 0), name="Gallery-1.a", seed=3)
    key.save(tmp_path / "key.json")
    again = Key.load(tmp_path / "key.json")
    assert np.array_equal(again.numbers, key.numbers)
    assert again.fingerprint == key.fingerprint
    fields = ("name", "pattern", "channels", "inner_radius", "outer_radius", "latent_shape")
    assert [getattr(again, f) for f in fields] == [getattr(key, f) for f in fields]


def test_the_file_is_its_owners_alone_whatever_the_umask(key: Key, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        key.save(tmp_path / "key.json")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "key.json").stat().st_mode) == 0o600


def test_an_existing_file_is_never_overwritten(key: Key, saved: Path, tmp_path: Path) -> None:
    before = saved.read_bytes()
    with pytest.raises(KeyFileError, match="never overwritten"):
        Key.generate(SHAPE, seed=1).save(saved)
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(KeyFileError, match="never overwritten"):
        key.save(tmp_path / "link")
    assert saved.read_bytes() == before
    assert not (tmp_path / "target").exists()
    with pytest.raises(KeyFileError, match="cannot write"):
        key.save(tmp_path / "nowhere" / "key.json")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o602, 0o610])
def test_a_file_that_others_can_reach_is_refused(mode: int, saved: Path) -> None:
    saved.chmod(mode)
    with pytest.raises(KeyFileError, match="chmod 600"):
        Key.load(saved)


def test_what_is_no_readable_file_is_refused_without_blocking_or_leaking_a_descriptor(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)
    (tmp_path / "folder").mkdir(mode=0o700)
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    for name, message in (
        ("fifo", "regular file"),
        ("folder", "regular file"),
        ("none", "cannot read"),
        ("a\0b", "read"),
    ):
        with pytest.raises(KeyFileError, match=message):
            Key.load(tmp_path / name)
    with pytest.raises(KeyFileError, match="regular file"):
        Key.load("/dev/null")
    assert (len(os.listdir("/proc/self/fd")) if before else 0) == before


def broken_files() -> dict[str, object]:
    def change(**fields: object) -> object:
        return lambda content: json.dumps({**content, **fields})

    def without(field: str) -> object:
        return lambda content: json.dumps({k: v for k, v in content.items() if k != field})

    return {
        "empty": lambda content: "",
        "cut short": lambda content: json.dumps(content)[:-20],
        "not JSON": lambda content: "numbers = 1.5",
        "not UTF-8": lambda content: b"\xff\xfe\xfa{}",
        "a list": lambda content: json.dumps([content]),
        "null": lambda content: "null",
        "deeply nested": lambda content: "[" * 200_000,
        "another type": change(type="certificate"),
        "a newer version": change(schema_version=2),
        "a version as text": change(schema_version="1"),
        **{
            f"no {field}": without(field)
            for field in ("type", "name", "pattern", "channels", "numbers", "latent_shape")
        },
        "a NaN": lambda content: json.dumps({**content, "numbers": [float("nan"), *content["numbers"][1:]]}),
        "an infinity": lambda content: json.dumps({**content, "numbers": [float("inf"), *content["numbers"][1:]]}),
        "an overflow": lambda content: json.dumps({**content, "numbers": [10**400, *content["numbers"][1:]]}),
        "numbers that are all zero": change(numbers=[0] * 20, hkdf_prk=""),
        "numbers whose squares are infinite": change(numbers=[1e200] * 20, hkdf_prk=""),
        "numbers whose squares are zero": change(numbers=[1e-200] * 20, hkdf_prk=""),
        "a million empty lists": lambda content: json.dumps(content)[:-1] + ', "note": [' + "[]," * 10**6 + "0]}",
        "a missing number": lambda content: json.dumps({**content, "numbers": content["numbers"][1:]}),
        "numbers as text": change(numbers="1.5 2.5"),
        "nested numbers": lambda content: json.dumps({**content, "numbers": [content["numbers"]]}),
        "ragged numbers": lambda content: json.dumps({**content, "numbers": [[1.0], *content["numbers"]]}),
        "an infinite radius": change(outer_radius=float("inf")),
        "a NaN radius": change(outer_radius=float("nan")),
        "a broken radius": change(outer_radius=9.5),
        "an endless shape": change(latent_shape=[4, 10**9, 10**9]),
        "a flat shape": change(latent_shape=[4, 32]),
        "a shape of nulls": change(latent_shape=[None, 32, 32]),
        "unknown channels": change(channels=[0, 1, 2, 9]),
        "channels as a number": change(channels=4),
        "a name with a path": change(name="../../etc/passwd"),
    }


@pytest.mark.parametrize("kind", broken_files())
def test_a_malformed_file_is_refused_in_the_words_of_the_toolkit(kind: str, saved: Path) -> None:
    content = json.loads(saved.read_text())
    rewrite(saved, broken_files()[kind](content))  # type: ignore[operator]
    with pytest.raises(KeyFileError, match="not a key file"):
        Key.load(saved)


def test_a_huge_file_is_refused_and_not_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "huge.json"
    path.touch(mode=0o600)
    os.truncate(path, 1 << 40)  # sparse: a terabyte of zeros
    with pytest.raises(KeyFileError, match="not a key file"):
        Key.load(path)


# --- the secret stays secret ------------------------------------------------------------------------------------------


def test_no_text_about_a_key_holds_one_of_its_numbers(tmp_path: Path) -> None:
    canaries = [0.123454321, -1.987656789]
    numbers = np.resize(canaries, 20)
    key = Key("canary", "rings", (0, 1), 3, 12, SHAPE, numbers)
    key.save(tmp_path / "key.json")
    text = (tmp_path / "key.json").read_text()
    digits = re.compile("12345|98765")
    assert digits.search(text)  # the file is the one place that holds them
    shown = [repr(key), str(key), f"{key}", key.fingerprint, repr([key]), repr({"key": key})]
    for broken in (
        text[:-30],
        text.replace("0.123454321", "0.123454321x", 1),
        text.replace("0.123454321", '"0.123454321x"', 1),
        text.replace('"rings"', '"random"'),
        text.replace("0.123454321,", "", 1),
        text.replace("0.123454321", "[0.123454321]", 1),
        text.replace('"canary"', '"0.123454321 "'),
    ):
        assert broken != text
        rewrite(tmp_path / "key.json", broken)
        with pytest.raises(KeyFileError) as caught:
            Key.load(tmp_path / "key.json")
        shown += ["".join(traceback.format_exception(caught.value)), repr(caught.value)]
    for wrong in (numbers[1:], np.append(numbers, np.nan)):
        with pytest.raises(UsageError) as refused:
            Key("canary", "rings", (0, 1), 3, 12, SHAPE, wrong)
        shown += [str(refused.value), repr(refused.value)]
    assert not [s for s in shown if digits.search(s)]


def test_the_secret_itself_is_kept_nowhere(tmp_path: Path) -> None:
    key = Key.from_secret(b"correct horse battery staple", SHAPE)
    key.save(tmp_path / "key.json")
    assert "horse" not in (tmp_path / "key.json").read_text() + repr(vars(key))
