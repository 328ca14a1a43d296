"""Tables of docs/ that no benchmark measures: their numbers follow from the code or from a formula."""

from __future__ import annotations

import re

import numpy as np
from helpers import fragments
from scipy import stats
from treering_detectors import cosine_log10_pvalue, cosine_needed, direction_drift, joint_pvalue

from treering_verify.detection.search.settings import LEVELS

CARD = fragments.ROOT / "treering_verify/models/landscape/landscape-tiny-inverter/README.md"
DIMENSION = 1024  # numbers of a key of the default pattern, in the examples of the pages


def table(test: str) -> list[list[str]]:
    """Return the cells of the table that names a test of this file as its source, the header first."""
    (found,) = (t for t in fragments.tables(fragments.ROOT) if t.source.endswith(f"test_docs_facts.py::{test}"))
    return [fragments.cells(line) for line in (found.lines[0], *found.lines[2:])]


def test_thresholds_of_calibrations_have_the_rates_that_the_page_says() -> None:
    _, *rows = table("test_thresholds_of_calibrations_have_the_rates_that_the_page_says")
    for images, target, said in rows:
        n = int(images)
        k = int(float(target.split()[0]) / 100 * (n + 1))
        low, high = 100 * stats.beta.ppf([0.025, 0.975], k, n + 1 - k)
        assert said == f"{low:.2g} to {high:.2g} %"


def test_chances_that_two_files_are_accused_together_follow_from_their_cosine() -> None:
    head, *rows = table("test_chances_that_two_files_are_accused_together_follow_from_their_cosine")
    cosines = [float(cell) for cell in head[1:]]
    for name, *said in rows:
        alpha = float(name.removeprefix("k at alpha "))
        for cosine, value in zip(cosines, said, strict=True):
            assert float(value) == float(f"{float(joint_pvalue(cosine, alpha, DIMENSION)) / alpha:.2g}")


def test_rounded_indexes_cost_what_the_page_says() -> None:
    head, *rows = table("test_rounded_indexes_cost_what_the_page_says")
    numbers = np.random.default_rng(0).standard_normal((200, DIMENSION))
    for dtype, said, *becomes in rows:
        largest = direction_drift(numbers, numbers.astype(dtype)).max()
        assert abs(float(said) / largest - 1) < 0.06
        for name, value in zip(head[2:], becomes, strict=True):
            p = float(name.split()[2])
            cosine = cosine_needed(DIMENSION, p) - float(said)
            assert float(value) == float(f"{10 ** float(cosine_log10_pvalue(cosine, DIMENSION)):.3g}")


def test_more_keys_need_a_larger_cosine() -> None:
    head, needed = table("test_more_keys_need_a_larger_cosine")
    for keys, cosine in zip(head[1:], needed[1:], strict=True):
        assert float(cosine) == round(cosine_needed(DIMENSION, 1e-6 / float(keys.replace("10^", "1e"))), 3)


def test_cosines_have_the_p_values_that_the_page_says() -> None:
    """The text also says "about 1e-320" of .87, the agreement of clean marks."""
    page = (fragments.ROOT / "docs/exact-test.md").read_text()
    said = {
        float(c): p
        for c, p in re.findall(r"(?:cosine of|one of|the) (\.\d+)[^.]*? (?:p =|p of about)\n? ?(\S+?)[,.]?\s", page)
    }
    assert set(said) == {0.148, 0.3, 0.87}
    for cosine, p in said.items():
        assert abs(float(cosine_log10_pvalue(cosine, DIMENSION)) - log10(p)) < (0.1 if cosine < 0.5 else 5)


def log10(p: str) -> float:
    """Return the logarithm of a number as a page has it, however small it is."""
    digits, _, exponent = p.partition("e")
    return float(np.log10(float(digits))) + int(exponent)


def test_levels_of_the_search_have_the_limits_for_indexes_that_the_page_says() -> None:
    _, *rows = table("test_levels_of_the_search_have_the_limits_for_indexes_that_the_page_says")
    assert [(name, int(boxes), int(crops)) for name, boxes, crops in rows] == [
        (f"`{name}`", level.boxes, level.crops) for name, level in LEVELS.items()
    ]


def test_filters_that_ship_have_the_report_that_the_page_shows() -> None:
    """`treering models fit` wrote the report into the card of the filters."""
    head, *rows = table("test_filters_that_ship_have_the_report_that_the_page_shows")
    lines = [fragments.cells(line) for line in CARD.read_text().splitlines() if line.startswith("|")]
    columns = [lines[0].index(name) for name in head]
    assert rows == [[line[i] for i in columns] for line in lines[2:]]
