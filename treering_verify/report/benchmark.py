"""Findings of benchmarks on disk: Parquet rows, text, Markdown, JSON, figures, and a section of the folder's report."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from treering_verify.evaluation.confusion_matrix import ConfusionMatrix, matrices_csv
from treering_verify.files import write_atomic
from treering_verify.report.benchmark_page import SECTION, write_report
from treering_verify.report.findings import Cloud, Curve, Curves, Figure, Findings, Matrix, Part, Table
from treering_verify.report.markdown import markdown_fragment, slug
from treering_verify.report.panels import draw_panels, draw_png, with_ids
from treering_verify.report.text import format_cell, format_table, leading_zeros, to_json


@dataclass(frozen=True)
class Provenance:
    """Where a measurement comes from.

    Attributes
    ----------
    command, model, hardware, versions, date : str
    commit : str
        Commit of the code; "" where it is not known.
    changed : bool
        Whether the code differs from that commit.
    weights : str
        Digest of the model's weights.
    code : dict
        Digest of each module or package that was measured, without comments and docstrings.
    reference_ms : tuple of float
        Milliseconds of one fixed computation on this machine, before and after the measurement.
    processor_seconds : float
        Time of a processor that this run took; what was cached took none.
    partial : str
        What is missing, where the measurement was interrupted; else "".
    """

    command: str
    model: str
    hardware: str
    versions: str
    date: str
    commit: str = ""
    changed: bool = False
    weights: str = ""
    code: dict[str, str] = field(default_factory=dict)
    reference_ms: tuple[float, ...] = ()
    processor_seconds: float = 0.0
    partial: str = ""


def store_findings(findings: Findings, provenance: Provenance, folder: Path) -> str:
    """Write the files of a benchmark, renew report.html from all that is in the folder, and return the summary.

    NAME.parquet holds the rows, NAME.txt the summary, NAME.md tables and figures for a page of documentation, and NAME.json
    the same tables with their origin. Each figure is written as NAME.TITLE.png, its panels as SVG, all confusion matrices
    together as NAME.confusion.csv.

    Every file appears whole under its final name or not at all.
    """
    folder.mkdir(parents=True, exist_ok=True)
    findings = _spelled(findings)
    facts: dict[str, Any] = {
        "images": findings.count,
        "seeds": findings.seeds,
        "model": provenance.model,
        "weights": provenance.weights,
        "hardware": provenance.hardware,
        "versions": provenance.versions,
        "date": provenance.date,
        "commit": provenance.commit,
        "changed": provenance.changed,
        "repeat": provenance.command,
        "partial": provenance.partial,
        "reference_ms": provenance.reference_ms,
        "processor_seconds": provenance.processor_seconds,
        "code": provenance.code,
    }
    shown = {name: value for name, value in facts.items() if isinstance(value, str)}
    if provenance.changed:
        shown["commit"] += ", with changes"
    lines = [f"{name}: {value}" for name, value in shown.items() if value]
    texts = [*([findings.answer] if findings.answer else []), *(format_table(t) for t in findings.tables)]
    for part in findings.parts:
        texts += [f"## {part.title}\n{part.answer}", *(format_table(t) for t in part.tables)]
    summary = "\n\n".join([*texts, "\n".join(lines)])
    files = _figure_files(findings)
    drawn = {file: draw_panels(figure) for figure, file in files}
    section = {
        "name": findings.name,
        "question": findings.question,
        "answer": findings.answer,
        "facts": shown,
        **_content(findings, findings.name, files, drawn),
        "parts": [
            {"title": p.title, "answer": p.answer, **_content(p, f"{findings.name}-{i}", files, drawn)}
            for i, p in enumerate(findings.parts, 1)
        ],
    }
    write_atomic(folder / f"{findings.name}.parquet", _parquet(list(findings.rows), facts))
    write_atomic(folder / f"{findings.name}.txt", (summary + "\n").encode())
    write_atomic(folder / f"{findings.name}{SECTION}", json.dumps(section).encode())
    for figure, file in files:
        write_atomic(folder / f"{file}.png", draw_png(figure))
        for i, svg in enumerate(drawn[file], 1):
            write_atomic(folder / f"{file}{f'.{i}' if len(figure.panels) > 1 else ''}.svg", svg.encode())
    _write_matrices(findings, folder)
    record = _without_drawings(section | {"facts": facts})
    write_atomic(folder / f"{findings.name}.md", markdown_fragment(record).encode())
    write_atomic(folder / f"{findings.name}.json", (json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode())
    write_report(folder)
    return summary


def _spelled(value: Any) -> Any:
    """Return findings with every number of their texts in one style; rows and the labels of confusion matrices stay."""
    if isinstance(value, str):
        return leading_zeros(value)
    if isinstance(value, tuple):
        return tuple(map(_spelled, value))
    if not isinstance(value, Findings | Part | Table | Figure | Curves | Curve | Cloud):
        return value
    texts = {one.name: getattr(value, one.name) for one in fields(value) if one.init}
    if isinstance(value, Findings):
        del texts["name"], texts["rows"]
    return replace(value, **{name: _spelled(content) for name, content in texts.items()})


def _figure_files(findings: Findings) -> list[tuple[Figure, str]]:
    """Return each figure with the name of its files, without the ending."""
    figures = [*findings.figures, *(figure for part in findings.parts for figure in part.figures)]
    names = [f"{findings.name}.{slug(figure.title)}" for figure in figures]
    before = [names[:i].count(name) for i, name in enumerate(names)]
    return [(f, f"{name}-{n + 1}" if n else name) for f, name, n in zip(figures, names, before, strict=True)]


def _without_drawings(value: Any) -> Any:
    """Return a section of the report without its drawn panels."""
    if isinstance(value, dict):
        return {k: _without_drawings(v) for k, v in value.items() if k != "panels"}
    return [_without_drawings(v) for v in value] if isinstance(value, list | tuple) else value


def _content(
    source: Findings | Part, prefix: str, files: list[tuple[Figure, str]], drawn: dict[str, list[str]]
) -> dict[str, Any]:
    """Return the tables and the drawn figures of findings, or of a part of them; ids of figures begin with `prefix`.

    `drawn` holds the panels of each figure by the name of its files.
    """
    named = [next(name for figure, name in files if figure is f) for f in source.figures]
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
            {
                "title": f.title,
                "note": f.note,
                "file": file,
                "panels": [with_ids(svg, f"{prefix}-figure{i}-") for svg in drawn[file]],
            }
            for i, (f, file) in enumerate(zip(source.figures, named, strict=True))
        ],
    }


def _write_matrices(findings: Findings, folder: Path) -> None:
    """Write the counts of all confusion matrices as CSV."""
    matrices = [
        (figure.title, ConfusionMatrix(panel.labels, panel.counts, panel.title, panel.none))
        for figure, _ in _figure_files(findings)
        for panel in figure.panels
        if isinstance(panel, Matrix)
    ]
    if matrices:
        write_atomic(folder / f"{findings.name}.confusion.csv", matrices_csv(matrices).encode())


def _parquet(rows: list[dict[str, Any]], facts: dict[str, Any]) -> bytes:
    import pyarrow
    from pyarrow import parquet

    content = pyarrow.Table.from_pylist([to_json(row) for row in rows])
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in facts.items()}
    content = content.replace_schema_metadata({f"treering.{name}": value for name, value in texts.items()})
    buffer = io.BytesIO()
    parquet.write_table(content, buffer)
    return buffer.getvalue()
