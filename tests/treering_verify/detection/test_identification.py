"""Identification: the right key among many, the answers that verify gives, and no more false ones than alpha."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from treering_detectors import clopper_pearson

from treering_verify.detection.evidence import evidence_of
from treering_verify.detection.identification import gather, identify, identify_many, match_keys
from treering_verify.detection.verification import verify_many
from treering_verify.errors import KeyFileError, UsageError
from treering_verify.models import LatentModel
from treering_verify.results import KeyEvidence
from treering_verify.watermark.embedding import embed, extract, features
from treering_verify.watermark.keys.index import KeyIndex
from treering_verify.watermark.keys.index_file import Block, blocks_of, write_index
from treering_verify.watermark.keys.key import Family, Key

SHAPE = (4, 32, 32)
FAMILY = Family.choose(SHAPE)
SMALL = Family.choose(SHAPE, pattern="random", channels=(1,), inner_radius=3, outer_radius=4)
SECRET = bytes(range(32))


def noise(count: int, seed: int) -> torch.Tensor:
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(seed))


def drawn(family: Family, count: int, seed: int) -> Block:
    numbers = np.random.default_rng(seed).standard_normal((count, family.degrees_of_freedom))
    return Block([f"k{i}" for i in range(count)], [f"{i:016x}" for i in range(count)], numbers)


def stored(path: Path, block: Block, family: Family, dtype: str) -> KeyIndex:
    write_index(path, family, len(block.names), [block], dtype)
    return KeyIndex.load(path)


# --- agreement with verify --------------------------------------------------------------------------------------------


def test_key_files_have_the_same_evidence_as_in_verify() -> None:
    keys = [Key.generate(SHAPE, name=f"k{i}", seed=i) for i in range(6)]
    keys += [Key.generate(SHAPE, name=f"r{i}", pattern="rings", seed=i) for i in range(3)]  # another family among them
    noise_hat = torch.cat([embed(noise(1, 1), keys[4]) + 0.8 * noise(1, 2), noise(2, 3), torch.zeros(1, *SHAPE)])
    found, wanted = match_keys(noise_hat, gather(keys), top=9), evidence_of(noise_hat, keys)
    for a, b in zip(found[:3], wanted[:3], strict=True):
        assert a == b
    assert found[0][0].key == "k4"
    assert {e.key for e in found[3]} == {k.name for k in keys}  # nothing to go by: all at p = 1
    assert all(e.log10_adjusted == 0 for e in found[3])
    assert [len(e) for e in match_keys(noise_hat, gather(keys), top=2)] == [2] * 4


@pytest.mark.parametrize(("dtype", "decades"), [("float16", 0.3), ("float32", 1e-4)])
def test_an_index_file_gives_the_same_ranks_and_a_p_that_is_a_little_larger(
    dtype: str, decades: float, tmp_path: Path
) -> None:
    keys = [Key.generate(SHAPE, name=f"k{i}", seed=i) for i in range(6)]
    write_index(tmp_path / "i", FAMILY, 6, blocks_of(keys, FAMILY), dtype)
    noise_hat = torch.cat([embed(noise(1, i), keys[i]) + 1.5 * noise(1, 9 + i) for i in range(6)] + [noise(4, 50)])
    for a, b in zip(
        match_keys(noise_hat, [KeyIndex.load(tmp_path / "i")], top=6), evidence_of(noise_hat, keys), strict=True
    ):
        assert [e.key for e in a] == [e.key for e in b] and [e.fingerprint for e in a] == [e.fingerprint for e in b]
        for x, y in zip(a, b, strict=True):
            assert y.log10_pvalue < x.log10_pvalue < y.log10_pvalue + decades or y.log10_pvalue == 0
            assert x.log10_adjusted >= y.log10_adjusted and x.statistic < y.statistic


def test_whole_verdicts_agree_with_verify_from_reading_to_reason(tiny_model: LatentModel, tmp_path: Path) -> None:
    keys = [Key.generate(tiny_model.latent_shape, name=f"k{i}", seed=i) for i in range(3)]
    Image.new("RGB", (200, 128), "grey").save(tmp_path / "other.png")
    (tmp_path / "bad.png").write_bytes(b"no image")
    sources = [Image.linear_gradient("L").resize((128, 128)), tmp_path / "other.png", tmp_path / "bad.png"]
    for alpha in (1e-6, 0.999_999):
        pairs = zip(
            identify_many(sources, keys, model=tiny_model, alpha=alpha, top=2, search=None),
            verify_many(sources, keys, model=tiny_model, alpha=alpha, search=None),
            strict=True,
        )
        for a, b in pairs:
            one, two = (
                {k: v for k, v in verdict.record().items() if k not in ("seconds", "time")} for verdict in (a, b)
            )
            assert json.dumps(one) == json.dumps(two)
            assert a.evidence == b.evidence[:2]
            assert a.keys_tried == (3 if a.status == "ok" else 0)


# --- the right key ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_the_right_key_is_found_among_thousands_and_named(dtype: str, tmp_path: Path) -> None:
    family = Family.choose(SHAPE, channels=(0,))
    block = drawn(family, 3000, seed=1)
    index = stored(tmp_path / "i", block, family, dtype)
    rows = [0, 1, 700, 1499, 2999]
    marked = [embed(noise(1, r), Key.of(family, f"k{r}", block.numbers[r])) + noise(1, 5000 + r) for r in rows]
    for row, matches in zip(rows, match_keys(torch.cat(marked), [index]), strict=True):
        assert (matches[0].key, matches[0].fingerprint) == (f"k{row}", f"{row:016x}")
        assert matches[0].log10_adjusted < -6 < matches[1].log10_adjusted
        assert matches[0].log10_adjusted == pytest.approx(matches[0].log10_pvalue + np.log10(3000))
        assert matches[1].log10_adjusted >= min(0, matches[1].log10_pvalue + np.log10(2999) - 1e-9)


def test_a_key_of_a_secret_is_found_in_the_index_and_derived_again_from_its_name(tmp_path: Path) -> None:
    names = [f"user-{i}" for i in range(40)]
    write_index(tmp_path / "i", FAMILY, 40, blocks_of((Key.of_index(SECRET, FAMILY, n) for n in names), FAMILY))
    again = Key.of_index(SECRET, FAMILY, "user-23")
    (matches,) = match_keys(embed(noise(1, 0), again), [KeyIndex.load(tmp_path / "i")], top=1)
    assert (matches[0].key, matches[0].fingerprint) == ("user-23", again.fingerprint)


def test_several_indexes_are_corrected_for_all_their_keys_together(tmp_path: Path) -> None:
    one = stored(tmp_path / "a", drawn(FAMILY, 300, 1), FAMILY, "float32")
    two = KeyIndex.from_keys([Key.generate(SHAPE, pattern="rings", name="rings", seed=1)])
    noise_hat = embed(noise(1, 1), Key.of(FAMILY, "x", drawn(FAMILY, 300, 1).numbers[7])) + noise(1, 2)
    (alone,), (together,) = match_keys(noise_hat, [one]), match_keys(noise_hat, [two, one])
    assert alone[0].key == together[0].key == "k7"
    assert together[0].log10_adjusted == pytest.approx(alone[0].log10_adjusted + np.log10(301 / 300))


# --- the rate of false alarms -----------------------------------------------------------------------------------------


def estimates_far_from_white(count: int, seed: int) -> torch.Tensor:
    """Noise estimates that are far from white: coloured, heavy-tailed, with edges."""
    rng = np.random.default_rng(seed)
    steep = np.cumsum(rng.standard_t(2, size=(count, *SHAPE)), axis=-1)
    return torch.from_numpy(steep.astype(np.float32))


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_p_through_the_index_is_uniform_on_estimates_of_any_distribution(dtype: str, tmp_path: Path) -> None:
    """A thousand images and two thousand keys: each image's p under one key of its own, read through the file."""
    family = Family.choose(SHAPE, channels=(2,))
    index = stored(tmp_path / "i", drawn(family, 2000, seed=2), family, dtype)
    pvalues = []
    for row in range(0, 2000, 2):
        part = KeyIndex(family, *(a[row : row + 1] for a in (index.facts, index.numbers, index.lengths)))
        (matches,) = match_keys(estimates_far_from_white(1, row), [part], top=1)
        pvalues.append(10 ** matches[0].log10_pvalue)
    assert stats.kstest(pvalues, "uniform").pvalue > 0.01


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_unmarked_images_are_detected_no_more_often_than_alpha_over_all_keys(dtype: str, tmp_path: Path) -> None:
    alpha, keys, per_index, rounds = 0.05, 2000, 20, 40
    alarms = 0
    for turn in range(rounds):
        index = stored(tmp_path / f"{turn}", drawn(SMALL, keys, seed=100 + turn), SMALL, dtype)
        found = match_keys(estimates_far_from_white(per_index, turn), [index], top=3)
        alarms += sum(matches[0].log10_adjusted <= np.log10(alpha) for matches in found)
        (tmp_path / f"{turn}").unlink()
    low, high = clopper_pearson(alarms, rounds * per_index, 0.999)
    assert low <= alpha  # Holm's promise
    assert high >= alpha / 2  # and it is not met by never detecting anything


def test_an_image_with_a_key_that_is_not_in_the_index_gets_no_evidence(tmp_path: Path) -> None:
    index = stored(tmp_path / "i", drawn(FAMILY, 1000, seed=3), FAMILY, "float16")
    unmarked = torch.cat([embed(noise(1, i), Key.generate(SHAPE, seed=i)) for i in range(8)])
    assert all(matches[0].log10_adjusted > -6 for matches in match_keys(unmarked, [index]))


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_bad_requests_say_what_to_do(tiny_model: LatentModel) -> None:
    image, key = Image.new("RGB", (128, 128)), Key.generate(SHAPE, seed=1)
    with pytest.raises(UsageError, match="at least one"):
        identify(image, [], model=tiny_model)
    with pytest.raises(UsageError, match="between 0 and 1"):
        identify(image, key, model=tiny_model, alpha=1.0)
    with pytest.raises(UsageError, match="at least 1 match"):
        identify(image, key, model=tiny_model, top=0)
    with pytest.raises(UsageError, match=r"a family of keys .* is made for noise .* keygen --model"):
        identify(image, Key.generate((4, 64, 64), seed=1), model=tiny_model)
    rings = Key.generate(SHAPE, pattern="rings", name=key.name, seed=1)  # of the same name, in another family
    with pytest.raises(UsageError, match=f"two keys are called '{key.name}'"):
        identify(image, [key, rings], model=tiny_model)


def test_a_damaged_key_is_never_named_and_its_numbers_are_not_shown(tmp_path: Path) -> None:
    block = drawn(FAMILY, 50, seed=4)
    write_index(tmp_path / "i", FAMILY, 50, [block], "float32")
    content = bytearray((tmp_path / "i").read_bytes())
    for damage in (content[-400:-396], b"\x00\x00\xc0\x7f"):  # a sign that flips, a NaN
        touched = bytearray(content)
        touched[-400:-396] = bytes(b ^ 0x80 for b in damage) if damage != b"\x00\x00\xc0\x7f" else damage
        (tmp_path / "i").write_bytes(touched)
        with pytest.raises(KeyFileError, match="damaged") as caught:
            match_keys(embed(noise(1, 0), Key.of(FAMILY, "k49", block.numbers[49])), [KeyIndex.load(tmp_path / "i")])
        assert not re.search(r"\d\.\d", str(caught.value))


def test_features_that_are_no_numbers_are_not_blamed_on_the_index() -> None:
    index = KeyIndex.from_keys([Key.generate(SHAPE, seed=1)])
    with pytest.raises(ValueError, match="features"):
        match_keys(torch.full((1, *SHAPE), float("nan")), [index])


def test_features_come_from_the_family_alone() -> None:
    for pattern in ("random", "rings"):
        key = Key.generate(SHAPE, pattern=pattern, seed=1)
        a = noise(2, 0)
        np.testing.assert_array_equal(features(extract(a, key.family), key.family), features(extract(a, key), key))
    with pytest.raises(UsageError, match=r"the family .* is made for"):
        extract(torch.zeros(1, 4, 64, 64), FAMILY)


def test_evidence_is_the_type_that_verify_gives() -> None:
    assert all(isinstance(e, KeyEvidence) for e in match_keys(noise(1, 0), gather(Key.generate(SHAPE, seed=1)))[0])
