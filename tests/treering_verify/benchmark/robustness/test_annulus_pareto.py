"""Variants of the annulus, and which of them no other beats."""

from __future__ import annotations

from pathlib import Path

from helpers.models.white_model import WhiteModel
from helpers.progress import silent

from treering_verify.benchmark import Scope
from treering_verify.benchmark.robustness import annulus_pareto
from treering_verify.benchmark.robustness.annulus_pareto import non_dominated, variants
from treering_verify.watermark.patterns import PATTERNS

SHAPE = (4, 32, 32)


def test_points_that_no_other_dominates_are_pareto_optimal() -> None:
    points = [(1.0, 5.0), (2.0, 2.0), (3.0, 3.0), (5.0, 1.0), (2.0, 2.0), (0.0, float("nan"))]
    assert non_dominated(points) == [True, True, False, True, True, False]


def test_variants_are_distinct_fit_the_noise_and_vary_all_three() -> None:
    families = variants(SHAPE, quick=False)
    assert len(set(families)) == len(families) > 50
    assert {len(f.channels) for f in families} == {1, 2, 3, 4} and {f.pattern for f in families} == set(PATTERNS)
    assert len({(f.inner_radius, f.outer_radius) for f in families}) > 15
    assert len(variants((4, 8, 8), quick=False)) < len(families)  # what does not fit is left out


def test_each_variant_has_a_row_and_is_cached(tmp_path: Path) -> None:
    findings = annulus_pareto.measure(WhiteModel(), Scope(silent, quick=True, folder=tmp_path))
    unmarked, *marked = findings.rows
    assert [row["pattern"] for row in findings.rows] == ["unmarked", "random", "rings"]
    assert unmarked["paired_rms"] == 0.0 and unmarked["judged"] == 0 and not unmarked["pareto_optimal"]
    assert all(row["judged"] == 4 and row["paired_rms"] > 1 and row["log10_pvalue"] < 0 for row in marked)
    assert len(list(tmp_path.glob("*.npz"))) == 3
    assert annulus_pareto.measure(WhiteModel(), Scope(silent, quick=True, folder=tmp_path)) == findings
