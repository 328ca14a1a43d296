"""Findings of benchmarks on disk: Parquet rows, a text summary, and one HTML report of all findings in a folder."""

from __future__ import annotations

import io
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from treering_verify.evaluation.confusion_matrix import ConfusionMatrix, matrices_csv
from treering_verify.files import write_atomic
from treering_verify.report.findings import Findings, Matrix, Part
from treering_verify.report.panels import draw_panels, draw_png
from treering_verify.report.text import format_cell, format_table, to_json

REPORT = "report.html"
_LONG = 40  # rows; a longer table is folded, so that readers reach the next one
_SECTION = ".section.json"


@dataclass(frozen=True)
class Provenance:
    """Command, model, hardware, versions and date of a measurement."""

    command: str
    model: str
    hardware: str
    versions: str
    date: str


def store_findings(findings: Findings, provenance: Provenance, folder: Path) -> str:
    """Write NAME.parquet, NAME.txt and NAME.section.json, renew report.html from all sections there, return the summary.

    Confusion matrices are also written as PNG, one file per figure, and all together as NAME.confusion.csv.

    Every file appears whole under its final name or not at all.
    """
    folder.mkdir(parents=True, exist_ok=True)
    facts = {
        "images": findings.count,
        "seeds": findings.seeds,
        "model": provenance.model,
        "hardware": provenance.hardware,
        "versions": provenance.versions,
        "date": provenance.date,
        "repeat": provenance.command,
    }
    lines = [f"{name}: {value}" for name, value in facts.items() if value]
    texts = [*([findings.answer] if findings.answer else []), *(format_table(t) for t in findings.tables)]
    for part in findings.parts:
        texts += [f"## {part.title}\n{part.answer}", *(format_table(t) for t in part.tables)]
    summary = "\n\n".join([*texts, "\n".join(lines)])
    section = {
        "name": findings.name,
        "question": findings.question,
        "answer": findings.answer,
        "facts": facts,
        **_content(findings, findings.name),
        "parts": [
            {"title": p.title, "answer": p.answer, **_content(p, f"{findings.name}-{i}")}
            for i, p in enumerate(findings.parts, 1)
        ],
    }
    write_atomic(folder / f"{findings.name}.parquet", _parquet(list(findings.rows), facts))
    write_atomic(folder / f"{findings.name}.txt", (summary + "\n").encode())
    write_atomic(folder / f"{findings.name}{_SECTION}", json.dumps(section).encode())
    _write_matrices(findings, folder)
    write_report(folder)
    return summary


def _content(source: Findings | Part, prefix: str) -> dict[str, Any]:
    """Return the tables and the drawn figures of findings, or of a part of them; ids of figures begin with `prefix`."""
    return {
        "tables": [
            {
                "title": t.title,
                "header": t.header,
                "rows": [[format_cell(cell) for cell in row] for row in t.rows],
                "note": t.note,
            }
            for t in source.tables
        ],
        "figures": [
            {"title": f.title, "note": f.note, "panels": draw_panels(f, f"{prefix}-figure{i}-")}
            for i, f in enumerate(source.figures)
        ],
    }


def write_report(folder: Path) -> Path:
    """Render one HTML page from every section in a folder, in the order of their names."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    sections = [json.loads(path.read_text()) for path in sorted(folder.glob(f"*{_SECTION}"))]
    environment = Environment(
        loader=PackageLoader("treering_verify", "report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    html = environment.get_template("benchmark.html.jinja").render(sections=sections, long=_LONG)
    write_atomic(folder / REPORT, html.encode())
    return folder / REPORT


def _write_matrices(findings: Findings, folder: Path) -> None:
    """Write the figures that hold confusion matrices as PNG, and all their counts as CSV."""
    drawn = [*findings.figures, *(figure for part in findings.parts for figure in part.figures)]
    figures = {f.title: [p for p in f.panels if isinstance(p, Matrix)] for f in drawn}
    for figure in drawn:
        if figures[figure.title]:
            name = re.sub(r"[^a-z0-9]+", "-", figure.title.lower()).strip("-")
            write_atomic(folder / f"{findings.name}.{name}.png", draw_png(figure))
    matrices = [
        (title, ConfusionMatrix(panel.labels, panel.counts, panel.title, panel.none))
        for title, panels in figures.items()
        for panel in panels
    ]
    if matrices:
        write_atomic(folder / f"{findings.name}.confusion.csv", matrices_csv(matrices).encode())


def _parquet(rows: list[dict[str, Any]], facts: dict[str, str]) -> bytes:
    import pyarrow
    from pyarrow import parquet

    content = pyarrow.Table.from_pylist([to_json(row) for row in rows])
    content = content.replace_schema_metadata({f"treering.{name}": value for name, value in facts.items()})
    buffer = io.BytesIO()
    parquet.write_table(content, buffer)
    return buffer.getvalue()
