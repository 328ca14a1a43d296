"""The agreement of a noise estimate with a key, as reports show it: true, in its place, and no way to the key."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch

from treering_verify.report.audit.agreement import agreement, bin_of_numbers, cell_of_bins, draw_agreement
from treering_verify.watermark.embedding import embed, key_bins
from treering_verify.watermark.keys.key import Key


def noise(seed: int) -> torch.Tensor:
    return torch.randn((1, 4, 32, 32), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("pattern", ["random", "rings", "centre-signs"])
def test_it_is_one_in_the_key_s_own_noise_and_about_zero_in_others(pattern: str) -> None:
    key = Key.generate((4, 32, 32), pattern=pattern, seed=5)
    own, other = agreement(embed(noise(1), key)[0], key), agreement(noise(1)[0], key)
    assert own and other
    assert [ring for ring, _ in own.rings] == list(range(key.inner_radius, key.outer_radius + 1))
    assert abs(np.mean([cosine for _, cosine in other.rings])) < 4 / np.sqrt(key.degrees_of_freedom)
    assert own.agreeing == own.cells and other.agreeing <= 0.2 * other.cells
    if pattern == "random":
        assert all(cosine == pytest.approx(1, abs=1e-9) for _, cosine in own.rings)
        assert (own.levels == 2).all()
    assert (own.cells == 0) == (pattern == "rings")  # a map of one number a ring would tell the key


def test_there_is_none_of_a_key_that_is_written_elsewhere() -> None:
    assert agreement(noise(1)[0], Key.generate((4, 32, 32), pattern="gaussian-shading", seed=5)) is None


def test_each_bin_is_drawn_where_it_is() -> None:
    key = Key.generate((4, 32, 32), seed=5)
    marked = embed(noise(1), key)
    other = noise(2)
    spectrum, foreign = (torch.fft.fftshift(torch.fft.fft2(one, norm="ortho"), dim=(-2, -1)) for one in (marked, other))
    spectrum[..., :14] = foreign[
        ..., :14
    ]  # the left part of the annulus, and with it the right, which is its conjugate
    spectrum[..., 19:] = foreign[..., 19:]
    found = agreement(torch.fft.ifft2(torch.fft.ifftshift(spectrum, dim=(-2, -1)), norm="ortho").real[0], key)
    assert found
    bins = key_bins(key)
    assert {(y, x) for y, x in zip(found.rows.tolist(), found.columns.tolist(), strict=True)} == {
        (r - 16, c - 16)
        for rows, columns in ((bins.rows, bins.columns), (bins.partner_rows, bins.partner_columns))
        for r, c in zip(rows.tolist(), columns.tolist(), strict=True)
    }
    middle = (np.abs(found.columns) <= 1) & (np.abs(found.rows) >= 6)
    assert found.levels[middle].mean() > 1 and abs(found.levels[np.abs(found.columns) > 4].mean()) < 0.4
    drawn = np.asarray(draw_agreement(found, 210))
    assert drawn[105, 105, 3] == 0 and (drawn[15, 105] == (*(190, 84, 28), 255)).all()


@pytest.mark.parametrize(("cosine", "images"), [(0.15, 1), (0.3, 1), (0.3, 4), (0.5, 1), (0.5, 4), (0.85, 1)])
def test_a_page_tells_whoever_has_the_images_little_more_of_the_key(cosine: float, images: int) -> None:
    generator = np.random.default_rng(1)
    found = []
    for seed in range(3):
        key = Key.generate((4, 32, 32), seed=seed)
        k = key.numbers
        features = [cosine * k + np.sqrt(1 - cosine**2) * generator.normal(size=len(k)) for _ in range(images)]
        place = bin_of_numbers(key)
        assert place is not None
        cells = cell_of_bins(key)[place]
        assert np.bincount(cells).min() >= 32
        found.append([estimate(k, features, cells, cosine, has_page) for has_page in (False, True)])
    alone, with_page = np.mean(found, axis=0)
    print(f"\n{images} images, cosine {cosine}: {alone:.3f} alone, {with_page:.3f} with their pages")
    assert with_page - alone < 0.06


def estimate(
    k: npt.NDArray[np.float64],
    features: list[npt.NDArray[np.float64]],
    cells: npt.NDArray[np.int64],
    cosine: float,
    has_page: bool,
) -> float:
    """Return the cosine with a key of the best linear estimate of it from images, and from the levels on their pages."""
    variance = (1 - cosine**2) / (1 - cosine**2 + len(features) * cosine**2)  # of each number, given the images
    mean = sum(features) * variance * cosine / (1 - cosine**2)
    if has_page:
        for cell in range(cells.max() + 1):
            mine = cells == cell
            axes = np.array([a[mine] / np.linalg.norm(a[mine]) for a in features])
            length = np.sqrt(mine.sum())
            told = [np.rint(2 * axis @ k[mine] / np.linalg.norm(k[mine])) / 2 * length for axis in axes]
            doubt = 0.5 + (length / 2) ** 2 / 12  # the key's length in the cell, and the rounding to levels
            gain = variance * axes.T @ np.linalg.inv(variance * axes @ axes.T + doubt * np.eye(len(axes)))
            mean[mine] += gain @ (np.array(told) - axes @ mean[mine])
    return float(mean @ k / np.linalg.norm(mean) / np.linalg.norm(k))
