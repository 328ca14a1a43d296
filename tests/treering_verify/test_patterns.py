"""Every pattern by the same laws: written and read exactly, exact under the null, stronger the better the estimate."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from scipy import stats
from skimage import data
from skimage.transform import resize

from treering_verify.cli import main
from treering_verify.commands import PATTERN_NAMES
from treering_verify.errors import KeyFileError, UsageError
from treering_verify.generation import initial_noise
from treering_verify.identification import identify
from treering_verify.images import to_pil, to_tensor
from treering_verify.key import Family, Key
from treering_verify.key_index import KeyIndex
from treering_verify.messages import decode_many, with_message
from treering_verify.models import load_model
from treering_verify.noise_inversion import denoise
from treering_verify.patterns import PATTERNS, parity, whole
from treering_verify.patterns.shading import NONCES, read_message
from treering_verify.spectrum import transform
from treering_verify.verification import recover_noise, verify, weigh
from treering_verify.watermark import embed, extract, features, key_bins, key_coefficients, weigh_key

SHAPE = (4, 32, 32)
SMALL = (2, 24, 24)  # where many tests of signs are run
SECRET = bytes(range(32))
ON_A_SPECTRUM = [name for name, pattern in PATTERNS.items() if pattern.bins]
ON_ALL_VALUES = [name for name in PATTERNS if name not in ON_A_SPECTRUM]
BY_SIGNS = [name for name, pattern in PATTERNS.items() if not pattern.cosine]


def white(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def keys_of(pattern: str, count: int, shape: tuple[int, int, int] = SHAPE, first: int = 0) -> list[Key]:
    return [Key.generate(shape, pattern=pattern, seed=first + i) for i in range(count)]


def recovered(noise_hat: torch.Tensor, key: Key) -> np.ndarray:
    return features(extract(noise_hat, key), key)


def test_the_command_line_knows_every_pattern() -> None:
    assert tuple(PATTERNS) == PATTERN_NAMES
    assert len(ON_A_SPECTRUM) == 5 and len(ON_ALL_VALUES) == 2 and len(BY_SIGNS) == 3


# --- writing and reading ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", ON_A_SPECTRUM)
def test_features_of_marked_noise_are_the_keys_numbers(pattern: str) -> None:
    # So the transform back is real and loses nothing of what was written: Hermitian symmetry holds.
    (key,) = keys_of(pattern, 1)
    found = recovered(embed(white(3, *SHAPE), key), key)
    np.testing.assert_allclose(found, np.tile(key.numbers, (3, 1)), rtol=0, atol=1e-11)
    np.testing.assert_allclose(extract(embed(white(1, *SHAPE), key), key)[0], key_coefficients(key), rtol=0, atol=1e-12)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_evidence_of_untouched_marked_noise_is_complete(pattern: str) -> None:
    (key,) = keys_of(pattern, 1)
    marked = embed(white(2, *SHAPE).float(), key)
    assert marked.dtype == torch.float32 and marked.shape == (2, *SHAPE)
    for evidence in weigh_key(marked, key):
        assert evidence.statistic == pytest.approx(1, abs=1e-6)
        assert evidence.log10_pvalue < -100
        assert evidence.degrees_of_freedom == PATTERNS[pattern].compared(key)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_other_channels_stay_as_they_are(pattern: str) -> None:
    key = Key.generate(SHAPE, pattern=pattern, channels=(3, 1), seed=1)
    noise = white(2, *SHAPE)
    marked = embed(noise, key)
    torch.testing.assert_close(marked[:, [0, 2]], noise[:, [0, 2]], rtol=0, atol=1e-12)
    assert all(float((marked - noise)[:, c].abs().max()) > 0.1 for c in (1, 3))
    assert all(e.statistic == pytest.approx(1) for e in weigh_key(marked, key))


@pytest.mark.parametrize("pattern", ["centre-rings", "centre-signs"])
def test_centre_patterns_live_in_the_middle_alone(pattern: str) -> None:
    (key,) = keys_of(pattern, 1)
    noise = white(1, *SHAPE)
    marked = embed(noise, key)
    assert torch.equal(marked[..., :5, :], noise[..., :5, :]) and torch.equal(marked[..., 27:], noise[..., 27:])
    cut = torch.zeros_like(marked)
    cut[..., 5:27, 5:27] = marked[..., 5:27, 5:27]  # a crop that keeps the middle in its place
    assert weigh_key(cut, key)[0].statistic == pytest.approx(1)
    bins = key_bins(key)
    change = transform((marked - noise)[..., 5:27, 5:27])
    outside = torch.ones(22, 22, dtype=torch.bool)
    outside[bins.rows, bins.columns] = outside[bins.partner_rows, bins.partner_columns] = False
    assert float(change[..., outside].abs().max()) < 1e-12


@pytest.mark.parametrize("pattern", ON_ALL_VALUES)
def test_patterns_of_signs_keep_every_size(pattern: str) -> None:
    (key,) = keys_of(pattern, 1)
    noise = white(2, *SHAPE)
    assert torch.equal(embed(noise, key).abs(), noise.abs())


@pytest.mark.parametrize("pattern", PATTERNS)
def test_features_never_look_at_the_numbers_and_items_not_at_their_batch(pattern: str) -> None:
    own, other = keys_of(pattern, 2)
    noise = white(3, *SHAPE)
    marked = embed(noise, own)
    assert np.array_equal(recovered(marked, own), recovered(marked, other))
    alone = torch.cat([embed(noise[i : i + 1], own) for i in range(3)])
    torch.testing.assert_close(alone, marked, rtol=0, atol=1e-12)
    family = features(extract(marked, own.family), own.family)
    assert np.array_equal(family, recovered(marked, own))


# --- the law of marked noise ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", ["random", *ON_ALL_VALUES])
def test_noise_marked_over_keys_is_standard_normal(pattern: str) -> None:
    keys = keys_of(pattern, 25)
    marked = torch.cat([embed(white(1, *SHAPE, seed=i), key) for i, key in enumerate(keys)])
    assert stats.kstest(marked.flatten().numpy(), "norm").pvalue > 0.01
    for one, two in ((marked[..., :-1], marked[..., 1:]), (marked[:, :-1], marked[:, 1:]), (marked[:-1], marked[1:])):
        correlation = np.corrcoef(one.flatten().numpy(), two.flatten().numpy())[0, 1]
        assert abs(correlation) < 4 / one.numel() ** 0.5


@pytest.mark.parametrize("pattern", ["mixed-rings", "centre-rings", "centre-signs"])
def test_patterns_that_are_not_normal_keep_unit_power_over_keys(pattern: str) -> None:
    keys = keys_of(pattern, 40)
    power = [float(np.mean(np.abs(key_coefficients(key)) ** 2)) for key in keys]
    assert np.mean(power) == pytest.approx(1, abs=max(1e-12, 4 * np.std(power) / 40**0.5))


def test_images_of_one_key_share_no_signs_but_for_the_same_nonce() -> None:
    for pattern in ON_ALL_VALUES:
        (key,) = keys_of(pattern, 1)
        signs = embed(white(40, *SHAPE), key).sign().flatten(1)
        agreement = (signs @ signs.T / signs.shape[1]).numpy()[np.triu_indices(40, 1)]
        apart = np.abs(agreement) < 6 / signs.shape[1] ** 0.5
        if pattern == "pseudorandom-code":
            assert apart.all()
        else:  # 780 pairs of images, one of 256 nonces each
            assert set(np.round(agreement[~apart], 12)) <= {1.0}
            assert stats.binomtest(int((~apart).sum()), 780, 1 / NONCES).pvalue > 1e-3


# --- the tests --------------------------------------------------------------------------------------------------------


def pictures(kind: str, pattern: str) -> torch.Tensor:
    """One 'noise_hat' of SMALL, far from white but for the last."""
    if kind == "photograph":
        shades = resize(data.astronaut()[:300, :300, :2], SMALL[1:], anti_aliasing=True).transpose(2, 0, 1)
        return torch.from_numpy((shades - shades.mean()) / shades.std())[None].contiguous()
    if kind == "coloured":
        radius = torch.from_numpy(np.hypot(*np.mgrid[-12:12, -12:12])).clamp_min(1)
        spectrum = transform(white(1, *SMALL, seed=5)) / radius
        return torch.fft.ifft2(torch.fft.ifftshift(spectrum, dim=(-2, -1)), norm="ortho").real
    if kind == "another key's":
        return embed(white(1, *SMALL), Key.generate(SMALL, pattern=pattern, seed=10**6, **_radii(pattern)))
    return white(1, *SMALL)


@pytest.mark.parametrize("kind", ["photograph", "coloured", "another key's", "white"])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_p_is_uniform_over_keys_whatever_the_image(pattern: str, kind: str) -> None:
    noise_hat = pictures(kind, pattern)
    count = {"gaussian-shading": 50, "pseudorandom-code": 100}.get(pattern, 200)  # which are dear to derive
    keys = [Key.generate(SMALL, pattern=pattern, seed=i, **_radii(pattern)) for i in range(count)]
    pvalues = np.array([weigh_key(noise_hat, key)[0].pvalue for key in keys])
    for alpha in (0.1, 0.01):
        assert stats.binomtest(int((pvalues <= alpha).sum()), count, alpha, "greater").pvalue > 0.005
    if pattern != "gaussian-shading":  # whose p is that of the best nonce times their number
        assert stats.kstest(pvalues, "uniform").pvalue > 0.005


def _radii(pattern: str) -> dict[str, int]:
    return {"outer_radius": 7} if pattern in ON_A_SPECTRUM else {}


@pytest.mark.parametrize("pattern", PATTERNS)
def test_evidence_grows_with_the_signal(pattern: str) -> None:
    keys = keys_of(pattern, 6)
    marked = torch.cat([embed(white(1, *SHAPE, seed=i), key) for i, key in enumerate(keys)])
    disturbance = white(6, *SHAPE, seed=999)
    medians = []
    for deviation in (4.0, 2.0, 1.0, 0.0):
        found = marked + deviation * disturbance
        medians.append(np.median([weigh_key(found[i : i + 1], key)[0].log10_pvalue for i, key in enumerate(keys)]))
    assert all(later < earlier for earlier, later in pairwise(medians))


def test_mixed_rings_trust_their_random_bins_less_where_the_rings_show_error() -> None:
    (key,) = keys_of("mixed-rings", 1)
    marked = embed(white(1, *SHAPE), key)
    noisy = recovered(marked + white(1, *SHAPE, seed=3), key)[0]
    assert np.linalg.norm(noisy[: len(key_bins(key)) * 4]) < 0.8 * np.linalg.norm(key.numbers)
    assert noisy @ key.numbers / np.linalg.norm(noisy) / np.linalg.norm(key.numbers) > 0.6


# --- Gaussian Shading -------------------------------------------------------------------------------------------------


def test_a_message_is_read_from_noise_and_needs_only_the_cipher() -> None:
    key = with_message(Key.generate(SHAPE, pattern="gaussian-shading", seed=4), "user 12345, 2026-11-25")
    marked = embed(white(1, *SHAPE), key)
    other = with_message(key, b"\xff" * 22)  # as long
    for deviation, limit in ((0.0, -900), (0.6, -200)):
        noise_hat = marked + deviation * white(1, *SHAPE, seed=8)
        message, evidence = read_message(recovered(noise_hat, other)[0], other.numbers)
        assert message == b"user 12345, 2026-11-25"
        assert evidence.log10_pvalue < limit
        # Without the message, the evidence is less than with it.
        assert weigh_key(noise_hat, key)[0].log10_pvalue < evidence.log10_pvalue
    _, evidence = read_message(recovered(white(1, *SHAPE), key)[0], key.numbers)
    assert evidence.log10_pvalue > -4


def test_the_keystream_is_chacha20_of_rfc_8439() -> None:
    # Section 2.4.2 of the RFC begins at counter 1: the second block of 64 bytes.
    nonce = bytes.fromhex("000000000000004a00000000")
    stream = whole.stream(bytes(range(32)), int.from_bytes(nonce, "big"), 128)
    plain = b"Ladies and Gentlemen of the class of '99: If I could offer you o"
    cipher = bytes(a ^ b for a, b in zip(plain, stream[64:], strict=True))
    assert cipher.hex().startswith("6e2e359a2568f98041ba0728dd0d6981")


def test_messages_that_do_not_fit_are_refused() -> None:
    shading, random = Key.generate(SHAPE, pattern="gaussian-shading", seed=1), Key.generate(SHAPE, seed=1)
    with pytest.raises(UsageError, match="at most 32"):
        with_message(shading, "ä" * 17)
    for nothing in ("", b"a\0"):
        with pytest.raises(UsageError, match="empty or ends"):
            with_message(shading, nothing)
    with pytest.raises(UsageError, match="gaussian-shading --message"):
        with_message(random, "x")
    with pytest.raises(UsageError, match="gaussian-shading --message"):
        next(decode_many([], random))


# --- the pseudorandom code --------------------------------------------------------------------------------------------


def test_every_codeword_passes_every_check_and_the_checks_are_independent() -> None:
    code = parity.code_of(SECRET, 512)
    free = 512 - len(code.pairs)
    assert sorted(code.order) == list(range(512))
    for j, (first, second) in enumerate(code.pairs.tolist()):
        # Each check has a position that no earlier one has: in this order they are in echelon form.
        assert first != second and max(first, second) < free + j
    pad = 1 - 2 * code.pad.astype(int)
    words = []
    for seed in range(5):
        bits = np.random.default_rng(seed).integers(0, 2, free).astype(np.uint8)
        word = parity.codeword_signs(code, bits)[code.order] * pad
        assert (word[free:] == word[code.pairs[:, 0]] * word[code.pairs[:, 1]]).all()
        words.append(word)
    assert np.abs(np.corrcoef(words)[np.triu_indices(5, 1)]).max() < 0.3


def test_the_published_bound_is_never_better_than_the_exact_test() -> None:
    (key,) = keys_of("pseudorandom-code", 1)
    marked = embed(white(4, *SHAPE), key)
    for deviation in (0.3, 0.6, 1.0):
        noise_hat = marked + deviation * white(4, *SHAPE, seed=7)
        published = parity.published_log10_pvalue(recovered(noise_hat, key), key.numbers)
        exact = np.array([e.log10_pvalue for e in weigh_key(noise_hat, key)])
        assert (exact < 0.97 * published).all()  # the rounding of weights may cost the exact test a little


# --- keys -------------------------------------------------------------------------------------------------------------


def test_keys_that_exist_are_what_they_were() -> None:
    fingerprints = [Key.from_secret(SECRET, SHAPE, pattern=p).fingerprint for p in ("rings", "random")]
    assert fingerprints == ["89e9bfb1b57991e7", "06c1a85355f504e9"]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_key_is_derived_again_saved_and_read_back(pattern: str, tmp_path: Path) -> None:
    key = Key.from_secret(SECRET, SHAPE, pattern=pattern, name="gallery")
    assert np.array_equal(Key.from_secret(SECRET, SHAPE, pattern=pattern).numbers, key.numbers)
    assert Key.from_secret(SECRET[::-1], SHAPE, pattern=pattern).fingerprint != key.fingerprint
    member = Key.member(SECRET, key.family, "user-7")
    assert member.family == key.family and member.fingerprint != key.fingerprint
    key.save(tmp_path / "key.json")
    again = Key.load(tmp_path / "key.json")
    assert (again.fingerprint, again.family) == (key.fingerprint, key.family)
    assert f"{key.numbers[0]}" not in repr(key)


@pytest.mark.parametrize(
    ("pattern", "wrong"), [("centre-signs", 0.5), ("gaussian-shading", 256), ("pseudorandom-code", -1)]
)
def test_numbers_of_another_law_are_refused(pattern: str, wrong: float, tmp_path: Path) -> None:
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
        ({"pattern": "gaussian-shading", "inner_radius": 4, "outer_radius": 9}, "no --inner-radius"),
        ({"pattern": "pseudorandom-code", "outer_radius": 9}, "no --inner-radius"),
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


# --- on images --------------------------------------------------------------------------------------------------------


def test_keys_of_all_patterns_are_found_in_images_and_judged_together() -> None:
    model = load_model("landscape")
    keys = [replace(keys_of(pattern, 1)[0], name=pattern) for pattern in PATTERNS]
    noise = torch.cat([embed(initial_noise(model.latent_shape, [60]), key) for key in keys])
    with torch.inference_mode():
        images = [to_pil(image) for image in model.decode(denoise(model, noise, steps=20, conditions=["lake"] * 7))]
    noise_hat, _ = recover_noise(model, torch.cat([to_tensor(image) for image in images]))
    for key, evidence in zip(keys, weigh(noise_hat, keys), strict=True):
        assert evidence[0].key == key.name and evidence[0].log10_adjusted < -6
        assert all(e.log10_adjusted > -3 for e in evidence[1:])
    assert verify(images[-1], keys, model=model).key == "pseudorandom-code"


def test_a_message_goes_through_the_command_line(tmp_path: Path) -> None:
    def run(*arguments: object) -> object:
        return CliRunner().invoke(main, [str(a) for a in arguments])

    key, folder = tmp_path / "mine.key.json", tmp_path / "images"
    (tmp_path / "secret").write_bytes(SECRET)  # how much of the noise comes back differs a lot between keys
    shading = ("keygen", "--from-secret", tmp_path / "secret", "--pattern", "gaussian-shading")
    made = run(*shading, "--message", "edition 7", "--output", key)
    assert made.exit_code == 0 and "4096 signs" in made.stderr and "edition" not in made.output
    assert run("generate", "--key", key, "--steps", 20, "--seed", 3, "--output", folder).exit_code == 0
    assert run("generate", "--unmarked", "--steps", 20, "--seed", 3, "--output", folder).exit_code == 0
    files = sorted(folder.glob("*.png"))
    records = [
        json.loads(line) for line in run("decode", *files, "--key", key, "--format", "jsonl").stdout.splitlines()
    ]
    assert [(r["verdict"], r["message"]) for r in records] == [("detected", "edition 7"), ("no evidence", "")]
    text = run("decode", files[0], "--key", key)
    assert "message 'edition 7'" in text.stdout
    assert run("verify", files[0], "--key", key, "--fail-on", "detected").exit_code == 1
    other = tmp_path / "other.key.json"
    assert run("keygen", "--output", other).exit_code == 0
    assert run("decode", files[0], "--key", other).exit_code == 2
    too_long = run(*shading, "--message", "x" * 33, "--output", tmp_path / "long")
    assert too_long.exit_code == 2 and not (tmp_path / "long").exists()
