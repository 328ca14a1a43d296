"""A search with fixed weights has at most the stated false-positive rate, and keeps its power."""

from __future__ import annotations

import numpy as np
import pytest
from treering_detectors import clopper_pearson, cosine_log10_pvalue, weighted_bonferroni

D = 60


def test_a_p_value_with_all_the_weight_stays_as_it_is_and_none_exceeds_one() -> None:
    found = weighted_bonferroni([-3.0, -3.0, -0.1], [1.0, 0.5, 0.01])
    assert found == pytest.approx([-3.0, -3 - np.log10(0.5), 0.0])


@pytest.mark.parametrize("related", [False, True])
def test_the_corrected_p_is_never_more_often_small_than_it_says(related: bool) -> None:
    rng = np.random.default_rng(2)
    a = rng.standard_normal((40, D))
    if related:  # hypotheses that are nearly the same
        a = a[:1] + 0.3 * a
    weights = np.r_[0.5, np.full(39, 0.5 / 39)]
    keys = rng.standard_normal((4000, D))
    cosines = (keys / np.linalg.norm(keys, axis=1)[:, None]) @ (a / np.linalg.norm(a, axis=1)[:, None]).T
    log10 = weighted_bonferroni(cosine_log10_pvalue(cosines, D), weights).min(axis=1)
    for alpha in (0.3, 0.1, 0.01):
        count = int((log10 <= np.log10(alpha)).sum())
        low, _ = clopper_pearson(count, len(keys), 0.999)
        assert low <= alpha
        if not related and alpha < 0.3:  # and the bound is not an idle one
            assert count > 0.5 * alpha * len(keys)
