"""What every benchmark leaves in its folder."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path

import pyarrow.parquet

from treering_verify.report import store_findings
from treering_verify.report.benchmark import Provenance
from treering_verify.report.findings import Findings


def check_stored(name: str, folder: Path) -> None:
    """Check that rows, tables and report of a benchmark are there, whole, and nothing half-written."""
    assert pyarrow.parquet.read_table(folder / f"{name}.parquet").num_rows > 0
    html = (folder / "report.html").read_text()
    for table in json.loads((folder / f"{name}.section.json").read_text())["tables"]:
        assert table["header"] and all(len(line) == len(table["header"]) for line in table["rows"])
        assert f"<h3>{escape(table['title']).replace('&#x27;', '&#39;')}</h3>" in html
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def check_storing(findings: Findings, folder: Path) -> None:
    """Store findings that were measured outside of a benchmark's run, and check what is there."""
    origin = Provenance("treering benchmark", "a model", "a machine", "versions", "2026-12-01")
    assert store_findings(findings, origin, folder)
    check_stored(findings.name, folder)
