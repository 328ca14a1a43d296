"""Sentences of pages that carry figures which look measured, and the comments that say where such figures are from.

A *passage* is a paragraph or a list: what stands between blank lines, tables, code and comments. One or more comments above
it name its sources; `fragments.py` lists their forms.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

FRAGMENT = re.compile(r"^<!-- fragment (\S+) (\S+)(.*?) -->\n(.*?)<!-- end -->", re.DOTALL | re.MULTILINE)
NUMBER = re.compile(r"(?<![\w.])[-+]?(?:\d[\d,]*\.?\d*|\.\d+)(?:e[-+]?\d+)?")
_N = r"(?<![\w.])[-+]?(?:\d(?:[\d,]*\d)?(?:\.\d+)?|\.\d+)(?:e[-+]?\d+)?"
_UNIT = (
    r"(?:%|dB\b|decades?\b|(?:processor |CPU )?(?:ms|s|seconds?|minutes?|h|hours?)\b|[kMG]i?B\b|(?:mega|giga)bytes?\b)"
)
_LOOKS_MEASURED = re.compile(
    "|".join(
        (
            rf"{_N}(?:(?:,| to| and| or| ±|, and) {_N})* ?{_UNIT}",  # 3 to 5 s, .1 and .2 dB
            rf"{_N} (?:of|out of) (?:the |all )?{_N}",  # 95 of 103
            r"(?<![\w.:/])(?!1/)\d[\d,]*/\d[\d,]+(?![\w/:])",  # 12/20, and not 1/16
            rf"{_N} times (?:as|faster|slower|longer|more|less)\b",
            r"(?<![\w.])(?!1e-)(?:\d+\.?\d*|\.\d+)e-\d+",  # a p-value, and not 1e-6
            rf"log10 p(?: \w+){{0,5}} {_N}",
            r"\b20\d\d-\d\d-\d\d\b",
            r"\bby hand\b",
        )
    )
)
_CONFIDENCE = re.compile(r"(?<![\w.])9[59] % (?=(?:Clopper|interval|confidence|bootstrap))")
DATE = re.compile(r"\b20\d\d-\d\d-\d\d\b")


@dataclass(frozen=True)
class Passage:
    """A paragraph or a list: its first line, the comments directly above it, and its text."""

    line: int
    sources: tuple[str, ...]
    text: str

    def named(self, kind: str) -> list[str]:
        """Return what its comments of a kind name, such as ``from``."""
        return [name for source in self.sources if source.startswith(f"{kind} ") for name in source.split()[1:]]

    @property
    def measured(self) -> list[str]:
        """What looks measured in it."""
        return [
            found[0].replace("\n", " ") for found in _LOOKS_MEASURED.finditer(_CONFIDENCE.sub("", plain(self.text)))
        ]


def plain(text: str) -> str:
    """Return a text without code, the addresses of links, and bold type."""
    return re.sub(r"`[^`]*`|\]\([^)]*\)", " ", text).replace("**", "")


def numbers_of(text: str) -> set[float]:
    """Return the numbers in a text, but for those in code and in links."""
    return {float(found.replace(",", "")) for found in NUMBER.findall(plain(text)) if found.strip("+-,.")}


def without_results(text: str) -> str:
    """Return a page with empty lines in place of fragments and blocks of code."""
    for block in (FRAGMENT, re.compile(r"^( *)```.*?^\1```$", re.DOTALL | re.MULTILINE)):
        text = block.sub(lambda match: "\n" * match[0].count("\n"), text)
    return text


def passages(text: str) -> Iterator[Passage]:
    """Yield the paragraphs and lists of a page."""
    above: list[str] = []
    lines: list[str] = []
    for number, line in enumerate((*without_results(text).split("\n"), ""), 1):
        comment = re.fullmatch(r"<!-- (.*) -->", line)
        if line.strip() and not comment and not line.startswith(("|", "#", "    ")):
            lines.append(line)
            continue
        if lines:
            yield Passage(number - len(lines), tuple(above), "\n".join(lines))
        if lines or (line.strip() and not comment):
            above = []
        lines = []
        if comment:
            above.append(comment[1])


def constants(sources: Sequence[str]) -> set[float]:
    """Return the numbers of source code, and what they are in per cent, minutes, hours, kB, MB, GB, KiB, MiB and GiB."""
    found = {
        float(number.replace("_", ""))
        for source in sources
        for number in re.findall(r"(?<![\w.])(?:\d[\d_]*\.?\d*|\.\d+)(?:e[-+]?\d+)?", source)
    }
    for source in sources:
        found |= {float(int(n) << int(by)) for n, by in re.findall(r"\b(\d+) << (\d\d?)\b", source)}
        found |= {float(int(n) ** int(by)) for n, by in re.findall(r"\b(\d+) ?\*\* ?(\d\d?)\b", source)}
    scaled = {n / unit for n in found for unit in (60, 3600, 1e3, 1e6, 1e9, 2.0**10, 2.0**20, 2.0**30)}
    shifted = {n * 100 for n in found} | {(1 - n) * 100 for n in found if n < 1} | scaled
    positive = found | {float(f"{number:.6g}") for number in shifted}
    return positive | {-number for number in positive}
