"""Confusion matrices as figures and tables: counts and row rates, with the accuracy and its interval."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from io import StringIO
from typing import TYPE_CHECKING, Any

from treering_detectors import Rate, confusion_matrix

if TYPE_CHECKING:
    from typing import Self

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Sheet

MOST_WRITTEN = 12
"""Largest number of classes whose counts are written into the cells; with more, colour alone shows the row rates."""
_GAP = 0.35  # between the keys and the label for "no key", as a share of a cell
_DARK = 0.83  # row rate above which white text has more contrast with its cell than black
_BLUE = (0.11, 0.33, 0.55)  # of a row rate of 1; lower ones are more transparent, so that they suit dark pages too
_FAINT = "#757d86"  # of zeros: 4.1:1 on white, 4.3:1 on a dark page
_LARGE_GAP = 1 / 25  # the same as a share of the whole matrix, where that is more


@dataclass(eq=False)
class ConfusionMatrix:
    """Counts of actual against predicted labels, with the protocol of scikit-learn's displays.

    `from_predictions` counts and draws; `counted` only counts; `plot` draws, or draws again elsewhere.

    Attributes
    ----------
    labels : tuple of str
        The m labels, in the order of rows and columns.
    counts : tuple of m tuples of m int
        Rows are actual labels, columns predicted ones.
    title : str
        First line of the plot's title; the accuracy with its 95 % Clopper-Pearson interval is the second.
    none : str
        The label that means "no key". It must be the last one, and is drawn apart; "" if there is none.
    ax_, figure_ : matplotlib Axes and Figure
        Where the matrix was drawn, after `plot`.
    text_ : list of lists of matplotlib Text, or None
        What the cells say, after `plot`; None where colour alone shows the row rates.

    Raises
    ------
    ValueError
        If the counts are not square, or `none` is not the last label.

    Examples
    --------
    >>> matrix = ConfusionMatrix.counted(["a", "a", "b"], ["a", "b", "b"])
    >>> matrix.counts
    ((1, 1), (0, 1))
    >>> str(matrix.accuracy)
    '2/3 = 66.7 % [9.4, 99.2]'
    """

    labels: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    title: str = ""
    none: str = ""
    ax_: Axes | None = field(default=None, init=False, repr=False)
    figure_: Sheet | None = field(default=None, init=False, repr=False)
    text_: list[list[Any]] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        """Check the shape of the counts and the place of `none`."""
        if len(self.counts) != len(self.labels) or any(len(row) != len(self.labels) for row in self.counts):
            raise ValueError(f"counts must have {len(self.labels)} rows and columns, one for each label")
        if self.none and self.none != self.labels[-1]:
            raise ValueError(f"none is {self.none!r} and the last label {self.labels[-1]!r}; put that label last")

    @classmethod
    def from_predictions(
        cls,
        y_true: Sequence[object],
        y_pred: Sequence[object],
        *,
        labels: Sequence[object] | None = None,
        title: str = "",
        none: str = "",
        ax: Axes | None = None,
    ) -> Self:
        """Count predictions and draw the matrix; parameters as `counted` and `plot`."""
        return cls.counted(y_true, y_pred, labels=labels, title=title, none=none).plot(ax)

    @classmethod
    def counted(
        cls,
        y_true: Sequence[object],
        y_pred: Sequence[object],
        *,
        labels: Sequence[object] | None = None,
        title: str = "",
        none: str = "",
    ) -> Self:
        """Count predictions, and draw nothing.

        Parameters
        ----------
        y_true, y_pred : sequence of str, length N >= 1
            Actual and predicted label of each image; other values are taken as text.
        labels : sequence of str, optional
            All labels in the order wanted; by default those that occur, sorted, with `none` last.
        title, none : str
            See the class.

        Raises
        ------
        ValueError
            If the lengths differ or are zero, labels repeat, or a label is not in `labels`.
        """
        actual, predicted = [str(label) for label in y_true], [str(label) for label in y_pred]
        found = sorted({*actual, *predicted}, key=lambda label: (label == none, label))
        order = found if labels is None else [str(label) for label in labels]
        counts = confusion_matrix(actual, predicted, labels=order).counts
        return cls(tuple(order), tuple(tuple(int(n) for n in row) for row in counts), title, none)

    @property
    def accuracy(self) -> Rate:
        """Rate of predictions on the diagonal."""
        return Rate(sum(row[i] for i, row in enumerate(self.counts)), sum(map(sum, self.counts)))

    @property
    def row_rates(self) -> list[list[float]]:
        """Share of each actual label's images by predicted label; zeros for a label without images."""
        return [[n / max(1, sum(row)) for n in row] for row in self.counts]

    def plot(self, ax: Axes | None = None) -> Self:
        """Draw the matrix: counts and row rates in the cells, or colours with a scale if there are more than 12 classes.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; a new figure of pyplot by default.

        Returns
        -------
        ConfusionMatrix
            This object, with `ax_` and `figure_` set.
        """
        import numpy as np
        from matplotlib.colors import LinearSegmentedColormap

        if ax is None:
            from matplotlib import pyplot

            side = 7.5 if 6 < len(self.labels) <= MOST_WRITTEN else 5
            _, ax = pyplot.subplots(figsize=(side, side), layout="constrained")
        many = len(self.labels)
        edges, centres = self._edges()
        # The gap before the label for "no key" is a row and a column without values.
        shares = np.full((len(edges) - 1,) * 2, np.nan)
        positions = [i + (len(edges) - 1 - many if self.none and i == many - 1 else 0) for i in range(many)]
        shares[np.ix_(positions, positions)] = self.row_rates
        blues = LinearSegmentedColormap.from_list("row rates", [(*_BLUE, 0.0), (*_BLUE, 1.0)])
        mesh = ax.pcolormesh(edges, edges, np.ma.masked_invalid(shares), cmap=blues, vmin=0, vmax=1)
        mesh.set_rasterized(many > MOST_WRITTEN)
        ax.set(xlim=(edges[0], edges[-1]), ylim=(edges[-1], edges[0]), aspect="equal")
        self.text_ = None
        if many <= MOST_WRITTEN:
            self._draw_grid(ax, edges)
            self.text_ = self._write_cells(ax, centres)
            shown = list(range(many))
        else:
            step = -(-many // 8)
            shown = [*range(0, many - (step // 2 if self.none else 0), step), *([many - 1] if self.none else [])]
            self._draw_grid(ax, [edge for edge in edges if edge in (0, many - bool(self.none)) or edge > many - 1])
            ax.figure.colorbar(mesh, ax=ax, shrink=0.6, label="share of the row")
        names = [self.labels[i] for i in shown]
        ax.set_xticks([centres[i] for i in shown], names, rotation=90 if max(map(len, names)) > 4 else 0)
        ax.set_yticks([centres[i] for i in shown], names)
        ax.set_xlabel("predicted")
        ax.set_ylabel("actual")
        ax.set_title("\n".join(line for line in (self.title, self._headline()) if line), fontsize=10)
        ax.spines[:].set_visible(False)
        self.ax_, self.figure_ = ax, ax.figure  # type: ignore[assignment]
        return self

    def _edges(self) -> tuple[list[float], list[float]]:
        """Return the edges of the mesh, with a gap before the label for "no key", and the centre of each label's cell."""
        many = len(self.labels)
        if not self.none or many == 1:
            return [float(i) for i in range(many + 1)], [i + 0.5 for i in range(many)]
        gap = max(_GAP, many * _LARGE_GAP)
        wide = max(1.0, many * _LARGE_GAP)  # the row and column of "no key" stay visible beside many keys
        keys = many - 1
        edges = [*(float(i) for i in range(keys + 1)), keys + gap, keys + gap + wide]
        return edges, [*(i + 0.5 for i in range(keys)), keys + gap + wide / 2]

    def _draw_grid(self, ax: Any, edges: list[float]) -> None:
        """Draw thin lines between cells, or around the keys and around "no key", but not through the gap between them."""
        blocks = (
            [(edges[0], edges[-3]), (edges[-2], edges[-1])] if self.none and len(edges) > 3 else [(edges[0], edges[-1])]
        )
        for low, high in blocks:
            ax.hlines(edges, low, high, color=_FAINT, linewidth=0.4)
            ax.vlines(edges, low, high, color=_FAINT, linewidth=0.4)

    def _write_cells(self, ax: Any, centres: list[float]) -> list[list[Any]]:
        """Write the count and the row rate into each cell; zeros without a rate."""
        from matplotlib import rcParams

        cell = ax.get_window_extent().width / ax.figure.dpi * 72 / centres[-1]  # points
        size = min(11.0, max(5.0, cell / 4))
        written = []
        for y, row, rates in zip(centres, self.counts, self.row_rates, strict=True):
            cells = []
            for x, n, share in zip(centres, row, rates, strict=True):
                text, colour = (f"{n}\n{100 * share:.0f} %", rcParams["text.color"]) if n else ("0", _FAINT)
                colour = "white" if share > _DARK else colour
                cells.append(ax.text(x, y, text, ha="center", va="center", color=colour, fontsize=size, linespacing=1))
            written.append(cells)
        return written

    def _headline(self) -> str:
        rate = self.accuracy
        low, high = rate.interval()
        return f"{rate.successes}/{rate.trials} correct, {100 * rate.value:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"


def matrices_csv(matrices: Iterable[tuple[str, ConfusionMatrix]]) -> str:
    """Return (figure, matrix) pairs as CSV: a line for each cell with figure, matrix, actual, predicted and count."""
    buffer = StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(("figure", "matrix", "actual", "predicted", "count"))
    for figure, matrix in matrices:
        for actual, row in zip(matrix.labels, matrix.counts, strict=True):
            for predicted, n in zip(matrix.labels, row, strict=True):
                writer.writerow((figure, matrix.title, actual, predicted, n))
    return buffer.getvalue()
