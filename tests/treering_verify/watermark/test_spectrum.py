"""The Fourier transform of noise: which bins are independent, and that writing and reading are exact."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from treering_verify.watermark.spectrum import annulus_bins, half_plane, inverse_transform, read, transform, write

SIZES = [(32, 32), (8, 8), (9, 9), (15, 15), (8, 12), (9, 16), (16, 9), (64, 32)]


def positions(rows: np.ndarray, columns: np.ndarray) -> set[tuple[int, int]]:
    return set(zip(rows.tolist(), columns.tolist(), strict=True))


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def values(channels: int, count: int) -> torch.Tensor:
    return torch.complex(noise(channels, count, seed=1), noise(channels, count, seed=2))


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_the_half_plane_has_one_bin_of_every_conjugate_pair_and_no_real_bin(height: int, width: int) -> None:
    bins = half_plane(height, width)
    chosen = positions(bins.rows, bins.columns)
    partners = positions(bins.partner_rows, bins.partner_columns)
    assert len(chosen) == len(partners) == len(bins)
    assert not chosen & partners
    # The bins whose coefficient is real for every real z, found from the transform itself and not from its indices.
    real = transform(noise(1, 1, height, width)).imag[0, 0].abs().numpy() < 1e-12
    left = {(r, c) for r in range(height) for c in range(width)} - chosen - partners
    assert left == positions(*np.nonzero(real))
    assert (height // 2, width // 2) in left


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_partners_hold_the_complex_conjugate_of_every_real_field(height: int, width: int) -> None:
    bins = half_plane(height, width)
    spectrum = transform(noise(2, 3, height, width))
    here = spectrum[..., bins.rows, bins.columns]
    there = spectrum[..., bins.partner_rows, bins.partner_columns]
    torch.testing.assert_close(here, there.conj(), rtol=0, atol=1e-12)


def test_dc_stands_in_the_middle_and_holds_the_mean() -> None:
    z = noise(1, 1, 8, 12)
    assert transform(z)[0, 0, 4, 6].real.item() == pytest.approx(z.sum().item() / 96**0.5)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_inverse_undoes_transform(height: int, width: int) -> None:
    z = noise(2, 3, height, width)
    torch.testing.assert_close(inverse_transform(transform(z)).real, z, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_reading_gives_what_was_written_and_nothing_else_has_changed(height: int, width: int) -> None:
    bins = annulus_bins(height, width, 1, min(height, width) // 2 - 1)
    z, channels = noise(2, 4, height, width), (3, 1)
    new = values(len(channels), len(bins))
    written = write(z, bins, channels, new)
    assert written.dtype == z.dtype and written.shape == z.shape
    error = read(written, bins)[:, list(channels)] - new
    assert float(error.abs().max() / new.abs().max()) < 1e-12
    assert torch.linalg.norm(error) / torch.linalg.norm(new) < 1e-12
    others = [c for c in range(4) if c not in channels]
    torch.testing.assert_close(written[:, others], z[:, others], rtol=0, atol=1e-12)
    outside = torch.ones(height, width, dtype=torch.bool)
    outside[bins.rows, bins.columns] = outside[bins.partner_rows, bins.partner_columns] = False
    torch.testing.assert_close(transform(written)[..., outside], transform(z)[..., outside], rtol=0, atol=1e-12)


def test_each_item_can_be_given_its_own_values_and_the_input_is_left_alone() -> None:
    bins = annulus_bins(16, 16, 2, 5)
    z = noise(3, 2, 16, 16)
    before = z.clone()
    new = values(3, len(bins))[:, None]  # (B, c, n)
    torch.testing.assert_close(read(write(z, bins, (1,), new), bins)[:, 1], new[:, 0], rtol=0, atol=1e-12)
    assert torch.equal(z, before)


def test_a_written_spectrum_is_hermitian_so_that_its_inverse_is_real_to_rounding() -> None:
    bins = annulus_bins(32, 32, 3, 12)
    spectrum = transform(noise(1, 1, 32, 32))
    new = values(1, len(bins))[0]
    spectrum[0, 0, bins.rows, bins.columns] = new
    spectrum[0, 0, bins.partner_rows, bins.partner_columns] = new.conj()
    assert float(inverse_transform(spectrum).imag.abs().max()) < 1e-14
    spectrum[0, 0, bins.partner_rows, bins.partner_columns] = new  # the identity can fail
    assert float(inverse_transform(spectrum).imag.abs().max()) > 1e-3


def test_unit_normal_noise_has_unit_power_in_every_bin() -> None:
    power = transform(noise(4000, 1, 8, 12)).abs().square().mean(dim=0)[0]
    # Standard errors: 1 / sqrt(4000) for complex bins, sqrt(2 / 4000) for the four real ones; 96 bins.
    assert float((power - 1).abs().max()) < 4.5 * (2 / 4000) ** 0.5
    assert float(power.mean()) == pytest.approx(1, abs=4 / (4000 * 96 / 2) ** 0.5)


@pytest.mark.parametrize(("inner", "outer"), [(1, 15), (3, 12), (4, 4)])
def test_an_annulus_holds_every_half_plane_bin_between_its_radii(inner: int, outer: int) -> None:
    bins = annulus_bins(32, 32, inner, outer)
    ring = np.rint(np.hypot(*np.mgrid[-16:16, -16:16])).astype(int)
    both = positions(bins.rows, bins.columns) | positions(bins.partner_rows, bins.partner_columns)
    assert both == positions(*np.nonzero((ring >= inner) & (ring <= outer)))
    assert (bins.ring == ring[bins.rows, bins.columns]).all()
    assert (bins.ring == ring[bins.partner_rows, bins.partner_columns]).all()


@pytest.mark.parametrize(("inner", "outer"), [(0, 4), (5, 4), (-1, 3), (1, 16), (17, 18)])
def test_an_annulus_that_is_empty_or_too_large_is_refused_with_the_limits(inner: int, outer: int) -> None:
    with pytest.raises(ValueError, match="1 <= inner <= outer <= 15"):
        annulus_bins(32, 32, inner, outer)
