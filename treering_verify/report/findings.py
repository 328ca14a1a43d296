"""Findings of a benchmark: rows for programs, tables and figures for people. Values only; `report` formats them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from treering_detectors import Mean, PairedTest, Rate

Cell = str | int | float | Rate | Mean | None


@dataclass(frozen=True)
class Table:
    """A table; a cell is text or a value that the report can format.

    Attributes
    ----------
    title : str
    header : tuple of str
    rows : tuple of tuples of cells, each as long as the header
    note : str
        What a reader must know to understand it.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""


@dataclass(frozen=True)
class Curve:
    """One line of a panel: `x` and `y` of the same length; `half_width` is drawn as a band; a `group` shares a colour.

    What is `published` elsewhere is drawn as hollow marks without a line, in the colour of its group.
    """

    label: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    half_width: tuple[float, ...] = ()
    dashed: bool = False
    group: str = ""  # its label alone, where it is empty
    published: bool = False


@dataclass(frozen=True)
class Curves:
    """A panel of lines."""

    title: str
    x_label: str
    y_label: str
    curves: tuple[Curve, ...]
    log_x: bool = False
    kind: str = field(default="curves", init=False)


@dataclass(frozen=True)
class Cloud:
    """A panel of points, coloured by a third number, with a line (slope, intercept) through them."""

    title: str
    x_label: str
    y_label: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    colour: tuple[float, ...]
    colour_label: str
    line: tuple[float, float] | None = None
    kind: str = field(default="cloud", init=False)


@dataclass(frozen=True)
class Matrix:
    """A panel of a confusion matrix: counts[i][j] items of actual label i were predicted as labels[j].

    `none` is the label that means "no key", which is the last one and is drawn apart; "" if there is none.
    """

    title: str
    labels: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    none: str = ""
    kind: str = field(default="matrix", init=False)


@dataclass(frozen=True)
class Differences:
    """A panel of exact tests between methods on the same `count` images; `tests` as in `MethodDifferences`."""

    title: str
    methods: tuple[str, ...]
    tests: tuple[tuple[PairedTest, ...], ...]
    count: int
    kind: str = field(default="differences", init=False)


@dataclass(frozen=True)
class Thumbnails:
    """A panel of one PNG file, such as a contact sheet."""

    title: str
    png: bytes = field(repr=False)
    kind: str = field(default="thumbnails", init=False)


Panel = Curves | Cloud | Matrix | Differences | Thumbnails


@dataclass(frozen=True)
class Figure:
    """Panels under one title; `note` is the caption, which says what to see."""

    title: str
    panels: tuple[Panel, ...]
    note: str


@dataclass(frozen=True)
class Part:
    """One part of a page of many: its heading, what it says in a sentence or two, then figures and tables.

    The first table comes before the figures, the others after them.
    """

    title: str
    answer: str
    tables: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()


@dataclass(frozen=True)
class Findings:
    """All findings of one benchmark.

    Attributes
    ----------
    name : str
    question : str
        What was measured, in a sentence or two.
    rows : tuple of dicts
        Rows of the Parquet file: one per measurement, flat, all with the same fields.
    tables, figures : tuples
    parts : tuple of Part
        Further tables and figures under headings of their own, each with its answer; they come after `tables` and `figures`.
    seeds, count : str
        The images' seeds, and their count.
    model : str
        The measured model, if it is not the one that the command named.
    device : str
        The device that computed, if it is not the one that the command named.
    answer : str
        The answer to the question: one or two sentences with the figures that matter.
    """

    name: str
    question: str
    rows: tuple[dict[str, Any], ...]
    tables: tuple[Table, ...]
    figures: tuple[Figure, ...] = ()
    seeds: str = ""
    count: str = ""
    model: str = ""
    device: str = ""
    parts: tuple[Part, ...] = ()
    answer: str = ""
