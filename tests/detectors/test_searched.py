"""A search with fixed weights has at most the stated false-positive rate, and keeps its power."""

from __future__ import annotations

import numpy as np
import pytest
from treering_detectors import clopper_pearson, cosine_test, searched_cosine_test

D = 60


def test_one_hypothesis_with_all_the_weight_is_the_plain_test() -> None:
    rng = np.random.default_rng(0)
    a, k = rng.standard_normal(D), rng.standard_normal(D)
    found = searched_cosine_test(a[None], k, [1.0])
    plain = cosine_test(a, k)
    assert found.evidence.log10_pvalue == pytest.approx(plain.log10_pvalue, rel=1e-12)
    assert found.evidence.statistic == pytest.approx(plain.statistic, rel=1e-12)
    assert found.winner == 0


def test_the_winner_is_the_hypothesis_whose_p_over_weight_is_smallest() -> None:
    rng = np.random.default_rng(1)
    k = rng.standard_normal(D)
    a = rng.standard_normal((3, D)) + np.array([[0.0], [0.5], [0.52]]) * k
    alone = [cosine_test(row, k).log10_pvalue for row in a]
    assert searched_cosine_test(a, k, [0.3, 0.3, 0.3]).winner == int(np.argmin(alone))
    # A weight that is small enough takes it from the strongest.
    strongest = int(np.argmin(alone))
    weights = np.full(3, 0.3)
    weights[strongest] = 1e-30
    found = searched_cosine_test(a, k, weights)
    assert found.winner != strongest
    assert found.evidence.log10_pvalue == pytest.approx(alone[found.winner] - np.log10(0.3))


@pytest.mark.parametrize("related", [False, True])
def test_the_corrected_p_is_never_more_often_small_than_it_says(related: bool) -> None:
    rng = np.random.default_rng(2)
    a = rng.standard_normal((40, D))
    if related:  # hypotheses that are nearly the same
        a = a[:1] + 0.3 * a
    weights = np.r_[0.5, np.full(39, 0.5 / 39)]
    trials = 4000
    log10 = np.array(
        [searched_cosine_test(a, rng.standard_normal(D), weights).evidence.log10_pvalue for _ in range(trials)]
    )
    for alpha in (0.3, 0.1, 0.01):
        count = int((log10 <= np.log10(alpha)).sum())
        low, _ = clopper_pearson(count, trials, 0.999)
        assert low <= alpha
        if not related and alpha < 0.3:  # and the bound is not an idle one
            assert count > 0.5 * alpha * trials


def test_an_image_without_features_carries_no_evidence() -> None:
    found = searched_cosine_test(np.zeros((2, D)), np.ones(D), [0.5, 0.5])
    assert found.evidence.pvalue == 1


@pytest.mark.parametrize(
    ("shapes", "weights", "message"),
    [
        (((2, D), D), [0.9, 0.2], "at most 1"),
        (((2, D), D), [0.5, 0.0], "positive"),
        (((2, D), D), [0.5], "has shape"),
        (((2, D), D - 1), [0.5, 0.5], "has shape"),
        (((0, D), D), [], "has shape"),
    ],
)
def test_what_cannot_be_corrected_is_refused(
    shapes: tuple[tuple[int, int], int], weights: list[float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        searched_cosine_test(np.ones(shapes[0]), np.ones(shapes[1]), weights)
