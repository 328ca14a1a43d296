"""The figures of benchmarks: each panel as an SVG that suits light and dark pages, all panels together as a PNG."""

from __future__ import annotations

import re
from html import escape
from io import BytesIO, StringIO
from typing import Any

from treering_verify.evaluation.confusion_matrix import MOST_WRITTEN, ConfusionMatrix
from treering_verify.evaluation.differences import MethodDifferences
from treering_verify.report.findings import Cloud, Curves, Differences, Figure, Matrix, Panel, Thumbnails

_SIDE_BY_SIDE = 3  # panels in a row of a PNG; further ones wrap
_SCALE = 0.84  # of matrices in the page, so that three stand side by side
_INK = "#010203"  # stands for the page's own colour of text while an SVG is drawn
_COLOURS = 10  # of matplotlib's cycle; curves beyond them have another marker
_MARKERS = ".^sD"
_SQUARE = (4.6, 5.0)
_LARGE = (6.8, 7.2)  # of a matrix whose cells are many and have text
_FEW = 6  # labels that a square of the usual size has room for
_WIDE = (5.6, 4.4)
_SHEET = (13.0, 12.0)
_DOTS = 110  # of a PNG, in an inch
_LEGEND_COLUMNS = 2
_LEGEND_LINE = 0.2  # inches


def draw_panels(figure: Figure, prefix: str = "") -> list[str]:
    """Return each panel as an SVG without a date, so that equal panels are equal texts.

    Lines and text have the colour of the text around them. Ids begin with `prefix` and the panel's number, so that one
    page can hold many.
    """
    groups = _groups(figure)
    drawn = [_svg(panel, figure.title, groups) for panel in figure.panels]
    return [with_ids(svg, f"{prefix}{i}-") for i, svg in enumerate(drawn)]


def with_ids(svg: str, prefix: str) -> str:
    """Return an SVG whose ids, and what refers to them, begin with `prefix`."""
    return re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{prefix}", svg)


def draw_png(figure: Figure) -> bytes:
    """Return the panels of a figure as one PNG file, on white."""
    many = len(figure.panels)
    columns = 2 if many == 4 else min(many, _SIDE_BY_SIDE)
    rows = -(-many // columns)
    sizes = [_size(panel) for panel in figure.panels]
    width, height = max(w for w, _ in sizes), max(h for _, h in sizes)
    pyplot = pyplot_of_files()
    square = any(isinstance(panel, Matrix | Differences) for panel in figure.panels)
    sheet, axes = pyplot.subplots(
        rows,
        columns,
        figsize=(width * columns if many > 1 else max(width, 6.5), height * rows),
        layout="compressed" if square else "constrained",
        squeeze=False,
    )
    sheet.get_layout_engine().set(w_pad=0.1, h_pad=0.1)
    for axis in axes.flat[many:]:
        axis.set_visible(False)
    for axis, panel in zip(axes.flat, figure.panels, strict=False):
        _draw(sheet, axis, panel, _groups(figure))
    buffer = BytesIO()
    sheet.savefig(buffer, dpi=_DOTS, format="png", bbox_inches="tight", metadata={"Software": None})
    pyplot.close(sheet)
    return buffer.getvalue()


def pyplot_of_files() -> Any:
    """Return matplotlib's pyplot, which draws files only, and with ids that do not change from run to run."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "treering"
    from matplotlib import pyplot

    return pyplot


def _groups(figure: Figure) -> list[str]:
    """Return the groups of all curves of a figure: each has one colour in all panels."""
    curves = [curve for panel in figure.panels if isinstance(panel, Curves) for curve in panel.curves]
    return list(dict.fromkeys(curve.group or curve.label for curve in curves))


def _svg(panel: Panel, figure: str, groups: list[str]) -> str:
    pyplot, buffer = pyplot_of_files(), StringIO()
    inks = ("text.color", "axes.labelcolor", "axes.edgecolor", "axes.titlecolor", "xtick.color", "ytick.color")
    with pyplot.rc_context({**dict.fromkeys(inks, _INK), "legend.framealpha": 0.0, "grid.color": "#808890"}):
        sheet, axis = pyplot.subplots(figsize=_size(panel), layout="constrained")
        _draw(sheet, axis, panel, groups)
        sheet.savefig(
            buffer, format="svg", transparent=True, bbox_inches="tight", metadata={"Date": None, "Creator": None}
        )
        pyplot.close(sheet)
    text = buffer.getvalue().replace(_INK, "currentColor")
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    scale = _SCALE if isinstance(panel, Matrix | Differences) else 1.0
    text = re.sub(r' height="[\d.]+pt"', "", text, count=1)
    text = re.sub(r' width="([\d.]+)pt"', lambda m: f' width="{float(m[1]) / 0.75 * scale:.0f}"', text, count=1)
    said = escape(f"{figure}: {panel.title}" if panel.title not in ("", figure) else figure)
    return text.replace("<svg ", f'<svg role="img" aria-label="{said}" ', 1)


def _size(panel: Panel) -> tuple[float, float]:
    """Return width and height of a panel in inches."""
    if isinstance(panel, Thumbnails):
        return _size_of_sheet(panel)
    if isinstance(panel, Curves):
        return _WIDE[0], _WIDE[1] + _LEGEND_LINE * -(-len(panel.curves) // _LEGEND_COLUMNS)
    if isinstance(panel, Matrix):
        return _LARGE if _FEW < len(panel.labels) <= MOST_WRITTEN else _SQUARE
    return _SQUARE if isinstance(panel, Differences) else _WIDE


def _size_of_sheet(panel: Thumbnails) -> tuple[float, float]:
    """Return the size at which a sheet has one pixel for each of its own, or less where it is large."""
    from PIL import Image

    with Image.open(BytesIO(panel.png)) as image:
        scale = min(1 / _DOTS, *(most / side for most, side in zip(_SHEET, image.size, strict=True)))
        return image.width * scale, image.height * scale


def _draw(sheet: Any, axis: Any, panel: Panel, groups: list[str]) -> None:
    axis.set_title(panel.title, fontsize=10)
    if isinstance(panel, Curves):
        _draw_curves(axis, panel, groups)
    elif isinstance(panel, Cloud):
        _draw_cloud(sheet, axis, panel)
    elif isinstance(panel, Thumbnails):
        _draw_thumbnails(axis, panel)
    elif isinstance(panel, Differences):
        MethodDifferences(panel.methods, panel.tests, panel.count, panel.title).plot(axis)
    else:
        ConfusionMatrix(panel.labels, panel.counts, panel.title, panel.none).plot(axis)


def _draw_curves(axis: Any, panel: Curves, groups: list[str]) -> None:
    alpha = 0.15 if sum(bool(curve.half_width) for curve in panel.curves) <= _FEW else 0.06
    for curve in panel.curves:
        i = groups.index(curve.group or curve.label)
        colour, marker = f"C{i % _COLOURS}", _MARKERS[i // _COLOURS % len(_MARKERS)]
        half = list(curve.half_width) or None
        if curve.published:
            hollow = {"markerfacecolor": "none", "markeredgewidth": 1.5, "markersize": 8, "capsize": 3}
            axis.errorbar(curve.x, curve.y, half, fmt="D", color=colour, label=curve.label, linewidth=1.0, **hollow)
            continue
        if len(curve.x) == 1:  # a band of one point has no width
            style = {"fmt": "o" if marker == "." else marker, "markersize": 6, "capsize": 4, "linewidth": 1.2}
            axis.errorbar(curve.x, curve.y, half, color=colour, label=curve.label, **style)
            continue
        style_options = {"color": colour, "marker": marker, "linewidth": 1.4, "markersize": 5}
        (drawn,) = axis.plot(curve.x, curve.y, "--" if curve.dashed else "-", label=curve.label, **style_options)
        if half:
            bounds = list(zip(curve.y, half, strict=True))
            low, high = [y - h for y, h in bounds], [y + h for y, h in bounds]
            axis.fill_between(curve.x, low, high, color=drawn.get_color(), alpha=alpha, linewidth=0)
    if panel.log_x:
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter("{x:g}")
    axis.set_xlabel(panel.x_label)
    axis.set_ylabel(panel.y_label)
    axis.grid(alpha=0.3)
    # Below the axes, since nothing in them is sure to be free.
    place = {"loc": "upper left", "bbox_to_anchor": (-0.14, -0.13), "ncols": _LEGEND_COLUMNS}
    axis.legend(fontsize=8, frameon=False, **place)


def _draw_cloud(sheet: Any, axis: Any, panel: Cloud) -> None:
    points = axis.scatter(panel.x, panel.y, c=panel.colour, s=16, cmap="viridis")
    sheet.colorbar(points, ax=axis, label=panel.colour_label)
    if panel.line and panel.x:
        ends = [min(panel.x), max(panel.x)]
        axis.plot(ends, [panel.line[1] + panel.line[0] * x for x in ends], color="red", linewidth=1.4)
    axis.set_xlabel(panel.x_label)
    axis.set_ylabel(panel.y_label)


def _draw_thumbnails(axis: Any, panel: Thumbnails) -> None:
    from PIL import Image

    axis.imshow(Image.open(BytesIO(panel.png)), interpolation="none")
    axis.set_axis_off()
