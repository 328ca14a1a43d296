"""The HTML report of all benchmarks in a folder: of each the answer first, then figures, then tables."""

from __future__ import annotations

import base64
import hashlib
import json
from importlib.resources import files
from pathlib import Path

from treering_verify.files import write_atomic

REPORT = "report.html"
SECTION = ".section.json"
"""Ending of the files that hold what the report says of one benchmark."""

_LONG = 20  # rows; a longer table is folded, so that readers reach the next one


def write_report(folder: Path) -> Path:
    """Render one HTML page from every section in a folder, in the order of their names."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    sections = [json.loads(path.read_text()) for path in sorted(folder.glob(f"*{SECTION}"))]
    here = files("treering_verify.report")
    script, style = ((here / f"benchmark.{kind}").read_text(encoding="utf-8") for kind in ("js", "css"))
    environment = Environment(
        loader=PackageLoader("treering_verify", "report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    html = environment.get_template("benchmark.html.jinja").render(
        sections=sections,
        long=_LONG,
        script=script,
        style=style,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
    write_atomic(folder / REPORT, html.encode())
    return folder / REPORT
