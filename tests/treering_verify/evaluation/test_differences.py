"""Exact tests between methods on the same images, and the triangle that is drawn of them."""

from __future__ import annotations

import pytest
from matplotlib.figure import Figure
from treering_detectors import mcnemar

from treering_verify.evaluation import MethodDifferences

ACTUAL = ["a"] * 20
FOUND = {"all": ["a"] * 20, "none": ["b"] * 20, "most": ["a"] * 18 + ["b"] * 2}


def test_each_method_is_tested_against_each_before_it() -> None:
    found = MethodDifferences.counted(ACTUAL, FOUND)
    assert found.methods == ("all", "none", "most") and found.count == 20
    assert [[(t.only_first, t.only_second) for t in row] for row in found.tests] == [[(0, 20)], [(0, 2), (18, 0)]]
    assert found.tests[0][0].pvalue == mcnemar([False] * 20, [True] * 20).pvalue == pytest.approx(2 * 0.5**20)


def test_pvalues_are_adjusted_for_the_number_of_pairs() -> None:
    found = MethodDifferences.counted(ACTUAL, FOUND)
    assert found.adjusted[0][0] == pytest.approx(3 * found.tests[0][0].pvalue)
    assert found.adjusted[1][0] == pytest.approx(found.tests[1][0].pvalue) == 0.5


def test_the_triangle_shows_both_counts_and_frames_what_is_significant() -> None:
    axes = Figure().add_subplot()
    found = MethodDifferences.from_predictions(ACTUAL, FOUND, title="three methods", ax=axes)
    assert found.ax_ is axes and found.figure_ is axes.figure
    assert [text.get_text() for text in axes.texts] == ["0 : 20\np 6e-06", "0 : 2\np 0.5", "18 : 0\np 2e-05"]
    framed = [(patch.get_x() // 1, patch.get_y() // 1) for patch in axes.patches if not patch.get_fill()]
    assert framed == [(0, 0), (1, 1)]
    assert axes.get_title() == "three methods\n20 images"


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(ValueError, match="1 methods"):
        MethodDifferences.counted(["a"], {"one": ["a"]})
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        MethodDifferences.counted(["a", "b"], {"one": ["a", "b"], "two": ["a"]})
