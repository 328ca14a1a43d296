"""Every pattern is written and read exactly, has exact p-values, and is stronger the better the estimate is."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from helpers.markings import BY_SIGNS, ON_A_SPECTRUM, ON_ALL_VALUES, SHAPE, SMALL, keys_of, recovered, white
from scipy import stats
from skimage import data
from skimage.transform import resize

from treering_verify.detection.evidence import evidence_of
from treering_verify.detection.verification import verify
from treering_verify.generation.generator import initial_noise
from treering_verify.inversion.recovery import recover_noise
from treering_verify.media.conversion import to_pil, to_tensor
from treering_verify.models import load_model
from treering_verify.models.sampling import denoise
from treering_verify.watermark.embedding import embed, extract, features, key_bins, key_coefficients, key_evidence
from treering_verify.watermark.keys.key import Key
from treering_verify.watermark.patterns import PATTERNS
from treering_verify.watermark.patterns.gaussian_shading import NONCES
from treering_verify.watermark.spectrum import transform


def test_every_pattern_is_tried_here() -> None:
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
    for evidence in key_evidence(marked, key):
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
    assert all(e.statistic == pytest.approx(1) for e in key_evidence(marked, key))


@pytest.mark.parametrize("pattern", ["centre-rings", "centre-signs"])
def test_centre_patterns_live_in_the_middle_alone(pattern: str) -> None:
    (key,) = keys_of(pattern, 1)
    noise = white(1, *SHAPE)
    marked = embed(noise, key)
    assert torch.equal(marked[..., :5, :], noise[..., :5, :]) and torch.equal(marked[..., 27:], noise[..., 27:])
    cut = torch.zeros_like(marked)
    cut[..., 5:27, 5:27] = marked[..., 5:27, 5:27]  # a crop that keeps the middle in its place
    assert key_evidence(cut, key)[0].statistic == pytest.approx(1)
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


# --- the distribution of marked noise -----------------------------------------------------------------------------------


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


def unmarked_estimates(kind: str, pattern: str) -> torch.Tensor:
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
    noise_hat = unmarked_estimates(kind, pattern)
    count = {"gaussian-shading": 50, "pseudorandom-code": 100}.get(pattern, 200)  # which are dear to derive
    keys = [Key.generate(SMALL, pattern=pattern, seed=i, **_radii(pattern)) for i in range(count)]
    pvalues = np.array([key_evidence(noise_hat, key)[0].pvalue for key in keys])
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
        medians.append(np.median([key_evidence(found[i : i + 1], key)[0].log10_pvalue for i, key in enumerate(keys)]))
    assert all(later < earlier for earlier, later in pairwise(medians))


def test_mixed_rings_trust_their_random_bins_less_where_the_rings_show_error() -> None:
    (key,) = keys_of("mixed-rings", 1)
    marked = embed(white(1, *SHAPE), key)
    noisy = recovered(marked + white(1, *SHAPE, seed=3), key)[0]
    assert np.linalg.norm(noisy[: len(key_bins(key)) * 4]) < 0.8 * np.linalg.norm(key.numbers)
    assert noisy @ key.numbers / np.linalg.norm(noisy) / np.linalg.norm(key.numbers) > 0.6


# --- on images --------------------------------------------------------------------------------------------------------


def test_keys_of_all_patterns_are_found_in_images_and_judged_together() -> None:
    model = load_model("landscape")
    keys = [replace(keys_of(pattern, 1)[0], name=pattern) for pattern in PATTERNS]
    noise = torch.cat([embed(initial_noise(model.latent_shape, [60]), key) for key in keys])
    with torch.inference_mode():
        images = [to_pil(image) for image in model.decode(denoise(model, noise, steps=20, conditions=["lake"] * 7))]
    noise_hat, _ = recover_noise(model, torch.cat([to_tensor(image) for image in images]))
    for key, evidence in zip(keys, evidence_of(noise_hat, keys), strict=True):
        assert evidence[0].key == key.name and evidence[0].log10_adjusted < -6
        assert all(e.log10_adjusted > -3 for e in evidence[1:])
    assert verify(images[-1], keys, model=model).key == "pseudorandom-code"
