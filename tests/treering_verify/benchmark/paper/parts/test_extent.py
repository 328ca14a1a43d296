"""How much a run of the page measures, by its options."""

from __future__ import annotations

from helpers.progress import silent

from treering_verify.benchmark import Scope
from treering_verify.benchmark.harness.inversion_methods import fixed_adam, published, swept
from treering_verify.benchmark.paper.parts.extent import Extent


def test_a_quick_run_measures_less_than_one_of_six_images_and_that_less_than_a_full_one() -> None:
    quick, some, full = (
        Extent.of(Scope(silent, quick=q, count=n)) for q, n in ((True, None), (False, 6), (False, None))
    )
    assert [one.images for one in (quick, some, full)] == [4, 6, 24]
    assert [one.upto(100) for one in (quick, some, full)] == [20, 20, 100]
    assert [one.class_images for one in (quick, some, full)] == [2, 4, 30]
    assert [one.class_iterations for one in (quick, some, full)] == [2, 20, 100]
    assert (some.fewer, full.fewer, some.edits, full.edits[1]) == (4, 100, (6, 10), None)
    scopes = [one.scope(Scope(silent)) for one in (quick, some, full)]
    assert [(one.quick, one.emulate) for one in scopes] == [(True, False), (True, True), (False, True)]
    assert quick.sweep_note and not some.sweep_note


def test_a_quick_sweep_takes_the_fixed_steps_that_are_measured_anyway() -> None:
    measured = {v.settings for v in (*published(20), *fixed_adam(20))}
    few = swept(20, few=True)
    assert set(few) == set(swept(20))
    for label in ("adam .01 scheduled", "gradient .1 scheduled"):
        assert few[label] and {v.settings for v in few[label]} < measured
    assert [v.budgets for label in ("forward-step", "inertial-km") for v in few[label]] == [(1, 2, 3, 5)] * 2
