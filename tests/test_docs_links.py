"""Every relative link of the pages leads to a file, and with an anchor to one of its headings."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from helpers.places import ROOT

PAGES = (
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "samples/README.md")),
    ROOT / "treering_verify/models/landscape/README.md",
    *sorted((ROOT / "docs").glob("*.md")),
)
LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^)\s]+)\)")
CODE = re.compile(r"^(`{3,}).*?^\1\s*$", re.MULTILINE | re.DOTALL)


def prose(text: str) -> str:
    """Return the text of a page without its fenced code, in which "#" begins a comment and brackets are indices."""
    return CODE.sub("", text)


def anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    found: list[str] = []
    for heading in re.findall(r"^#{1,6} +(.*?) *$", prose(text), re.MULTILINE):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        name = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        same = sum(1 for earlier in found if re.fullmatch(rf"{re.escape(name)}(-\d+)?", earlier))
        found.append(f"{name}-{same}" if same else name)
    return set(found)


def broken_links(page: Path) -> list[str]:
    """Return the links of a page that lead nowhere, each with the reason."""
    found = []
    for link in LINK.findall(prose(page.read_text("utf-8"))):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists():
            found.append(f"{link}: no such file")
        elif anchor and anchor not in anchors(target.read_text("utf-8")):
            found.append(f"{link}: no such heading")
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    assert broken_links(page) == []


def test_the_pages_have_links() -> None:
    links = [link for page in PAGES for link in LINK.findall(prose(page.read_text("utf-8")))]
    assert any(not link.startswith("http") and "#" in link for link in links)


def test_links_that_lead_nowhere_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A `heading`, twice\n\n## Why?\n\n## Why?\n\n```text\n# no heading\n[a](nowhere.md)\n```\n"
        "[a](#a-heading-twice) [b](page.md#why-1) [c](https://example.org/#x)\n"
        "[d [e]](gone.md) [f](#no-heading) [g](#why-2)\n"
    )
    assert broken_links(page) == ["gone.md: no such file", "#no-heading: no such heading", "#why-2: no such heading"]
