"""How much is searched: named levels, or seconds."""

from __future__ import annotations

from dataclasses import dataclass

from treering_verify.errors import UsageError


@dataclass(frozen=True)
class Level:
    """One level of the search.

    Attributes
    ----------
    area : float
        Network passes, counted in images of the model's size, that maps may take.
    smallest : float
        Side of the smallest image that is looked for, in shares of the model's.
    turns : int
        Angles: 0 the quarter turns alone; 1 others too, of images about as large as the page; 2 of all sizes.
    refined : int
        Guesses that are refined.
    promising : float
        Log10 p, divided by the weights, from which on a guess is not refined.
    looks : bool
        Whether other colours are tried, and the image without what covers it. Else the latter is tried only where hard
        edges suggest text or stickers.
    stretched : bool
        Whether other aspect ratios than the page's are tried.
    boxes : int
        Boxes on a page that are tested, at most, for the keys of an index: a network pass each.
    crops : int
        Places each way at which a page may lie in a larger image, for the keys of an index.
    products : float
        Windows times keys of the index, about, of the boxes and of the grid each: many keys have fewer windows.
    """

    area: float
    smallest: float
    turns: int
    refined: int
    promising: float
    looks: bool
    stretched: bool
    boxes: int
    crops: int
    products: float

    def left_out(self, covers: bool) -> tuple[str, ...]:
        """Say what this level does not search, and whether it looked for what covers the image."""
        parts = [f"images smaller than {self.smallest:g} of the model's"]
        if self.turns < 2:
            some = (
                "other turns than by quarters" if self.turns == 0 else "images that are turned and do not fill the page"
            )
            parts.append(some)
        if not self.stretched:
            parts.append("other aspects than the page's and the model's")
        if not self.looks:
            parts.append("other colours" if covers else "other colours, and what covers the image")
        return tuple(parts)


LEVELS = {
    "quick": Level(
        area=5,
        smallest=0.85,
        turns=0,
        refined=1,
        promising=0.0,
        looks=False,
        stretched=False,
        boxes=6,
        crops=5,
        products=1e7,
    ),
    "fast": Level(
        area=400,
        smallest=0.79,
        turns=1,
        refined=2,
        promising=0.5,
        looks=True,
        stretched=False,
        boxes=24,
        crops=9,
        products=1e8,
    ),
    "thorough": Level(
        area=20_000,
        smallest=0.4,
        turns=2,
        refined=4,
        promising=3.0,
        looks=True,
        stretched=True,
        boxes=96,
        crops=17,
        products=1e9,
    ),
}
OFF, AUTO = "off", "auto"
SINGLE, AUDIT = "fast", "quick"
"""Levels that "auto" stands for in `verify` and `identify`, and in audits."""
MOST_KEYS = 32
"""Keys up to which all of a page is searched: each costs some Fourier transforms for each hypothesis."""


@dataclass(frozen=True)
class Search:
    """How thoroughly a page is searched for an image that lies on it moved, scaled, turned, mirrored or cropped.

    Attributes
    ----------
    level : {"quick", "fast", "thorough"}
    seconds : float, optional
        After this time, nothing more is begun. What is found then depends on the machine; p-values are valid all the same.

    Raises
    ------
    UsageError
        If there is no such level, or seconds are not positive.
    """

    level: str = "fast"
    seconds: float | None = None

    def __post_init__(self) -> None:
        if self.level not in LEVELS:
            raise UsageError(
                f"no search {self.level!r}: choose {AUTO}, {OFF}, {', '.join(LEVELS)}, or a number of seconds"
            )
        if self.seconds is not None and not self.seconds > 0:
            raise UsageError(f"search takes {self.seconds} seconds: give more than 0, or {OFF}")

    @property
    def words(self) -> str:
        """Return the setting as it is written: a level, or seconds."""
        return self.level if self.seconds is None else f"{self.seconds:g} s"


def search_of(setting: Search | str | float | None, auto: str = SINGLE) -> Search | None:
    """Return the search that a setting names: "auto", which is the level `auto`, a level, "off" or None, or seconds.

    Raises
    ------
    UsageError
        If it names none.
    """
    if setting is None or isinstance(setting, Search):
        return setting
    if setting == OFF:
        return None
    if isinstance(setting, str) and setting in (AUTO, *LEVELS):
        return Search(auto if setting == AUTO else setting)
    try:
        return Search("thorough", float(setting))
    except ValueError:
        raise UsageError(
            f"no search {setting!r}: choose {AUTO}, {OFF}, {', '.join(LEVELS)}, or a number of seconds"
        ) from None
