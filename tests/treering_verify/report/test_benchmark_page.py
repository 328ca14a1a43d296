"""The report of benchmarks in a real browser: it sorts and unfolds, fits narrow screens, and can be read light and dark."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from helpers.browser import CONTRAST, Page, started_browser
from treering_detectors import PairedTest, Rate

from treering_verify.report import Provenance, store_findings
from treering_verify.report.findings import Curve, Curves, Differences, Figure, Findings, Matrix, Part, Table

P_VALUES = ("1.0e-400", "0.03", "2.5e-12", "", "1.0e-5")


@pytest.fixture(scope="module")
def browser() -> Iterator[Page]:
    yield from started_browser()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("benchmarks")
    rows = tuple((f"method {i}", Rate(i, 30), P_VALUES[i % 5]) for i in (3, 1, 2, *range(4, 30), 0))
    table = Table("Rates", ("method", "correct", "p"), rows, "Intervals: Clopper-Pearson, 95 %.")
    matrices = Figure(
        "Told apart",
        (
            *(Matrix(name, ("a", "b", "none"), ((3, 1, 0), (0, 4, 0), (0, 0, 2)), "none") for name in "xyz"),
            Differences("Pairs", ("x", "y"), ((PairedTest(9, 0, 0.004),),), 10),
        ),
        "The diagonal is correct.",
    )
    curve = Curves("c", "x", "y", (Curve("one", (1.0, 10.0), (0.0, 1.0)), Curve("p", (2.0,), (1.0,), published=True)))
    cells = (
        "adam 0.01 scheduled, 16-bit",
        "published",
        *("-15.92 +- 0.44", "186/300 = 62.0 % [56.2, 67.5]", "-222.8") * 4,
    )
    wide = Table("Wide", tuple(f"published, SD 2.1: column {i}" for i in range(len(cells))), (cells,))
    few = Table("Few", ("a",), (("1",),))
    part = Part("Table 1", "It agrees.", (few, wide), (Figure("Curve", (curve,), "It rises."),))
    found = Findings("example", "How well?", ({"a": 1},), (table,), (matrices,), parts=(part,), answer="Well: 9 of 10.")
    store_findings(found, Provenance("treering benchmark example " * 9, "m", "h", "v", "2026-01-01"), folder)
    return (folder / "report.html").as_uri()


def column(page: Page, number: int) -> list[str]:
    return page.run(f"Array.from(document.querySelector('table').tBodies[0].rows, r => r.cells[{number}].textContent)")


def test_a_click_on_a_columns_head_sorts_by_value_and_a_second_one_the_other_way(browser: Page, address: str) -> None:
    browser.open(address)
    assert browser.run("document.querySelector('details').open") is False
    browser.run("document.querySelector('details summary').click()")
    click = "document.querySelectorAll('table th button')[{}].click()"
    browser.run(click.format(1))
    assert [cell.split("/")[0] for cell in column(browser, 1)] == [str(i) for i in range(30)]
    browser.run(click.format(1))
    assert [cell.split("/")[0] for cell in column(browser, 1)] == [str(i) for i in range(29, -1, -1)]
    browser.run(click.format(2))
    wanted = ["1.0e-400", "2.5e-12", "1.0e-5", "0.03", ""]
    assert column(browser, 2) == [p for p in wanted for _ in range(6)]
    assert browser.run("document.querySelector('th[aria-sort]').textContent") == "p"


@pytest.mark.parametrize("width", [360, 768, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_its_width_and_its_text_has_contrast(
    browser: Page, address: str, width: int, scheme: str
) -> None:
    browser.complaints.clear()
    with browser.emulated(width, scheme):
        browser.open(address)
        browser.run("document.querySelectorAll('details').forEach(each => { each.open = true; })")
        assert browser.run("document.documentElement.scrollWidth") <= width
        assert browser.run(CONTRAST) == []
        beside = browser.run(
            "new Set(Array.from(document.querySelectorAll('figure svg'), e => e.getBoundingClientRect().top)).size"
        )
        assert beside == (5 if width == 360 else 3 if width == 1280 else beside)
    assert browser.complaints == []
    assert all(each.startswith(("file:", "data:")) for each in browser.requested)


def test_in_print_every_table_fits_the_paper(browser: Page, address: str) -> None:
    paper = 718  # pixels of A4's width between the margins of a browser
    with browser.emulated(paper, "light", "print"):
        browser.open(address)
        browser.run("document.querySelectorAll('details').forEach(each => { each.open = true; })")
        widths = browser.run("Array.from(document.querySelectorAll('table'), e => e.getBoundingClientRect().right)")
        assert len(widths) == 3 and max(widths) <= paper
        assert browser.run("document.documentElement.scrollWidth") <= paper
    with browser.emulated(1200, "light"):
        browser.open(address)
        assert browser.run("getComputedStyle(document.querySelector('.many table')).fontSize") == "14.08px"


def test_in_print_every_table_is_open(browser: Page, address: str) -> None:
    browser.open(address)
    browser.run("dispatchEvent(new Event('beforeprint'))")
    assert browser.run("Array.from(document.querySelectorAll('details')).every(each => each.open)") is True
