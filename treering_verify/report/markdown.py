"""Findings as Markdown: tables as the documentation shows them, and one line that says where they come from."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any


def slug(title: str) -> str:
    """Return a title as part of a file's name: lower-case words joined by dashes."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of text cells as Markdown."""
    lines = ["|".join(f" {_cell(cell)} " if cell else " " for cell in line) for line in (header, *rows)]
    rule = "---|" * len(header)
    return "\n".join([f"|{lines[0]}|", f"|{rule}", *(f"|{line}|" for line in lines[1:])])


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def origin_line(facts: dict[str, Any]) -> str:
    """Return date, commit, model, machine, command and counts as one line in italics."""
    commit = f"commit {facts['commit']}{' with changes' if facts['changed'] else ''}" if facts["commit"] else ""
    weights = f" (weights {facts['weights']})" if facts["weights"] else ""
    model = f"`{facts['model']}`{weights}" if facts["model"] else ""
    parts = [facts["date"], commit, model, facts["hardware"], f"`{facts['repeat']}`"]
    parts += [
        f"images: {facts['images']}" if facts["images"] else "",
        f"seeds: {facts['seeds']}" if facts["seeds"] else "",
    ]
    parts += [f"PARTIAL: {facts['partial']}" if facts["partial"] else ""]
    return f"*{'; '.join(part for part in parts if part)}.*"


def markdown_fragment(record: dict[str, Any]) -> str:
    """Return the record of a benchmark, NAME.json, as Markdown: question, tables, figures, and the line of their origin."""
    parts = [f"## {record['name']}", record["question"], record["answer"], *_content(record, "###")]
    for part in record["parts"]:
        parts += [f"### {part['title']}", part["answer"], *_content(part, "####")]
    return "\n\n".join([*(part for part in parts if part), origin_line(record["facts"])]) + "\n"


def _content(source: dict[str, Any], level: str) -> Iterator[str]:
    """Yield the tables and the figures of a record, or of a part of it."""
    for table in source["tables"]:
        yield from (f"{level} {table['title']}", markdown_table(table["header"], table["rows"]), table["note"])
    for figure in source["figures"]:
        yield from (f"{level} {figure['title']}", f"![{figure['title']}]({figure['file']}.png)", figure["note"])
