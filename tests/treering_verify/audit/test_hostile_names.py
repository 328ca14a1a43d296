"""Names of files that mean harm, from a folder through an audit into every output."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest
from click.testing import CliRunner
from helpers.audits import audited, noisy_image
from helpers.hostile.names import NAMES

from treering_verify.cli.main import main
from treering_verify.report import format_row
from treering_verify.report.audit import AUDIT_FORMATS, write_report

COMMON = set("\n\r\t")


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of an audit of files with all these names."""
    folder = tmp_path_factory.mktemp("names")
    data = folder / "image.png"
    noisy_image(1).save(data)
    (folder / "in").mkdir()
    for name in NAMES:
        (Path(os.fsdecode(bytes(folder / "in"))) / os.fsdecode(name)).write_bytes(data.read_bytes())
    rows = audited(folder / "in", folder / "out")
    assert len(rows) == len(NAMES) == 31
    assert {os.fsencode(row.path) for row in rows} == {bytes(folder / "in") + b"/" + n for n in NAMES}
    for row in rows:
        line = format_row(row.record())
        assert line.isprintable(), line
    return folder / "out"


@pytest.mark.parametrize("style", AUDIT_FORMATS)
def test_no_name_controls_a_terminal_a_page_or_a_spreadsheet(output: Path, style: str, tmp_path: Path) -> None:
    write_report(output, tmp_path / "r", style, root=output.parent)
    text = (tmp_path / "r").read_bytes().decode()
    assert not [c for c in text if not c.isprintable() and c not in COMMON]
    if style == "html":
        assert "<script>alert(1)" not in text and "<img src=x" not in text and "{{7*7}}" in text
    if style == "csv":
        cells = [cell for line in csv.reader(text.splitlines()) for cell in line]
        assert not [
            cell for cell in cells if cell[:1] in set("=+@\t\r\uff1d") or (cell[:1] == "-" and not number(cell))
        ]


def number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def test_verify_prints_them_escaped(output: Path, tmp_path: Path) -> None:
    folder = output.parent / "in"
    files = [os.path.join(os.fsencode(folder), name) for name in NAMES[:3]] + [os.fsencode(folder) + b"/" + NAMES[6]]
    done = CliRunner().invoke(main, ["verify", *map(os.fsdecode, files), "--key", str(tmp_path / "none")])
    assert done.exit_code == 2
    assert not [c for c in done.output if not c.isprintable() and c not in COMMON]
