"""Confusion matrices: counts, rates, and what is drawn of them."""

from __future__ import annotations

import csv
import itertools
from io import BytesIO, StringIO
from pathlib import Path

import pytest
from PIL import Image
from treering_detectors import Rate

from treering_verify.evaluation import ConfusionMatrix
from treering_verify.evaluation.confusion_matrix import matrices_csv
from treering_verify.report import Provenance, store_findings
from treering_verify.report.findings import Figure, Findings, Matrix, Table
from treering_verify.report.panels import draw_png

OPEN = ConfusionMatrix(("a", "b", "none"), ((8, 0, 2), (1, 9, 0), (0, 0, 4)), "ours", "none")


def many(count: int, none: str = "") -> ConfusionMatrix:
    labels = [*(str(i) for i in range(count)), *([none] if none else [])]
    return ConfusionMatrix.counted(labels, labels, labels=labels, none=none)


def test_predictions_are_counted_with_actual_labels_in_rows() -> None:
    matrix = ConfusionMatrix.counted(["b", "a", "none", "a"], ["a", "a", "none", "none"], none="none")
    assert matrix.labels == ("a", "b", "none")
    assert matrix.counts == ((1, 0, 1), (1, 0, 0), (0, 0, 1))
    assert matrix.accuracy == Rate(2, 4)
    assert matrix.row_rates[0] == [0.5, 0.0, 0.5]


def test_scikit_learns_displays_have_the_same_protocol() -> None:
    """The same call gives the same counts, draws at once into the axes that were given, and names them alike."""
    from matplotlib.figure import Figure as Sheet
    from sklearn.metrics import ConfusionMatrixDisplay

    actual, predicted = [0, 0, 1, 2, 2], [0, 1, 1, 2, 0]
    ours, theirs = (
        display.from_predictions(actual, predicted, ax=Sheet().add_subplot())
        for display in (ConfusionMatrix, ConfusionMatrixDisplay)
    )
    assert [list(row) for row in ours.counts] == theirs.confusion_matrix.tolist()
    for shown in (ours, theirs):
        assert shown.ax_.figure is shown.figure_ and shown.ax_.get_xticklabels()
        again = Sheet().add_subplot()
        assert shown.plot(ax=again) is shown and shown.ax_ is again
    assert ours.text_ is not None and len(ours.text_) == len(theirs.text_) == 3


def test_a_label_without_images_has_rates_of_zero() -> None:
    matrix = ConfusionMatrix.counted(["a"], ["a"], labels=["a", "b"])
    assert matrix.row_rates == [[1.0, 0.0], [0.0, 0.0]]


def test_impossible_matrices_are_refused() -> None:
    with pytest.raises(ValueError, match="2 rows and columns"):
        ConfusionMatrix(("a", "b"), ((1, 2),))
    with pytest.raises(ValueError, match="last"):
        ConfusionMatrix(("none", "b"), ((1, 2), (3, 4)), none="none")


def test_cells_show_counts_and_row_rates_and_the_title_the_accuracy_with_its_interval() -> None:
    shown = OPEN.plot()
    assert shown is OPEN and shown.ax_ is not None and shown.figure_ is shown.ax_.figure
    texts = [text.get_text() for text in shown.ax_.texts]
    assert texts == ["8\n80 %", "0", "2\n20 %", "1\n10 %", "9\n90 %", "0", "0", "0", "4\n100 %"]
    assert shown.ax_.get_title() == "ours\n21/24 correct, 87.5 % [67.6, 97.3]"
    assert [label.get_text() for label in shown.ax_.get_xticklabels()] == ["a", "b", "none"]


def test_the_label_for_no_key_is_drawn_apart_from_the_keys() -> None:
    def centres(matrix: ConfusionMatrix) -> list[float]:
        ax = matrix.plot().ax_
        assert ax is not None
        return [float(tick) for tick in ax.get_yticks()]

    apart, together = centres(OPEN), centres(ConfusionMatrix(OPEN.labels, OPEN.counts))
    assert together == [0.5, 1.5, 2.5]
    assert apart[:2] == [0.5, 1.5] and apart[2] > 2.5
    shares = OPEN.plot().ax_.collections[0].get_array()  # type: ignore[union-attr,index]
    assert shares.shape == (4, 4) and shares.mask[2].all() and shares.mask[:, 2].all() and not shares.mask[3, 3]


def test_beyond_twelve_classes_colours_have_a_scale_and_some_ticks_and_cells_no_text() -> None:
    written, coloured = many(12).plot(), many(40, "none").plot()
    assert written.ax_ is not None and coloured.ax_ is not None
    assert written.figure_ is not None and coloured.figure_ is not None
    assert len(written.ax_.texts) == 144 and len(written.figure_.axes) == 1 and len(written.text_ or []) == 12
    assert len(coloured.ax_.texts) == 0 and len(coloured.figure_.axes) == 2
    assert coloured.figure_.axes[1].get_ylabel() == "share of the row"
    ticks = [label.get_text() for label in coloured.ax_.get_xticklabels()]
    assert ticks[0] == "0" and ticks[-1] == "none" and 4 < len(ticks) < 12
    positions = [float(x) for x in coloured.ax_.get_xticks()]
    assert min(b - a for a, b in itertools.pairwise(positions)) > 2  # no two labels overlap


def test_csv_has_a_line_for_each_cell() -> None:
    lines = list(csv.DictReader(StringIO(matrices_csv([("a figure, with a comma", OPEN)]))))
    assert len(lines) == 9
    assert lines[2] == {
        "figure": "a figure, with a comma",
        "matrix": "ours",
        "actual": "a",
        "predicted": "none",
        "count": "2",
    }


def test_more_than_three_panels_wrap_and_matrices_lie_beside_the_report_as_png_and_csv(tmp_path: Path) -> None:
    panels = tuple(Matrix(name, OPEN.labels, OPEN.counts, "none") for name in "vwxyz")
    figure = Figure("8 keys, open set (JPEG)", panels, "note")
    sizes = []
    for shown in (3, 5):
        with Image.open(BytesIO(draw_png(Figure("f", panels[:shown], "note")))) as image:
            sizes.append(image.size)
    assert sizes[1][0] == pytest.approx(sizes[0][0], rel=0.1) and sizes[1][1] == pytest.approx(2 * sizes[0][1], rel=0.1)
    findings = Findings("example", "?", ({"a": 1},), (Table("t", ("a",), (("1",),)),), (figure,))
    store_findings(findings, Provenance("repeat", "model", "machine", "versions", "2026-01-01"), tmp_path)
    with Image.open(tmp_path / "example.8-keys-open-set-jpeg.png") as image:
        assert image.format == "PNG" and image.width > image.height > 800
    assert len((tmp_path / "example.confusion.csv").read_text().splitlines()) == 1 + 5 * 9
