"""The page of an audit in a real browser, opened from a file, without a network."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.audit_rows import KEYS, row, unjudged, write_audit, write_large_audit
from helpers.browser import CONTRAST, Page, started_browser
from helpers.images import smooth

from treering_verify.models import LatentModel
from treering_verify.report.audit import write_report
from treering_verify.watermark.keys.key import Key

MARKUP = (
    '<img src="https://example.org/x.png" onerror="window.caught = true"></script><script>window.caught = true</script>'
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Page]:
    yield from started_browser()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, tiny_model: LatentModel) -> Path:
    """Return the page of 127 files, two of them detected and pictured, with markup in names, reasons and settings."""
    folder = tmp_path_factory.mktemp("audits") / "with spaces & <b>"
    images = folder.parent / "images"
    images.mkdir()
    key = Key.generate(tiny_model.latent_shape, seed=3, name="mine")
    rows = []
    for number, name in enumerate(["plain.png", "a<b>&'\".png"]):
        smooth(128, 128 - 16 * number).save(images / name)
        digest = hashlib.sha256((images / name).read_bytes()).hexdigest()
        marked = {"key": "mine", "fingerprint": key.fingerprint, "sha256": digest, "pvalue": 0.0}
        rows.append(row(str(images / name), "detected", -300.0 + 90 * number, **marked))
    rows += [row(f"many/{i:03d}.png", log10_pvalue=-0.01 - 0.02 * i) for i in range(120)]
    rows += [row(MARKUP, "inconclusive", -1.0, code="size", reason=MARKUP)]
    rows += [unjudged(f"in/{MARKUP}", code=MARKUP, reason=MARKUP), unjudged("in/fifo", "skipped", "not_a_file", "FIFO")]
    rows += [unjudged(f"in/{code}.png", code=code) for code in ("empty", "corrupt")]
    keys = [{"name": "mine", "fingerprint": key.fingerprint}, {"name": MARKUP, "fingerprint": "1e5"}, KEYS[1]]
    write_audit(folder, [rows], keys, settings={MARKUP: MARKUP})
    return write_report(folder, model=tiny_model, keys=[key], root=folder.parent)


def cells(page: Page, table: str, column: int) -> list[str]:
    return page.run(f"Array.from(document.getElementById('{table}').tBodies[0].rows, r => r.cells[{column}].innerText)")


def click_head(page: Page, table: str, column: int) -> str:
    """Click a head and return how the column says it is sorted."""
    head = f"document.getElementById('{table}').tHead.rows[0].cells[{column}]"
    return page.run(f"{head}.querySelector('button').click(), {head}.getAttribute('aria-sort')")


def press(page: Page, script: str) -> None:
    page.run(f"(() => {{ const panel = document.getElementById('files-panel'); {script} }})()")


def test_the_page_opens_without_a_complaint_and_asks_for_nothing(browser: Page, report: Path) -> None:
    browser.complaints.clear()
    browser.requested.clear()
    browser.open(report.as_uri())
    assert browser.complaints == []
    assert [address for address in browser.requested if not address.startswith("data:")] == [report.as_uri()]
    assert browser.run("document.title") == "Audit: with spaces & <b>"


def test_names_are_shown_and_never_run(browser: Page, report: Path) -> None:
    browser.open(report.as_uri())
    assert browser.run("window.caught === undefined")
    assert browser.run("document.querySelectorAll('img:not([src^=\"data:\"])').length") == 0
    assert browser.run("document.scripts.length") == 1
    assert browser.run(f"document.body.innerText.includes({MARKUP!r})")
    # Even markup that slipped through would not run: the page's policy allows its one script by its hash.
    browser.run("document.body.insertAdjacentHTML('beforeend', '<img src=data:, onerror=\"window.caught = true\">')")
    assert browser.run("new Promise(done => setTimeout(() => done(window.caught === undefined), 200))")
    assert any("Content Security Policy" in complaint for complaint in browser.complaints)


def test_the_images_show(browser: Page, report: Path) -> None:
    browser.open(report.as_uri())
    shown = browser.run(
        "Array.from(document.images, i => [i.complete, i.naturalWidth, i.naturalHeight, i.clientWidth])"
    )
    assert len(shown) == 4  # two thumbnails, two maps of the agreement
    assert all(complete and width > 0 and drawn > 0 for complete, width, _, drawn in shown)
    assert [width for _, width, _, _ in shown] == [128, 168, 128, 168]
    assert browser.run("document.querySelectorAll('svg.rings rect').length") == 12  # rings 4 to 9 of each
    plot = browser.run("document.querySelector('figure.plot svg').getBoundingClientRect().width")
    assert plot > 300
    assert browser.run("document.querySelectorAll('figure.plot .bar').length") == 20  # of two panels


def test_a_click_on_a_file_shows_its_evidence_and_leads_to_its_image(browser: Page, report: Path) -> None:
    browser.open(report.as_uri())
    row = "document.getElementById('files-table').tBodies[0].rows[0]"
    assert "p of this key alone" not in browser.run(f"{row}.innerText")
    browser.run(f"{row}.querySelector('summary').click()")
    said = browser.run(f"{row}.innerText")
    assert "p of this key alone" in said and "1.0e-300" in said and "SHA-256" in said
    target = browser.run(f"{row}.querySelector('a').getAttribute('href')")
    assert (
        browser.run(f"document.querySelector('{target} code').innerText")
        == cells(browser, "files-table", 1)[0].split("\n")[0]
    )


def test_rows_without_a_detection_name_no_key(browser: Page, report: Path) -> None:
    browser.open(report.as_uri())
    pairs = list(zip(cells(browser, "files-table", 0), cells(browser, "files-table", 2), strict=True))
    assert [key for verdict, key in pairs if verdict == "detected"] and not any(
        key for verdict, key in pairs if verdict != "detected"
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1300])
def test_text_can_be_read_in_either_scheme_at_any_width(browser: Page, report: Path, scheme: str, width: int) -> None:
    with browser.emulated(width, scheme):
        browser.open(report.as_uri())
        browser.run("document.querySelectorAll('details').forEach(each => each.open = true)")
        assert browser.run("document.documentElement.scrollWidth") <= width
        weak = browser.run(CONTRAST)
    assert weak == []


def test_the_structure_of_the_page_can_be_heard(browser: Page, report: Path) -> None:
    browser.open(report.as_uri())
    levels = browser.run("Array.from(document.querySelectorAll('h1,h2,h3'), each => Number(each.tagName[1]))")
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    nameless = """Array.from(document.querySelectorAll('img, svg[role=img], input, select, nav, .wide'),
      each => each.getAttribute('alt') || each.getAttribute('aria-label')).filter(name => !name).length"""
    assert browser.run(nameless) == 0
    assert browser.run("document.querySelectorAll('main, header, html[lang]').length") == 3
    assert browser.run("document.querySelectorAll('th:not([scope])').length") == 0
    assert browser.run("new Set(Array.from(document.querySelectorAll('[id]'), e => e.id)).size") == browser.run(
        "document.querySelectorAll('[id]').length"
    )


def test_tables_sort_as_numbers_and_as_words_both_ways(browser: Page, report: Path) -> None:
    browser.open(report.as_uri())
    assert click_head(browser, "files-table", 3) == "ascending"
    assert cells(browser, "files-table", 3)[:3] == ["1.0e-300", "1.0e-210", "0.0041"]
    assert click_head(browser, "files-table", 3) == "descending"
    first = cells(browser, "files-table", 3)
    assert first[:2] == ["0.98", "0.93"]
    for _ in range(2):  # files without a p go last, whichever way
        press(browser, "panel.querySelectorAll('button')[1].click()")
    assert cells(browser, "files-table", 3)[-4:] == [""] * 4
    assert click_head(browser, "folders-table", 0) == "ascending"
    folders = cells(browser, "folders-table", 0)
    assert folders == sorted(folders) and len(folders) > 3
    click_head(browser, "folders-table", 6)
    assert click_head(browser, "folders-table", 6) == "descending"
    assert cells(browser, "folders-table", 0)[0] == "many" and cells(browser, "folders-table", 6)[0] == "120"
    click_head(browser, "keys-table", 1)
    assert cells(browser, "keys-table", 1) == sorted(cells(browser, "keys-table", 1))  # 1e5 and 9e10... are words here


def test_files_come_in_pages_and_can_be_searched(browser: Page, report: Path) -> None:
    browser.open(report.as_uri())
    said = "document.querySelector('#files-panel output').textContent"
    assert browser.run(said) == "1 to 50 of 127" and len(cells(browser, "files-table", 0)) == 50
    press(browser, "panel.querySelectorAll('button')[1].click(); panel.querySelectorAll('button')[1].click()")
    assert browser.run(said) == "101 to 127 of 127"
    assert browser.run("document.querySelectorAll('#files-panel button')[1].disabled")
    press(
        browser,
        "const box = panel.querySelector('input'); box.value = 'MANY/11'; box.dispatchEvent(new Event('input'))",
    )
    assert browser.run(said) == "1 to 10 of 10"
    assert all(name.startswith("many/11") for name in cells(browser, "files-table", 1))
    press(browser, "const box = panel.querySelector('input'); box.value = ''; box.dispatchEvent(new Event('input'))")
    browser.run("document.querySelector('a.card.error').click()")
    assert set(cells(browser, "files-table", 0)) == {"error"} and browser.run(said) == "1 to 3 of 3"


@pytest.mark.slow
def test_the_report_of_a_million_files_is_small_and_opens_whole(browser: Page, tmp_path: Path) -> None:
    report = write_report(write_large_audit(tmp_path / "audit", 1_000_000, 1000), images=0)
    assert report.stat().st_size < 2_000_000
    browser.complaints.clear()
    seconds = browser.open(report.as_uri())
    print(f"\na million files: {report.stat().st_size / 1000:.0f} kB, opened in {seconds:.2f} s")
    assert browser.complaints == []
    assert browser.run("document.querySelector('.card.detected b').textContent") == "1,000"
    assert browser.run("document.querySelector('.card.no-evidence b').textContent") == "989,000"
