"""Writing and reading keys, and the promise behind the p-value: exact on any image that does not depend on the key."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import stats
from skimage import data
from skimage.transform import resize
from treering_detectors import cosine_log10_pvalue

from treering_verify.errors import UsageError
from treering_verify.watermark.embedding import embed, extract, features, groups, key_bins
from treering_verify.watermark.keys.key import Key, count_numbers
from treering_verify.watermark.patterns import PATTERNS as REGISTRY
from treering_verify.watermark.spectrum import transform

PATTERNS = ("rings", "random")  # test_patterns.py tests all of them
SHAPE = (4, 32, 32)
CHANNELS = [(0, 1, 2, 3), (2,), (3, 0)]


def white(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def random_keys(pattern: str, count: int, channels: tuple[int, ...] = (0, 1, 2, 3), seed: int = 0) -> list[Key]:
    """Keys of fresh normal numbers: distributed as real ones (test_key.py) without the cost of deriving them."""
    inner, outer = REGISTRY[pattern].radii
    degrees = count_numbers(pattern, channels, inner, outer, SHAPE)
    numbers = np.random.default_rng(seed).standard_normal((count, degrees))
    return [Key("key", pattern, channels, inner, outer, SHAPE, row) for row in numbers]


def recovered(noise_hat: torch.Tensor, key: Key) -> np.ndarray:
    return features(extract(noise_hat, key), key)


def cosines(found: np.ndarray, keys: list[Key]) -> np.ndarray:
    numbers = np.stack([key.numbers for key in keys])
    norms = np.linalg.norm(numbers, axis=1) * np.linalg.norm(found, axis=-1)
    return np.sum(numbers * found, axis=-1) / norms


def photographs() -> dict[str, torch.Tensor]:
    """Return one 'noise_hat' per image, red, green, blue and grey, normalised: as far from white as can be."""
    found = {}
    for name in ("astronaut", "coffee", "chelsea"):
        image = resize(getattr(data, name)()[:300, :300], (32, 32), anti_aliasing=True)
        channels = np.concatenate([image, image.mean(axis=2, keepdims=True)], axis=2).transpose(2, 0, 1)
        found[name] = torch.from_numpy((channels - channels.mean()) / channels.std())[None]
    return found


def coloured() -> torch.Tensor:
    """One field whose power falls as 1 / f^2, the same in all channels but for their scale."""
    spectrum = transform(white(1, 1, 32, 32, seed=5))
    radius = torch.from_numpy(np.hypot(*np.mgrid[-16:16, -16:16])).clamp_min(1)
    field = torch.fft.ifft2(torch.fft.ifftshift(spectrum / radius, dim=(-2, -1)), norm="ortho").real
    return field * torch.tensor([1.0, 3.0, 0.1, 10.0])[:, None, None]


# --- writing and reading ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_features_of_marked_noise_are_the_keys_numbers(pattern: str, channels: tuple[int, ...]) -> None:
    key = random_keys(pattern, 1, channels)[0]
    found = recovered(embed(white(3, *SHAPE), key), key)
    assert found.shape == (3, key.degrees_of_freedom)
    np.testing.assert_allclose(cosines(found, [key]), 1, rtol=0, atol=1e-12)
    np.testing.assert_allclose(found, np.tile(key.numbers, (3, 1)), rtol=0, atol=1e-11)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_float32_noise_stays_float32_and_loses_rounding_only(pattern: str) -> None:
    key = random_keys(pattern, 1)[0]
    marked = embed(white(2, *SHAPE).float(), key)
    assert marked.dtype == torch.float32
    np.testing.assert_allclose(cosines(recovered(marked, key), [key]), 1, rtol=0, atol=1e-6)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_marking_changes_only_the_keys_bins_and_channels(pattern: str) -> None:
    key = random_keys(pattern, 1, channels=(1, 3))[0]
    noise = white(2, *SHAPE)
    change = transform(embed(noise, key) - noise)
    assert float(change[:, [0, 2]].abs().max()) < 1e-12
    bins = key_bins(key)
    written = torch.zeros(32, 32, dtype=torch.bool)
    written[bins.rows, bins.columns] = written[bins.partner_rows, bins.partner_columns] = True
    assert float(change[..., ~written].abs().max()) < 1e-12
    assert float(change[:, [1, 3]][..., written].abs().min()) > 1e-6


def test_rings_are_unchanged_when_the_image_is_turned_by_180_degrees() -> None:
    ring_key, random_key = (random_keys(pattern, 1)[0] for pattern in ("rings", "random"))
    for key, unchanged in ((ring_key, True), (random_key, False)):
        marked = embed(white(1, *SHAPE), key)
        # Turned about pixel (0, 0), the origin of the transform; any other centre would shift the image too.
        turned = torch.roll(marked.flip(-2, -1), (1, 1), (-2, -1))
        same = np.allclose(recovered(turned, key), recovered(marked, key), rtol=0, atol=1e-11)
        assert same is unchanged
        # On any image, not only on the marked one.
        plain = white(1, *SHAPE, seed=9)
        turned = torch.roll(plain.flip(-2, -1), (1, 1), (-2, -1))
        assert np.allclose(recovered(turned, key), recovered(plain, key), rtol=0, atol=1e-11) is unchanged


@pytest.mark.parametrize("pattern", PATTERNS)
def test_features_never_look_at_the_numbers_of_the_key(pattern: str) -> None:
    own, other = random_keys(pattern, 2)
    none = replace(own, numbers=np.ones_like(own.numbers))
    marked = embed(white(2, *SHAPE), own)
    found = [recovered(marked, key) for key in (own, other, none)]
    assert np.array_equal(found[0], found[1])
    assert np.array_equal(found[0], found[2])


@pytest.mark.parametrize("pattern", PATTERNS)
def test_an_item_does_not_depend_on_its_batch(pattern: str) -> None:
    key = random_keys(pattern, 1)[0]
    noise = white(3, *SHAPE)
    together = recovered(noise, key)
    alone = np.concatenate([recovered(noise[i : i + 1], key) for i in range(3)])
    np.testing.assert_allclose(alone, together, rtol=0, atol=1e-12)


def test_noise_of_another_shape_is_refused_with_what_to_do() -> None:
    key = random_keys("random", 1)[0]
    for wrong in (white(1, 4, 64, 64), white(1, 3, 32, 32), white(4, 32, 32)):
        with pytest.raises(UsageError, match="treering keygen --model"):
            embed(wrong, key)
        with pytest.raises(UsageError, match="treering keygen --model"):
            extract(wrong, key)


# --- the distribution of marked noise -----------------------------------------------------------------------------------


def test_noise_marked_with_random_keys_is_standard_normal() -> None:
    keys = random_keys("random", 60)
    marked = torch.cat([embed(white(1, *SHAPE, seed=i), key) for i, key in enumerate(keys)])
    assert stats.kstest(marked.flatten().numpy(), "norm").pvalue > 0.01
    bins = key_bins(keys[0])
    inside = transform(marked)[..., bins.rows, bins.columns].numpy()
    for part in (inside.real, inside.imag):
        assert stats.kstest(np.sqrt(2) * part.ravel(), "norm").pvalue > 0.01
    assert abs(np.corrcoef(inside.real.ravel(), inside.imag.ravel())[0, 1]) < 4 / inside.size**0.5
    # The pixels of one key's images share its numbers; over keys, neighbours are uncorrelated.
    neighbours = np.corrcoef(marked[..., :-1].flatten().numpy(), marked[..., 1:].flatten().numpy())[0, 1]
    assert abs(neighbours) < 4 / marked.numel() ** 0.5


def test_ring_keys_keep_unit_power_on_average_over_keys() -> None:
    keys = random_keys("rings", 60)
    marked = torch.cat([embed(white(1, *SHAPE, seed=i), key) for i, key in enumerate(keys)])
    bins = key_bins(keys[0])
    power = transform(marked)[..., bins.rows, bins.columns].abs().square().mean(dim=(0, 1)).numpy()
    # Each ring is 240 numbers, whose squares have variance 2.
    for ring in range(3, 13):
        assert power[bins.ring == ring] == pytest.approx(1, abs=4 * (2 / 240) ** 0.5)


# --- the exact test ---------------------------------------------------------------------------------------------------


def null_pvalues(noise_hat: torch.Tensor, pattern: str, count: int = 2000) -> np.ndarray:
    keys = random_keys(pattern, count, seed=11)
    found = recovered(noise_hat, keys[0])  # of the image alone: the numbers of keys[0] do not enter
    return 10 ** cosine_log10_pvalue(cosines(found, keys), keys[0].degrees_of_freedom)


@pytest.mark.parametrize("kind", ["white", "coloured", "astronaut", "coffee", "chelsea", "one key's own noise"])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_pvalues_are_uniform_over_keys_whatever_the_image(pattern: str, kind: str) -> None:
    if kind == "white":
        noise_hat = white(1, *SHAPE)
    elif kind == "coloured":
        noise_hat = coloured()
    elif kind == "one key's own noise":  # marked, with a key that is none of those tried
        noise_hat = embed(white(1, *SHAPE), random_keys(pattern, 1, seed=12)[0])
    else:
        noise_hat = photographs()[kind]
    pvalues = null_pvalues(noise_hat, pattern)
    assert stats.kstest(pvalues, "uniform").pvalue > 0.01
    # The lower tail, where decisions are made.
    assert stats.binomtest(int((pvalues < 0.01).sum()), len(pvalues), 0.01).pvalue > 0.01


@pytest.mark.parametrize("pattern", PATTERNS)
def test_pvalues_are_uniform_over_white_images_and_keys_together(pattern: str) -> None:
    keys = random_keys(pattern, 1000, seed=13)
    found = recovered(white(1000, *SHAPE, seed=14), keys[0])
    pvalues = 10 ** cosine_log10_pvalue(cosines(found, keys), keys[0].degrees_of_freedom)
    assert stats.kstest(pvalues, "uniform").pvalue > 0.01


@pytest.mark.parametrize("pattern", PATTERNS)
def test_evidence_grows_with_the_signal_and_is_overwhelming_without_noise(pattern: str) -> None:
    keys = random_keys(pattern, 40)
    marked = torch.cat([embed(white(1, *SHAPE, seed=i), key) for i, key in enumerate(keys)])
    disturbance = white(40, *SHAPE, seed=999)
    medians = []
    for deviation in (8.0, 4.0, 2.0, 1.0, 0.5, 0.0):
        found = recovered(marked + deviation * disturbance, keys[0])
        medians.append(np.median(cosine_log10_pvalue(np.clip(cosines(found, keys), -1, 1 - 1e-15), found.shape[1])))
    assert all(later < earlier for earlier, later in pairwise(medians))
    assert medians[-1] < -100


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("channels", CHANNELS)
def test_groups_of_a_keys_numbers_are_its_rings(pattern: str, channels: tuple[int, ...]) -> None:
    family = random_keys(pattern, 1, channels)[0].family
    group = groups(family)
    assert group.shape == (family.degrees_of_freedom,)
    rings = family.outer_radius - family.inner_radius + 1
    # An image whose spectrum lives on one ring of one channel shows up in that ring's group alone.
    noise = torch.zeros(1, *SHAPE, dtype=torch.float64)
    marked = embed(noise, random_keys(pattern, 1, channels, seed=3)[0])
    bins = key_bins(family)
    spectrum = transform(marked)
    _, height, width = SHAPE
    y, x = torch.meshgrid(torch.arange(height) - height // 2, torch.arange(width) - width // 2, indexing="ij")
    ring = torch.round(torch.sqrt((x**2 + y**2).double())).long()
    keep = torch.zeros_like(spectrum)
    keep[:, channels[-1]] = torch.where(ring == family.inner_radius + 1, spectrum[:, channels[-1]], 0)
    one = torch.fft.ifft2(torch.fft.ifftshift(keep, dim=(-2, -1)), norm="ortho").real
    found = recovered(one, random_keys(pattern, 1, channels)[0])[0]
    last = (len(channels) - 1) * rings if pattern == "random" else 0
    assert set(group[np.abs(found) > 1e-9]) == {last + 1}
    assert len(set(group)) == rings * (len(channels) if pattern == "random" else 1)
    assert bins.ring.min() == family.inner_radius
