"""The answers of benchmarks: the figures in them are those of the rows."""

from __future__ import annotations

from typing import Any

from treering_verify.benchmark import BENCHMARKS
from treering_verify.benchmark.answers import _ANSWERS, answer_of


def row(**values: Any) -> dict[str, Any]:
    return values


def test_every_benchmark_that_has_an_answer_here_exists_and_no_rows_have_none() -> None:
    assert set(_ANSWERS) <= set(BENCHMARKS)
    assert [answer_of(name, []) for name in BENCHMARKS] == [""] * len(BENCHMARKS)


def test_detection_counts_what_reaches_alpha() -> None:
    def rows(truth: str, attack: str, *log10: float) -> list[dict[str, Any]]:
        names = {"pattern": "random", "method": "default", "alpha": 1e-6}
        return [row(**names, truth=truth, attack=attack, log10_pvalue=p) for p in log10]

    found = [
        *rows("marked", "clean", -9, -7),
        *rows("unmarked", "clean", 0, -1),
        *rows("marked", "jpeg:quality=25", -9, -5),
    ]
    assert answer_of("detection", found) == (
        "At 1e-06 and without an attack, 2/2 = 100.0 % [15.8, 100.0] of marked images are detected; after jpeg:quality=25, "
        "1/2 = 50.0 % [1.3, 98.7]. Of unmarked images, 0/2 = 0.0 % [0.0, 84.2] are."
    )


def test_methods_are_compared_by_their_medians() -> None:
    pairs = (("a", -20.0), ("a", -22.0), ("a", 90.0), ("b", -50.0), ("b", -10.0))
    found = [row(method=name, nmse_db=error) for name, error in pairs]
    assert answer_of("pareto", found) == "The smallest median error has b (-30.0 dB), the largest a (-20.0 dB)."


def test_pages_count_once_for_all_levels_of_the_search() -> None:
    found = [
        row(truth="marked", chain="cut", image=0, verdict="no evidence", as_it_is=False, log10_pvalue=-1.0),
        row(truth="marked", chain="cut", image=0, verdict="detected", as_it_is=False, log10_pvalue=-9.0),
        row(truth="marked", chain="cut", image=1, verdict="detected", as_it_is=True, log10_pvalue=-9.0),
        row(truth="another key", chain="cut", image=0, verdict="", as_it_is=False, log10_pvalue=-2.5),
    ]
    assert answer_of("shared", found).startswith(
        "Without a search 1/2 = 50.0 % [1.3, 98.7] of the pages are detected, with it 2/2 = 100.0 %"
    )
    assert "1/1 = 100.0 % [2.5, 100.0] reach p <= 0.01" in answer_of("shared", found)


def test_the_last_set_of_the_classification_is_compared_with_the_encoder() -> None:
    found = [
        row(set="open", attack="clean", method=method, actual="1", predicted=predicted)
        for method, predicted in (("encoder", "none"), ("ours", "1"), ("gradient", "2"))
    ]
    assert answer_of("classification", found) == (
        "Right answers in the set 'open', clean: ours: 1/1 = 100.0 % [2.5, 100.0]; encoder: 0/1 = 0.0 % [0.0, 97.5]."
    )


def test_two_ways_are_compared_on_images_that_are_not_blank() -> None:
    values = ((False, -9, -2), (False, -9, -9), (False, -1, -9), (True, 0, 0))
    found = [row(blank=blank, log10_pvalue=new, unrestored=old) for blank, new, old in values]
    assert answer_of("over-exposure", found) == (
        "Of images that are not blank 2/3 = 66.7 % [9.4, 99.2] are found at 1e-6, without restoration 2/3 = 66.7 % "
        "[9.4, 99.2]: 1 only by the default, 1 only without restoration."
    )


def test_ways_of_inversion_are_compared_in_pairs_on_images_that_are_not_blank() -> None:
    values = ((False, -9, -7, -2), (False, -9, -2, -9), (False, -1, -9, -9), (True, -9, 0, 0))
    found = [
        row(condition="clean", seed=0, blank=blank, **{"encoder and DDIM": a, "closed form": b, "networks": c})
        for blank, a, b, c in values
    ]
    answer = answer_of("gain", found)
    assert answer.startswith("Of images that are not blank are found at 1e-6: by networks 2/3 = 66.7 % [9.4, 99.2], by")
    assert answer.endswith(
        "1 only by networks and 1 only by encoder and DDIM, 1 only by networks and 1 only by closed form."
    )
