"""What benchmarks found, as rows, tables, figures and one HTML report."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from PIL import Image
from treering_detectors import Mean, Rate

from treering_verify.report import Provenance, format_cell, store_findings
from treering_verify.report.findings import Cloud, Curve, Curves, Figure, Findings, Matrix, Part, Table, Thumbnails
from treering_verify.report.markdown import markdown_table
from treering_verify.report.panels import _draw_curves, _groups, draw_panels

PROVENANCE = Provenance("treering benchmark x --output DIR", "tiny", "a machine", "some versions", "2026-01-01")


def example(**changes: Any) -> Findings:
    values: dict[str, Any] = {
        "name": "example",
        "question": "Is <this> escaped & safe?",
        "rows": ({"a": 1, "b": float("nan")}, {"a": 2, "b": 0.5}),
        "tables": (Table("A table", ("method", "value"), (("x <y>", Rate(3, 4)), ("z", Mean(1.0, 0.25, 9)))),),
        "figures": (
            Figure(
                "All kinds",
                (
                    Curves("c", "x", "y", (Curve("one", (1.0, 10.0), (0.0, 1.0), (0.1, 0.2)),), log_x=True),
                    Cloud("d", "x", "y", (0.0, 1.0), (1.0, 0.0), (0.2, 0.4), "colour", (-1.0, 1.0)),
                    Matrix("m", ("a", "b"), ((3, 1), (0, 4))),
                ),
                "What to see.",
            ),
        ),
    }
    return Findings(**{**values, **changes})


def test_the_report_holds_every_section_of_its_folder_and_escapes_text(tmp_path: Path) -> None:
    store_findings(example(), PROVENANCE, tmp_path)
    store_findings(example(name="second", figures=()), PROVENANCE, tmp_path)
    html = (tmp_path / "report.html").read_text()
    assert re.findall(r'<section id="(\w+)">', html) == ["example", "second"]
    assert "Is &lt;this&gt; escaped &amp; safe?" in html and "x &lt;y&gt;" in html
    assert "3/4 = 75.0 % [19.4, 99.4]" in html and "1.00 +- 0.25" in html
    assert html.count("<svg") == 3
    script = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    assert len(script) == html.count("<script") == 1
    digest = base64.b64encode(hashlib.sha256(script[0].encode()).digest()).decode()
    assert f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'" in html


def test_long_cells_wrap_and_code_is_code(tmp_path: Path) -> None:
    table = Table("t", ("a", "b"), (("`x <y>`", "many words " * 9),), "Run `a & b`.")
    store_findings(example(tables=(table,), figures=()), PROVENANCE, tmp_path)
    html = (tmp_path / "report.html").read_text()
    assert "<td><code>x &lt;y&gt;</code></td>" in html and '<td class="text">many words' in html
    assert '<p class="note">Run <code>a &amp; b</code>.</p>' in html


def test_rows_keep_their_types_and_have_no_nan(tmp_path: Path) -> None:
    store_findings(example(), PROVENANCE, tmp_path)
    table = pyarrow.parquet.read_table(tmp_path / "example.parquet")
    assert table.to_pylist() == [{"a": 1, "b": None}, {"a": 2, "b": 0.5}]
    assert table.schema.metadata[b"treering.model"] == b"tiny"


def test_parts_come_under_their_headings_with_their_answers_in_page_and_summary(tmp_path: Path) -> None:
    table = Table("Of the part", ("a",), (("1",),))
    matrices = Figure("Told apart", (Matrix("m", ("a", "b"), ((3, 1), (0, 4))),), "The diagonal is full.")
    summary = store_findings(
        example(parts=(Part("Table <1>", "It agrees.", (table,), (matrices,)),)), PROVENANCE, tmp_path
    )
    html = (tmp_path / "report.html").read_text()
    assert html.index("A table") < html.index("Table &lt;1&gt;") < html.index("It agrees.") < html.index("Of the part")
    assert summary.index("A table") < summary.index("Table <1>\nIt agrees.") < summary.index("Of the part")
    assert html.count("<svg") == 3 + 1
    assert (tmp_path / "example.told-apart.png").exists()
    assert "Told apart,m,a,b,1" in (tmp_path / "example.confusion.csv").read_text()


def test_tables_and_their_origin_are_stored_for_pages_and_for_programs(tmp_path: Path) -> None:
    origin = replace(PROVENANCE, commit="abc", changed=True, weights="def", code={"inversion": "123"})
    store_findings(example(count="4", seeds="1 onwards"), origin, tmp_path)
    text = (tmp_path / "example.md").read_text()
    assert "| method | value |\n|---|---|\n| x <y> | 3/4 = 75.0 % [19.4, 99.4] |\n| z | 1.00 +- 0.25 |\n" in text
    assert text.endswith(
        "\n*2026-01-01; commit abc with changes; `tiny` (weights def); a machine; `treering benchmark x --output DIR`; "
        "images: 4; seeds: 1 onwards.*\n"
    )
    record = json.loads((tmp_path / "example.json").read_text())
    assert record["facts"]["code"] == {"inversion": "123"} and record["facts"]["changed"] is True
    assert record["tables"][0]["rows"][0] == ["x <y>", "3/4 = 75.0 % [19.4, 99.4]"]
    (figure,) = record["figures"]
    assert f"({figure['file']}.png)" in text and (tmp_path / f"{figure['file']}.png").read_bytes().startswith(
        b"\x89PNG"
    )
    assert "<svg" in (tmp_path / f"{figure['file']}.1.svg").read_text()


def test_numbers_below_one_begin_with_a_zero_in_every_text_but_not_in_rows(tmp_path: Path) -> None:
    table = Table("t", ("noise .05", "b"), (("adam .01, -.5", "v1.5.2 a.1"),), "[.2, .4]")
    panel = Curves("c", "x", "y", (Curve("step .3", (1.0,), (0.0,)),))
    part = Part("p", "above .1", (), (Figure("f", (panel,), "caption .7"),))
    store_findings(
        example(rows=({"method": "adam .01"},), tables=(table,), figures=(), parts=(part,)), PROVENANCE, tmp_path
    )
    record = json.loads((tmp_path / "example.json").read_text())
    (stored,) = record["tables"]
    assert stored["header"][0] == "noise 0.05" and stored["rows"] == [["adam 0.01, -0.5", "v1.5.2 a.1"]]
    assert stored["note"] == "[0.2, 0.4]" and record["parts"][0]["answer"] == "above 0.1"
    html = (tmp_path / "report.html").read_text()
    assert "caption 0.7" in html and "<!-- step 0.3 -->" in html
    assert pyarrow.parquet.read_table(tmp_path / "example.parquet")["method"].to_pylist() == ["adam .01"]


def test_a_cell_never_ends_a_column_of_a_markdown_table() -> None:
    assert markdown_table(("a", ""), (("x|y", "two\nlines"),)) == "| a | |\n|---|---|\n| x\\|y | two lines |"


def lines_of(*curves: Curve) -> list[Any]:
    """Draw a panel, and return its lines."""
    from matplotlib.figure import Figure as Sheet

    axis, panel = Sheet().add_subplot(), Curves("c", "x", "y", curves)
    _draw_curves(axis, panel, _groups(Figure("f", (panel,), "note")))
    return list(axis.get_lines())


def test_no_two_of_many_curves_look_alike() -> None:
    lines = lines_of(*(Curve(str(i), (1.0, 2.0), (float(i), 0.0)) for i in range(30)))
    assert len({(line.get_color(), line.get_marker()) for line in lines}) == 30


def test_curves_of_one_group_share_a_colour_in_all_panels() -> None:
    points: tuple[tuple[float, ...], tuple[float, ...]] = (1.0, 2.0), (2.0, 3.0)
    one, other, third = lines_of(
        Curve("a", *points), Curve("a 2", *points, dashed=True, group="a"), Curve("b", *points)
    )
    assert one.get_color() == other.get_color() != third.get_color() and one.get_linestyle() != other.get_linestyle()
    first, second = (Curves(name, "x", "y", (Curve(name, *points),)) for name in ("a", "b"))
    assert _groups(Figure("f", (first, second), "note")) == ["a", "b"]


def test_a_single_point_shows_its_interval() -> None:
    point, *caps = lines_of(Curve("a", (1.0,), (2.0,), (0.5,)))
    assert point.get_marker() == "o" and [cap.get_ydata().tolist() for cap in caps] == [[1.5], [2.5]]


def test_a_sheet_is_drawn_at_its_own_size() -> None:
    buffer = BytesIO()
    Image.new("RGB", (440, 220)).save(buffer, "PNG")
    svg, *_ = draw_panels(Figure("f", (Thumbnails("t", buffer.getvalue()),), "note"))
    width = float(re.findall(r' width="(\d+)"', svg)[0])
    assert width == pytest.approx(440 / 110 * 96, rel=0.1)


def test_the_answer_comes_first_then_figures_then_tables_and_long_ones_are_folded(tmp_path: Path) -> None:
    first, second = (
        Table(name, ("n",), tuple((str(i),) for i in range(n))) for name, n in (("First", 20), ("Long", 21))
    )
    found = example(tables=(first, second), answer="Yes & <no>.")
    assert store_findings(found, PROVENANCE, tmp_path).startswith("Yes & <no>.\n\nFirst\n")
    html = (tmp_path / "report.html").read_text()
    assert html.count("<details>") == html.count("<details><summary><h3>Long</h3> 21 rows</summary>") == 1
    answer = '<p class="answer">Yes &amp; &lt;no&gt;.</p>'
    places = [html.index(text) for text in (answer, "<svg", "<h3>First</h3>", "<h3>Long</h3>", "<dl>")]
    assert places == sorted(places) and html.count("<tr>") == 2 + 41


def test_published_values_are_marks_in_the_colour_of_their_group_and_have_no_line() -> None:
    ours = Curve("a", (1.0, 2.0), (2.0, 3.0))
    published = Curve("a, published", (1.0, 2.0), (2.5, 3.5), (0.1, 0.2), group="a", published=True)
    line, marks, *_ = lines_of(ours, published)
    assert line.get_linestyle() == "-" and marks.get_linestyle() == "None"
    assert marks.get_markeredgecolor() == line.get_color() and marks.get_markerfacecolor() == "none"


def test_equal_figures_are_equal_texts_with_ids_of_their_own_and_the_colour_of_the_page() -> None:
    figure = example().figures[0]
    assert draw_panels(figure, "a") == draw_panels(figure, "a") and len(draw_panels(figure)) == 3
    ids = [re.findall(r'\bid="([^"]+)"', svg) for svg in (*draw_panels(figure, "a"), *draw_panels(figure, "b"))]
    assert all(ids) and len({name for names in ids for name in names}) == sum(map(len, ids))
    for svg, title in zip(draw_panels(figure), "cdm", strict=True):
        assert svg.startswith(f'<svg role="img" aria-label="All kinds: {title}"') and "currentColor" in svg
        used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', svg))
        assert used <= set(re.findall(r'\bid="([^"]+)"', svg)) and "#010203" not in svg


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        (3, "3"),
        (0.123456, "0.1235"),
        (math.nan, "n/a"),
        ("x", "x"),
        (Rate(0, 2), "0/2 = 0.0 % [0.0, 84.2]"),
    ],
)
def test_cells_are_written_as_people_read_them(value: Any, text: str) -> None:
    assert format_cell(value) == text
