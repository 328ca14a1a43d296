"""The classification benchmark: the published geometry, the published matrices and the paired tests."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.progress import silent

from treering_verify.benchmark import Scope
from treering_verify.benchmark.paper.classification import (
    NONE,
    _random_groups,
    _triangle,
    paper_groups,
    published_matrices,
)
from treering_verify.benchmark.published_figures import CLASSIFICATION
from treering_verify.models import LatentModel


def test_the_published_ceiling_shows_in_the_classification_of_perfectly_inverted_noise(tiny_model: LatentModel) -> None:
    off, centred = paper_groups(tiny_model, 3, 0)
    shares = []
    for group in (off, centred):
        rule, by_angle = group.rules
        assert (
            group.truth is not None and len(group.truth) == len(rule.actual) == len(group.images()) == group.count == 9
        )
        called = rule.decide(group.truth)
        shares.append(np.mean([a == c for a, c in zip(rule.actual, called, strict=True)]))
        if group is off:  # class 1 reads as class 2, and the others as themselves
            assert {c for a, c in zip(rule.actual, called, strict=True) if a == "1"} == {"2"}
        if group is centred:  # what inversion shrinks is told apart by angle, and by distance no longer
            assert by_angle.decide(0.2 * group.truth) == rule.actual != rule.decide(0.2 * group.truth)
    assert shares == pytest.approx([2 / 3, 1.0])


def test_thepublished_matrices_have_the_published_accuracies_on_a_hundred_images_of_each_key() -> None:
    correct = {name: sum(row[i] for i, row in enumerate(counts)) for name, counts in CLASSIFICATION.items()}
    assert list(correct.values()) == [186, 207, 202, 149, 227, 227]
    assert all(sum(row) == 100 for counts in CLASSIFICATION.values() for row in counts)
    assert [panel.title for panel in published_matrices().panels][:2] == ["encoder, SD 2.1", "gradient, SD 2.1"]


def test_each_pair_of_methods_is_tested_once_in_a_triangle() -> None:
    correct = {"a": [True] * 6 + [False] * 2, "b": [False] * 6 + [False] * 2, "c": [True] * 8}
    assert _triangle(correct, ("a", "b", "c")) == [
        ("b", "0 : 6, p 0.031 *", ""),
        ("c", "2 : 0, p 0.5", "8 : 0, p 0.0078 *"),
    ]


def test_few_marked_images_have_an_unmarked_one_beside_them(tiny_model: LatentModel) -> None:
    for group in _random_groups(tiny_model, Scope(silent, quick=True, count=2), 1 << 31):
        closed, opened = group.rules
        assert (len(closed.actual), opened.actual.count(NONE), group.count) == (2, 1, 3)
