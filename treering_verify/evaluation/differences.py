"""Differences between methods on the same images: exact McNemar tests, as one triangle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from treering_detectors import PairedTest, holm, mcnemar

if TYPE_CHECKING:
    from typing import Self

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Sheet

LEVEL = 0.05
"""Significance level of the tests, after Holm's correction for their number."""
_WIDEST = 0.25  # difference of accuracies that has the full colour
_PALE = 0.25  # share of the full colour that a difference has at most which is not significant
_STRONG = 0.6  # share of the full colour above which white text has more contrast than black


@dataclass(eq=False)
class MethodDifferences:
    """Exact McNemar tests between all pairs of m methods that answered for the same n images.

    Attributes
    ----------
    methods : tuple of m str
    tests : tuple of m - 1 tuples of PairedTest
        ``tests[i][j]`` compares method i + 1 with method j, for j <= i.
    count : int
        Images.
    title : str
    ax_, figure_ : matplotlib Axes and Figure
        Where the triangle was drawn, after `plot`.

    Examples
    --------
    >>> found = MethodDifferences.counted(["1", "2", "2"], {"a": ["1", "1", "1"], "b": ["1", "2", "2"]})
    >>> found.tests[0][0].only_first, found.tests[0][0].only_second
    (2, 0)
    """

    methods: tuple[str, ...]
    tests: tuple[tuple[PairedTest, ...], ...]
    count: int
    title: str = ""
    ax_: Axes | None = field(default=None, init=False, repr=False)
    figure_: Sheet | None = field(default=None, init=False, repr=False)

    @classmethod
    def from_predictions(
        cls,
        y_true: Sequence[object],
        y_pred: Mapping[str, Sequence[object]],
        *,
        title: str = "",
        ax: Axes | None = None,
    ) -> Self:
        """Test all pairs of methods and draw the triangle; parameters as `counted` and `plot`."""
        return cls.counted(y_true, y_pred, title=title).plot(ax)

    @classmethod
    def counted(cls, y_true: Sequence[object], y_pred: Mapping[str, Sequence[object]], *, title: str = "") -> Self:
        """Test all pairs of methods, and draw nothing.

        Parameters
        ----------
        y_true : sequence of str, length n >= 1
            Actual label of each image.
        y_pred : mapping
            Predicted labels of each method by its name, for the same images in the same order; at least two methods.
        title : str

        Raises
        ------
        ValueError
            If there are fewer than two methods, no image, or a method has another number of predictions.
        """
        if len(y_pred) < 2 or not len(y_true):
            raise ValueError(f"{len(y_pred)} methods and {len(y_true)} images; pass two methods and one image or more")
        right = [[str(a) == str(p) for a, p in zip(y_true, found, strict=True)] for found in y_pred.values()]
        tests = tuple(tuple(mcnemar(right[i], other) for other in right[:i]) for i in range(1, len(right)))
        return cls(tuple(y_pred), tests, len(right[0]), title)

    @property
    def adjusted(self) -> list[list[float]]:
        """P-values of `tests`, Holm-adjusted for all pairs."""
        flat = iter(holm([test.pvalue for row in self.tests for test in row]))
        return [[float(next(flat)) for _ in row] for row in self.tests]

    def plot(self, ax: Axes | None = None) -> Self:
        """Draw the triangle: in each cell the images that only the row's and only the column's method has right, and p.

        Colour is the difference of the accuracies, row less column, and pale where the adjusted p is above 0.05; a frame
        marks the others.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; a new figure of pyplot by default.
        """
        from matplotlib import colormaps, rcParams
        from matplotlib.patches import Rectangle

        if ax is None:
            from matplotlib import pyplot

            _, ax = pyplot.subplots(figsize=(5, 5), layout="constrained")
        many, adjusted = len(self.methods) - 1, self.adjusted
        size = 11 if many <= 3 else 8 if many <= 6 else 6
        for i, row in enumerate(self.tests):
            for j, test in enumerate(row):
                share = (test.only_first - test.only_second) / self.count / _WIDEST
                strength = min(1.0 if adjusted[i][j] <= LEVEL else _PALE, abs(share))
                colour = (*colormaps["RdBu"](0.95 if share > 0 else 0.05)[:3], strength)
                ax.add_patch(Rectangle((j, i), 1, 1, facecolor=colour, edgecolor="none"))
                if adjusted[i][j] <= LEVEL:
                    inner = Rectangle((j + 0.04, i + 0.04), 0.92, 0.92, fill=False, linewidth=1.6)
                    inner.set_edgecolor("white" if strength > _STRONG else rcParams["text.color"])
                    ax.add_patch(inner)
                ink = "white" if strength > _STRONG else rcParams["text.color"]
                text = f"{test.only_first} : {test.only_second}\n{_pvalue(adjusted[i][j])}"
                ax.text(j + 0.5, i + 0.5, text, ha="center", va="center", color=ink, fontsize=size)
        ax.set(xlim=(0, many), ylim=(many, 0), aspect="equal", xlabel="only the column's is right (right number)")
        ax.set_ylabel("only the row's is right (left number)")
        places = [i + 0.5 for i in range(many)]
        turned = max(map(len, self.methods)) * many > 30
        ax.set_xticks(places, self.methods[:-1], rotation=30 if turned else 0, ha="right" if turned else "center")
        ax.set_yticks(places, self.methods[1:])
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        ax.set_title(f"{self.title}\n{self.count} images" if self.title else f"{self.count} images", fontsize=10)
        self.ax_, self.figure_ = ax, ax.figure  # type: ignore[assignment]
        return self


def _pvalue(value: Any) -> str:
    return f"p {value:.2g}" if value >= 1e-3 else f"p {value:.0e}"
