"""One term for each thing: the repository's text holds none of the words that another term has replaced.

`TERMS` lists them, with what to write instead. Every tracked text file is read: code, helps, docs, tests. CHANGELOG.md (it
tells of old names), LICENSE and this file are left out. A failure lists ``file:line: 'words' -> term``.
"""

from __future__ import annotations

import re
import subprocess
from bisect import bisect_right
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import pytest
from helpers.places import ROOT

NOT_READ = ("CHANGELOG.md", "LICENSE", "tests/treering_verify/test_words.py")


class Term(NamedTuple):
    """A pattern for text without line breaks, what to write instead, and samples that it must and must not catch."""

    pattern: str
    instead: str
    caught: tuple[str, ...]
    allowed: tuple[str, ...] = ()


TERMS = (
    Term(r"(?<![A-Za-z])[Pp]ictures?(?![a-z])", "image", ("a picture", "_pictures = 1", "Pictures show")),
    Term(
        r"(?<![A-Za-z.])(?:clips?|Clips?)(?![a-z])(?!_sample|_text_model|_tokenizer|_grad|_denoised|-path)",
        "video (CLIP, .clip(...) and clip_sample stay)",
        ("a clip of 8 frames", "read_clip(path)", "class ClipModel", "makes_clips"),
        ("np.clip(x, 0, 1)", "x.clip(min=0)", "CLIP's width", "clip_sample=False", "clipping", "eclipse"),
    ),
    Term(r"[Ss]trangers?\b", "unmarked image", ("a stranger", "STRANGERS, strangers")),
    Term(r"[Rr]ehears", "early stopping by parametric bootstrap", ("a rehearsal", "rehearsed steps", "--rehearsals")),
    Term(
        r"\b[Ww]eigh(?:s|ed|ing)?\b",
        "test, evidence; weight",
        ("weigh a key", "def weigh(x)", "the weighing of keys"),
        ("weights", "weighted mean"),
    ),
    Term(
        r"\b(?:takes?|taken|took|taking|brings?|brought|bringing)(?: \w+){0,2} back\b",
        "invert; undo, revert",
        ("an image is taken back", "takes it back", "# was brought\n    # back", "bring the noise back"),
        ("fall back", "takes the fallback"),
    ),
    Term(r"\bwhat (?:\w+ ){1,2}(?:was|were|is|are) made (?:from|of)\b", "initial noise", ("what it was made from",)),
    Term(
        r"(?<![A-Za-z])[Ll]aws?\b",
        "distribution, null distribution",
        ("the cosine's law", "laws", "_law = 2"),
        ("lawn",),
    ),
    Term(
        r"\b(?:the|a|this|each|under|noise) nulls?\b(?![- ](?:distribution|hypothesis|engine|benchmark|pipeline))",
        "null distribution, null hypothesis; unmarked images",
        ("under the null", "uniform under the\n# null", "the white-noise null"),
        ("the null distribution", "the null engine", "a null_model", "JSON's null"),
    ),
    Term(
        r"\b(?:[Tt]he|[Aa]n?|[Tt]his|[Ss]uch|[Ee]ach|[Ee]very|[Ff]irst|[Ss]econd|[Cc]heap(?:er)?|[Oo]ne) looks?\b"
        r"(?! (?:at|back|for|like|up)\b)",
        "screening pass",
        ("a first look", "no such look", "the look of `auto`", "the cheaper look"),
        ("look it up", "each looks at one", "each looks back at those before"),
    ),
    Term(
        r"Key\.member|--member|member_secret|\b[Mm]embers?(?:'s?)? keys?\b|\b[Kk]eys? of (?:the |an? |one )?members?\b"
        r"|\b[Mm]embers? (?:of (?:the |an? |this )?(?:index|family|secret)\b|PREFIX)",
        "key of an index; derived key (an archive has members)",
        ("a member's key", "Key.member(secret)", "--member NAME", "keys of members", "members of a secret"),
        ('salt="treering-verify member v1"', "a member of an archive", "membership"),
    ),
    Term(
        r"(?<!Pareto )(?<!in )(?<![A-Za-z-])[Ff]ronts?(?![a-z])(?!-)",
        "Pareto front; threat model; entry point",
        ("the front of the audit", 'front("x")', "on_front"),
        ("the Pareto front", "shown in front of it", "frontier", "front-end"),
    ),
    Term(
        r"\b(?:LITTLE|little|un)_?(?:shown|SHOWN|seen)\b|\b(?:shown|seen|unseen) (?:share|area|part)s?\b",
        "visible, occluded",
        ("little_shown", "LITTLE_SHOWN", "the seen area"),
        ("it is shown here",),
    ),
    Term(
        r"\b[Kk]ept (?:results?|measurements?|batch(?:es)?)\b",
        "cached",
        ("kept results of a benchmark", "Kept measurements are used again"),
        ("the audit kept of images", "the kept part"),
    ),
    Term(r"\bDESIGN\b|\bLAYOUT\.md\b", "the thing itself, or a page of docs/", ("DESIGN 4.1", "see DESIGN.md")),
)
SECTION = re.compile(r'\b(README|[\w/-]+\.md),? "([A-Z][^"]*)"')
"""A reference to a section of a page, such as: README, "Installation"."""


class Flat(NamedTuple):
    """A text without line breaks, the indents after them and the marks of comments, so that it reads as one line."""

    text: str
    starts: list[int]

    @classmethod
    def of(cls, text: str) -> Flat:
        lines = [re.sub(r"^\s*(?:[#>*]+ )?", "", line).rstrip() for line in text.split("\n")]
        return cls(" ".join(lines), list(accumulate((len(line) + 1 for line in lines), initial=0)))

    def line(self, position: int) -> int:
        return bisect_right(self.starts, position)


def old_words(text: str) -> list[tuple[int, str]]:
    """Return the line of every replaced word in a text, and what to do, in the order of lines."""
    flat = Flat.of(text)
    return sorted(
        (flat.line(match.start()), f"{match.group()!r} -> {term.instead}")
        for term in TERMS
        for match in re.finditer(term.pattern, flat.text)
    )


def missing_sections(text: str, folder: Path) -> list[tuple[int, str]]:
    """Return the line of every reference to a section that its page does not have, and what to do."""
    flat, found = Flat.of(text), []
    for match in SECTION.finditer(flat.text):
        page, section = match.groups()
        name = page if page.endswith(".md") else f"{page}.md"
        pages = [path for path in (folder / name, ROOT / name, ROOT / "docs" / name) if path.is_file()]
        if not any(section in headings(path) for path in pages):
            found.append((flat.line(match.start()), f"{page} has no section {section!r}: name one that it has"))
    return found


def headings(page: Path) -> set[str]:
    return set(re.findall(r"^#+ +(.*?) *$", page.read_text(), re.MULTILINE))


@cache
def complaints() -> dict[str, list[str]]:
    """Return ``file:line: words -> term`` for each tracked file that holds replaced words."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    found: dict[str, list[str]] = {}
    for name in listed.split("\0"):
        path = ROOT / name
        if not path.is_file() or name in NOT_READ:
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:  # images and weights
            continue
        lines = old_words(text) + missing_sections(text, path.parent)
        if lines:
            found[name] = [f"{name}:{line}: {what}" for line, what in sorted(lines)]
    return found


needs_git = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="reads the files that git tracks")


@needs_git
def test_the_repository_uses_one_term_for_each_thing() -> None:
    found = [line for lines in complaints().values() for line in lines]
    assert not found, f"{len(found)} replaced words:\n" + "\n".join(found)


# A parameter `name : type` whose description goes on from its name, or a docstring that goes on from its function's.
FRAGMENT = re.compile(r'^ *(?:r?"""Of |[\w`*]+(?:, [\w`*]+)* : .*\n +Of )', re.MULTILINE)


def test_descriptions_in_docstrings_stand_by_themselves() -> None:
    assert FRAGMENT.search('    """Of a video."""') and FRAGMENT.search("    a, b : int\n        Of a video.\n")
    files = [file for root in ("treering_verify", "detectors") for file in (ROOT / root).rglob("*.py")]
    assert [str(file) for file in files if FRAGMENT.search(file.read_text("utf-8"))] == []


@pytest.mark.parametrize("text, term", [(text, term) for term in TERMS for text in term.caught])
def test_replaced_words_are_caught(text: str, term: Term) -> None:
    assert any(complaint.endswith(term.instead) for _, complaint in old_words(text))


@pytest.mark.parametrize("text", [text for term in TERMS for text in term.allowed])
def test_what_only_looks_alike_is_allowed(text: str) -> None:
    assert old_words(text) == []


def test_the_line_is_where_the_words_begin() -> None:
    assert [line for line, _ in old_words("x = 1\n\n# an image is\n# taken\n# back here, by its law\n")] == [4, 5]


def test_a_reference_to_a_section_that_does_not_exist_is_caught() -> None:
    there = sorted(headings(ROOT / "README.md"))[0]
    assert missing_sections(f'see README, "{there}"', ROOT) == []
    assert [line for line, _ in missing_sections('\n(README,\n"No such section")', ROOT)] == [2]
    assert missing_sections('docs/nowhere.md, "Any"', ROOT) != []
