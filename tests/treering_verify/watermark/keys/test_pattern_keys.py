"""Keys of every pattern: derived, stored, refused, and found among many."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from helpers.markings import BY_SIGNS, SECRET, SHAPE, keys_of
from scipy import stats

from treering_verify.cli.main import main
from treering_verify.detection.identification import identify
from treering_verify.errors import KeyFileError, UsageError
from treering_verify.watermark.embedding import key_bins, key_coefficients
from treering_verify.watermark.keys.index import KeyIndex
from treering_verify.watermark.keys.key import Family, Key
from treering_verify.watermark.patterns import PATTERNS


def test_keys_that_exist_are_what_they_were() -> None:
    fingerprints = [Key.from_secret(SECRET, SHAPE, pattern=p).fingerprint for p in ("rings", "random")]
    assert fingerprints == ["89e9bfb1b57991e7", "06c1a85355f504e9"]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_key_is_derived_again_saved_and_read_back(pattern: str, tmp_path: Path) -> None:
    key = Key.from_secret(SECRET, SHAPE, pattern=pattern, name="gallery")
    assert np.array_equal(Key.from_secret(SECRET, SHAPE, pattern=pattern).numbers, key.numbers)
    assert Key.from_secret(SECRET[::-1], SHAPE, pattern=pattern).fingerprint != key.fingerprint
    derived = Key.of_index(SECRET, key.family, "user-7")
    assert derived.family == key.family and derived.fingerprint != key.fingerprint
    key.save(tmp_path / "key.json")
    again = Key.load(tmp_path / "key.json")
    assert (again.fingerprint, again.family) == (key.fingerprint, key.family)
    assert f"{key.numbers[0]}" not in repr(key)


@pytest.mark.parametrize(
    ("pattern", "wrong"), [("centre-signs", 0.5), ("gaussian-shading", 256), ("pseudorandom-code", -1)]
)
def test_numbers_of_another_distribution_are_refused(pattern: str, wrong: float, tmp_path: Path) -> None:
    (key,) = keys_of(pattern, 1)
    numbers = key.numbers.copy()
    numbers[3] = wrong
    with pytest.raises(UsageError, match="needs"):
        replace(key, numbers=numbers)
    key.save(tmp_path / "key.json")
    content = json.loads((tmp_path / "key.json").read_text())
    content["numbers"][3] = wrong
    (tmp_path / "key.json").write_text(json.dumps(content))
    with pytest.raises(KeyFileError, match="not a key file"):
        Key.load(tmp_path / "key.json")


def test_the_numbers_of_sign_keys_are_fair_and_those_of_byte_keys_uniform() -> None:
    signs = np.concatenate([key.numbers for key in keys_of("centre-signs", 20)])
    assert stats.binomtest(int((signs > 0).sum()), len(signs)).pvalue > 0.01
    found = np.concatenate([key.numbers for key in keys_of("gaussian-shading", 200)])
    assert stats.chisquare(np.bincount(found.astype(int), minlength=256)).pvalue > 0.01


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pattern": "mixed-rings", "channels": (2,)}, "two channels"),
        ({"pattern": "gaussian-shading", "inner_radius": 4, "outer_radius": 9}, "leave out --inner-radius"),
        ({"pattern": "pseudorandom-code", "outer_radius": 9}, "leave out --inner-radius"),
        ({"pattern": "centre-signs", "outer_radius": 11}, "do not fit a 22 x 22"),
        ({"pattern": "gaussian-shading", "latent_shape": (3, 8, 8)}, "needs 256 values"),
        ({"pattern": "pseudorandom-code", "latent_shape": (1, 8, 8)}, "needs 256 values"),
    ],
)
def test_layouts_that_do_not_fit_say_what_to_do(options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Key.generate(**{"latent_shape": SHAPE, **options})  # type: ignore[arg-type]


def test_patterns_without_a_spectrum_say_so() -> None:
    (key,) = keys_of("pseudorandom-code", 1)
    for ask in (key_bins, key_coefficients):
        with pytest.raises(UsageError, match="values"):
            ask(key)


@pytest.mark.parametrize("pattern", BY_SIGNS)
def test_keys_that_no_cosine_judges_cannot_be_indexed_or_identified(pattern: str, tmp_path: Path) -> None:
    keys = [replace(key, name=f"k{i}") for i, key in enumerate(keys_of(pattern, 2))]
    with pytest.raises(UsageError, match=f"{pattern} cannot be indexed or identified.*treering verify"):
        KeyIndex.from_keys(keys)
    with pytest.raises(UsageError, match="cannot be indexed"):
        identify("suspect.png", keys)
    (tmp_path / "secret").write_bytes(SECRET)
    (tmp_path / "secret").chmod(0o600)
    index = ["keys", "index", "--from-secret", tmp_path / "secret", "--generate", 2, "--output", tmp_path / "i"]
    refused = CliRunner().invoke(main, [str(a) for a in [*index, "--pattern", pattern]])
    assert refused.exit_code == 2 and "cannot be indexed" in refused.stderr
    assert not (tmp_path / "i").exists()


@pytest.mark.parametrize("pattern", ["mixed-rings", "centre-rings"])
def test_keys_that_the_cosine_judges_are_identified(pattern: str) -> None:
    index = KeyIndex.from_keys([replace(key, name=f"k{i}") for i, key in enumerate(keys_of(pattern, 5))])
    assert index.family == Family.choose(SHAPE, pattern=pattern)
    assert index.numbers.shape == (5, index.family.degrees_of_freedom)
