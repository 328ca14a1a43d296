"""The HTML report of all benchmarks in a folder: of each the answer first, then figures, then tables."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

from treering_verify.files import write_atomic

REPORT = "report.html"
SECTION = ".section.json"
"""Ending of the files that hold what the report says of one benchmark."""

_LONG = 20  # rows; a longer table is folded, so that readers reach the next one
_MANY, _MOST = 7, 12  # columns: a wider table is printed in smaller type, and one that is wider still may cut headings
_SENTENCE = 44  # characters; a longer cell may have several lines


def write_report(folder: Path) -> Path:
    """Render one HTML page from every section in a folder, in the order of their names."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    sections = [json.loads(path.read_text()) for path in sorted(folder.glob(f"*{SECTION}"))]
    here = files("treering_verify.report")
    script, style = ((here / f"benchmark.{kind}").read_text(encoding="utf-8") for kind in ("js", "css"))
    environment = Environment(
        loader=PackageLoader("treering_verify", "report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["coded"] = _coded
    html = environment.get_template("benchmark.html.jinja").render(
        sections=sections,
        long=_LONG,
        many=_MANY,
        most=_MOST,
        sentence=_SENTENCE,
        script=script,
        style=style,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
    write_atomic(folder / REPORT, html.encode())
    return folder / REPORT


def _coded(text: str) -> Any:
    """Return text as HTML, with what stands between backticks as code."""
    from markupsafe import Markup, escape

    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))
