"""The published geometry: its defect, reproduced, and what classification reaches with it and without."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from treering_detectors import clopper_pearson, nearest_keys

from treering_verify.benchmark.paper import published_geometry
from treering_verify.watermark.spectrum import inverse_transform, transform

SIZES = [32, 64, 128]  # latents of the embedded model, of Stable Diffusion and of SDXL


@cache
def confusion(size: int, count: int, *, centred: bool, deviation: float) -> np.ndarray:
    """Counts (true class, nearest class) over `count` noises per class, read with white noise of that deviation."""
    generator = torch.Generator().manual_seed(0)
    patterns = published_geometry.patterns(size, centred=centred)
    counts = np.zeros((3, 3), dtype=int)
    for label in range(3):
        noise_hat = published_geometry.write(
            torch.randn(count, 1, size, size, generator=generator), label, centred=centred
        )
        noise_hat += deviation * torch.randn(noise_hat.shape, generator=generator)
        answers, _ = nearest_keys(published_geometry.read(noise_hat, centred=centred), patterns)
        counts[label] = np.bincount(answers, minlength=3)
    return counts


def has_partners(rings: np.ndarray) -> bool:
    """Tell whether each bin's conjugate partner has the same ring (row 0 and column 0 are their own, modulo n)."""
    return bool((np.roll(rings[::-1, ::-1], (1, 1), (0, 1)) == rings).all())


@pytest.mark.parametrize("size", SIZES)
def test_the_published_disc_is_the_centred_one_moved_by_a_row_and_so_not_conjugate_symmetric(size: int) -> None:
    published, centred = published_geometry.disc(size, 6, centred=False), published_geometry.disc(size, 6, centred=True)
    assert has_partners(centred)
    assert not has_partners(published)
    assert (np.roll(published, 1, axis=0) == centred).all()
    assert sorted(np.unique(centred)) == list(range(7))
    assert centred[size // 2, size // 2] == 1


@pytest.mark.parametrize("size", SIZES)
def test_patterns_hold_the_papers_values_in_ortho_units(size: int) -> None:
    patterns = published_geometry.patterns(size, centred=True)
    rings = published_geometry.disc(size, 6, centred=True)
    for label, key in enumerate(published_geometry.PAPER_KEYS):
        spectrum = np.zeros((size, size))
        spectrum[rings > 0] = patterns[label] * size  # unnormalised FFT units
        assert [spectrum[rings == i + 1].tolist() for i in range(6)] == [
            pytest.approx([80 * (2 * value - 1)] * int((rings == i + 1).sum())) for i, value in enumerate(key)
        ]


@pytest.mark.parametrize("centred", [True, False])
def test_dropping_the_imaginary_part_destroys_the_published_pattern_and_not_the_centred_one(centred: bool) -> None:
    noise = torch.randn(4, 2, 64, 64, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    written = published_geometry.write(noise, 0, centred=centred, channel=1)
    error = (
        published_geometry.read(written, centred=centred, channel=1)
        - published_geometry.patterns(64, centred=centred)[0]
    )
    lost = np.linalg.norm(error, axis=1) / np.linalg.norm(published_geometry.patterns(64, centred=centred)[0])
    if centred:
        assert (lost < 1e-12).all()
    else:
        assert (lost > 0.2).all()
    assert torch.equal(written[:, 0].isfinite(), torch.ones(4, 64, 64, dtype=torch.bool))
    torch.testing.assert_close(written[:, 0], noise[:, 0], rtol=0, atol=1e-12)
    assert float(inverse_transform(transform(written)).imag.abs().max()) < 1e-12


@pytest.mark.parametrize("size", SIZES[:2])
def test_perfect_inversion_reads_two_classes_of_three_with_the_published_geometry(size: int) -> None:
    counts = confusion(size, 100, centred=False, deviation=0.0)
    assert counts.tolist() == [[0, 100, 0], [0, 100, 0], [0, 0, 100]]  # class 1 reads as class 2


@pytest.mark.parametrize("size", SIZES[:2])
def test_perfect_inversion_reads_every_class_once_the_disc_is_centred(size: int) -> None:
    assert confusion(size, 100, centred=True, deviation=0.0).tolist() == (100 * np.eye(3, dtype=int)).tolist()


@pytest.mark.parametrize(("deviation", "figure"), [(0.5, 0.994), (1.0, 0.874)])
def test_white_noise_on_the_centred_geometry_gives_the_expected_accuracies(deviation: float, figure: float) -> None:
    # They hold for 128 x 128 latents: the pattern's amplitude in ortho units is inversely proportional to the side.
    counts = confusion(128, 250, centred=True, deviation=deviation)
    low, high = clopper_pearson(int(np.trace(counts)), int(counts.sum()))
    assert low <= figure <= high


def test_what_counts_is_the_side_times_the_deviation() -> None:
    small = confusion(64, 400, centred=True, deviation=2.0)
    low, high = clopper_pearson(int(np.trace(small)), int(small.sum()), confidence=0.99)
    assert low <= 0.874 <= high
    assert np.trace(confusion(64, 400, centred=True, deviation=1.0)) > 0.98 * 1200
