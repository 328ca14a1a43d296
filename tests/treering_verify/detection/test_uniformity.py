"""p is uniform on images without the key: photographs, and images marked with another key, after every attack.

The images are few and the keys are fresh: given its image each pair's p is uniform, and independent of every other pair's.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from treering_detectors import cosine_tests

from treering_verify.attacks import GRIDS
from treering_verify.generation.generator import generate
from treering_verify.inversion.recovery import InversionOptions, recover_noise
from treering_verify.media.conversion import fit, to_tensor
from treering_verify.models import LatentModel
from treering_verify.watermark.embedding import extract, features
from treering_verify.watermark.keys.key import Family, Key

KEYS = 40  # for each image
PATTERNS = ("rings", "random")
FAMILIES = {pattern: Family.choose((4, 32, 32), pattern=pattern) for pattern in PATTERNS}
Noises = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def images(tiny_model: LatentModel) -> list[Image.Image]:
    from skimage import data
    from sklearn.datasets import load_sample_image

    photographs = [data.astronaut(), data.coffee(), data.chelsea(), data.rocket(), data.retina()]
    photographs += [load_sample_image("china.jpg"), load_sample_image("flower.jpg")]
    crops = [fit(Image.fromarray(p).crop((60, 40, 316, 296)), (128, 128))[0] for p in photographs]
    another = Key.generate((4, 32, 32), seed=1)
    return crops + [g.image for g in generate(tiny_model, another, seeds=range(2), steps=4)]


@pytest.fixture(scope="module")
def noises(images: list[Image.Image], tiny_model: LatentModel) -> Noises:
    """Noise_hat of all images after the weakest, a middling and the strongest attack of each grid."""
    found = {}
    for name, grid in GRIDS.items():
        chosen = {grid[0]: None, grid[len(grid) // 2]: None, grid[-1]: None}
        attacked = [p for attack in chosen for p in attack.apply_many(images, range(len(images)), tiny_model)]
        pixels = torch.cat([to_tensor(image) for image in attacked])
        found[name] = recover_noise(tiny_model, pixels, InversionOptions(method="encoder", steps=1))[0]
    return found


def pvalues(noise_hat: torch.Tensor, family: Family, seed: list[int]) -> np.ndarray:
    """Exact p of every image under keys that are drawn for it alone."""
    estimates = features(extract(noise_hat, family), family)
    rng = np.random.default_rng(seed)
    drawn = [rng.standard_normal((KEYS, family.degrees_of_freedom)) for _ in estimates]
    return np.array([e.pvalue for a, k in zip(estimates, drawn, strict=True) for e in cosine_tests(a, k)])


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("attack", GRIDS)
def test_p_is_uniform_after_every_attack(attack: str, pattern: str, noises: Noises) -> None:
    found = pvalues(noises[attack], FAMILIES[pattern], [list(GRIDS).index(attack), PATTERNS.index(pattern)])
    assert len(found) in (9 * KEYS, 27 * KEYS)  # a grid of one strength, or three strengths
    assert stats.kstest(found, "uniform").pvalue > 1e-4  # over 48 of these, one falls short in two hundred suites


@pytest.mark.parametrize("pattern", PATTERNS)
def test_small_pvalues_are_as_frequent_as_they_say_over_all_attacks(pattern: str, noises: Noises) -> None:
    found = np.concatenate(
        [pvalues(noise_hat, FAMILIES[pattern], [100 + i]) for i, noise_hat in enumerate(noises.values())]
    )
    assert len(found) > 24_000
    assert stats.kstest(found, "uniform").pvalue > 0.01
    for alpha in (1e-2, 1e-3):
        low, high = stats.binom.ppf([0.0005, 0.9995], len(found), alpha)
        assert low <= (found <= alpha).sum() <= high


def test_p_of_a_key_that_the_features_depend_on_is_not_uniform(noises: Noises) -> None:
    family = FAMILIES["random"]
    estimates = features(extract(noises["jpeg"], family), family)
    keys = np.random.default_rng(7).standard_normal(estimates.shape)
    length = np.linalg.norm(estimates, axis=1, keepdims=True) / np.linalg.norm(keys, axis=1, keepdims=True)
    leaked = [e.pvalue for e in cosine_tests(estimates + 0.1 * length * keys, keys)]
    assert stats.kstest(leaked, "uniform").pvalue < 1e-6


def test_places_are_combined_by_a_sum_and_not_by_stacking(noises: Noises) -> None:
    family = FAMILIES["rings"]
    places = [features(extract(noises[name], family), family) for name in ("blur", "jpeg")]
    keys = np.random.default_rng(8).standard_normal((200, *places[0].shape))
    summed, stacked = [], []
    for drawn in keys:
        summed += [e.pvalue for e in cosine_tests(0.3 * places[0] + 0.7 * places[1], drawn)]
        stacked += [e.pvalue for e in cosine_tests(np.hstack(places), np.hstack([drawn, drawn]))]
    assert stats.kstest(summed, "uniform").pvalue > 1e-3
    assert stats.kstest(stacked, "uniform").pvalue < 1e-6
