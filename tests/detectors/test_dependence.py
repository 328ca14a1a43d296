"""The number of images that chance detects under one key has the stated mean, spread, distribution and groups."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import integrate
from treering_detectors import (
    chance_count,
    clopper_pearson,
    clump_sizes,
    cosine_needed,
    count_variance,
    feature_groups,
    joint_pvalue,
    shared_cosine,
)

D = 128


def clumped(rng: np.random.Generator, images: int = 300, sources: int = 30, own: float = 0.5) -> NDArray[np.float64]:
    """Return features: half of them variations of a few, and all with a small part in common."""
    shared = rng.standard_normal((sources, D))[rng.integers(0, sources, images // 2)]
    noise = own * rng.standard_normal(shared.shape)
    rest = rng.standard_normal((images - len(shared), D))
    return np.concatenate([shared + noise, rest]) + 0.3 * rng.standard_normal(D)


def detected(features: NDArray[np.float64], alpha: float, keys: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Return which images, (n, keys), are detected under simulated keys."""
    k = rng.standard_normal((D, keys))
    rows = features / np.linalg.norm(features, axis=1, keepdims=True)
    return rows @ (k / np.linalg.norm(k, axis=0)) >= cosine_needed(D, alpha)


@pytest.mark.parametrize(("d", "alpha"), [(2, 0.1), (3, 0.2), (24, 0.01), (24, 0.7), (1024, 1e-6), (1024, 1e-40)])
def test_the_joint_tail_is_the_integral_over_the_sphere(d: int, alpha: float) -> None:
    # Independently of the formula: given <a, u> = s, the rest of u is uniform on a sphere in R^(d - 1) of radius
    # sqrt(1 - s^2), so P(<b, u> >= c) is a single tail in d - 1 dimensions.
    from treering_detectors import cosine_log10_pvalue

    c = cosine_needed(d, alpha)
    for rho in (0.95, 0.5, 0.0, -0.3):
        if d == 2:
            expected = max(0.0, np.arccos(c) - np.arccos(rho) / 2) / np.pi
        else:

            def density(s: float) -> float:
                return float(np.exp((d - 3) / 2 * np.log1p(-s * s)))

            def inside(s: float, rho: float = rho) -> float:
                least = (c - rho * s) / np.sqrt((1 - rho**2) * (1 - s * s))
                if d == 3:
                    tail = np.arccos(np.clip(least, -1, 1)) / np.pi
                else:
                    tail = 10.0 ** float(cosine_log10_pvalue(np.clip(least, -1, 1), d - 1))
                return density(s) * tail

            top = min(1.0, c + 40 / (d * max(abs(c), 0.1)))
            whole = integrate.quad(density, c, top, epsabs=0, limit=200)[0]
            expected = alpha * integrate.quad(inside, c, top, epsabs=0, limit=200)[0] / whole
        assert joint_pvalue(rho, alpha, d) == pytest.approx(expected, rel=2e-3, abs=1e-300), (d, alpha, rho)
    assert joint_pvalue([1.0, -1.0], alpha, d) == pytest.approx([alpha, max(0.0, 2 * alpha - 1)], abs=1e-15)


def test_mean_spread_and_interval_are_those_of_simulated_keys() -> None:
    rng = np.random.default_rng(0)
    features = clumped(rng)
    found = chance_count(features, 0.01)
    counts = detected(features, 0.01, 20000, rng).sum(axis=0)
    assert found.simulated and found.mean == pytest.approx(3.0)
    assert counts.mean() == pytest.approx(found.mean, rel=0.05)
    assert counts.std() == pytest.approx(found.deviation, rel=0.05)
    assert found.deviation > 1.5 * np.sqrt(3.0)  # a binomial count would be far from it
    assert (counts > 0).mean() == pytest.approx(found.any, abs=0.03)
    assert counts[counts > 0].mean() == pytest.approx(found.together, rel=0.05)
    assert found.low == 0 and abs(found.high - np.quantile(counts, 0.975)) <= 1


def test_several_keys_share_alpha() -> None:
    rng = np.random.default_rng(1)
    features = clumped(rng)
    found = chance_count(features, 0.01, keys=4)
    counts = sum(detected(features, 0.0025, 20000, rng).astype(int) for _ in range(4)).clip(max=1).sum(axis=0)
    assert counts.mean() == pytest.approx(found.mean, rel=0.05)
    assert counts.std() == pytest.approx(found.deviation, rel=0.05)
    assert (counts > 0).mean() == pytest.approx(found.any, abs=0.03)
    assert abs(found.high - np.quantile(counts, 0.975)) <= 1
    assert found.deviation < chance_count(features, 0.01).deviation  # clumps of different keys are independent


def test_a_small_alpha_costs_no_precision() -> None:
    # Cliques of equal images: chance detects whole cliques, so everything is known.
    rows = np.repeat(np.random.default_rng(2).standard_normal((50, D)), 4, axis=0)
    for alpha in (1e-6, 1e-20, 1e-60):
        found = chance_count(rows, alpha)
        assert found.mean == pytest.approx(200 * alpha, rel=1e-9)
        assert found.any == pytest.approx(50 * alpha, rel=1e-3)
        assert found.together == pytest.approx(4.0, rel=1e-3)
        assert found.deviation == pytest.approx(np.sqrt(50 * 16 * alpha), rel=1e-3)
        assert (found.low, found.high) == (0, 0)


def test_keys_that_detect_an_image_agree_with_the_sum_over_pairs() -> None:
    features = clumped(np.random.default_rng(3), own=0.2)
    for alpha in (1e-2, 1e-6, 1e-12):
        sizes = clump_sizes(features, alpha, draws=8000)
        mean = len(features) * alpha
        variance = mean * sizes.mean() - mean**2  # E[M^2] = mean x E[S]
        assert variance == pytest.approx(count_variance(features, alpha), rel=0.05)


def test_copies_count_as_files_and_a_sample_stands_for_all() -> None:
    rng = np.random.default_rng(4)
    features = clumped(rng, images=600, sources=10)
    copies = rng.integers(1, 4, 600)
    whole = chance_count(np.repeat(features, copies, axis=0), 0.01)
    by_copies = chance_count(features, 0.01, copies=copies)
    assert (by_copies.mean, by_copies.deviation) == pytest.approx((whole.mean, whole.deviation), rel=1e-3)
    some = rng.permutation(600)[:300]
    sampled = chance_count(features[some], 0.01, copies=copies[some], contents=600, images=float(copies.sum()))
    assert not sampled.simulated and sampled.mean == pytest.approx(whole.mean)
    assert sampled.deviation == pytest.approx(whole.deviation, rel=0.2)
    assert abs(sampled.high - whole.high) <= 0.3 * whole.high


def test_independent_features_give_a_binomial_number() -> None:
    features = np.random.default_rng(5).standard_normal((200, 8192))  # in few dimensions one cosine limits the others
    assert count_variance(features, 0.01) == pytest.approx(200 * 0.01 * 0.99, rel=0.03)


def test_images_without_features_are_never_detected() -> None:
    rows = np.zeros((10, D))
    assert chance_count(rows, 0.5).mean == 0
    rows[0, 0] = 1
    found = chance_count(rows, 0.01)
    assert (found.mean, found.any) == pytest.approx((0.01, 0.01))


def test_a_chance_that_is_no_certainty_holds_its_interval() -> None:
    rng = np.random.default_rng(6)
    inside = 0
    for _ in range(60):
        features = clumped(rng, images=200, sources=int(rng.integers(2, 60)))
        found = chance_count(features, 0.02, draws=2000)
        count = int(detected(features, 0.02, 1, rng).sum())
        inside += found.low <= count <= found.high
    assert clopper_pearson(inside, 60, 0.999)[1] >= 0.95


def test_groups_are_images_that_share_features_directly_or_through_others() -> None:
    rng = np.random.default_rng(7)
    base = rng.standard_normal((3, D))
    rows = [base[0], base[1], base[0] + 0.3 * rng.standard_normal(D), base[2], -base[1]]
    between = base[0] + 0.9 * base[2]  # links two groups that do not share features themselves
    assert feature_groups(np.stack(rows)).tolist() == [0, 1, 0, 2, 3]
    assert feature_groups(np.stack([*rows, between])).tolist() == [0, 1, 0, 0, 2, 0]
    assert len(set(feature_groups(rng.standard_normal((700, D))).tolist())) == 700
    many = np.repeat(rng.standard_normal((2, D)), 600, axis=0)[rng.permutation(1200)]
    assert len(set(feature_groups(many).tolist())) == 2


def test_features_are_shared_where_keys_often_accuse_both() -> None:
    for alpha in (1e-6, 1e-30):
        least = shared_cosine(alpha, 1024)
        assert least > 0.7 and joint_pvalue(least, alpha, 1024) == pytest.approx(0.05 * alpha, rel=0.02)
    assert shared_cosine(0.3, 1024) == shared_cosine(1e-2, 1024) == 0.5


def test_a_few_numbers_do_not_group_by_chance() -> None:
    rng = np.random.default_rng(8)
    grouped = sum(len(set(feature_groups(rng.standard_normal((20, 6))).tolist())) < 20 for _ in range(100))
    assert grouped <= 2


@pytest.mark.parametrize(
    "call",
    [
        lambda: joint_pvalue(1.1, 0.1, 8),
        lambda: joint_pvalue(0.5, 0.0, 8),
        lambda: joint_pvalue(0.5, 0.1, 1),
        lambda: chance_count(np.ones((3, 4)), 0.1, keys=0),
        lambda: chance_count(np.ones((3, 4)), 0.1, copies=[1, 2]),
        lambda: chance_count(np.full((3, 4), np.nan), 0.1),
    ],
)
def test_values_out_of_range_are_refused(call: object) -> None:
    with pytest.raises(ValueError):
        call()  # type: ignore[operator]
