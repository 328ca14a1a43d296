"""Stop a benchmark at any time and report what it has measured until then."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from treering_detectors import mean

from treering_verify.report.findings import Cell, Findings, Table

Progress = Callable[[str, int], AbstractContextManager[Callable[[], None]]]


class BenchmarkInterrupted(KeyboardInterrupt):
    """A benchmark was interrupted, and a report of what it had measured was written.

    Attributes
    ----------
    summary : str
        Summary of the report.
    """

    def __init__(self, summary: str) -> None:
        super().__init__("interrupted")
        self.summary = summary


class Interruption:
    """Whether a measurement was interrupted, and where.

    Attributes
    ----------
    where : str
        What was being measured, and how much of it was done; "" while nothing was interrupted.
    """

    def __init__(self) -> None:
        self.where = ""

    def around(self, progress: Progress) -> Progress:
        """Return a progress whose block ends where Ctrl-C comes, without an exception, so that what follows can report.

        A block that is entered after that raises KeyboardInterrupt: its measurements would be missing.
        """

        @contextmanager
        def block(what: str, total: int) -> Iterator[Callable[[], None]]:
            if self.where:
                raise KeyboardInterrupt
            done = 0
            with progress(what, total) as advance:

                def counted() -> None:
                    nonlocal done
                    done += 1
                    advance()

                try:
                    yield counted
                except KeyboardInterrupt:
                    self.where = f"interrupted at {what.lower()} {done} of {total}"

        return block


def findings_of_rows(name: str, question: str, rows: Iterable[dict[str, Any]]) -> Findings:
    """Return findings of the rows alone: a table with the means of each column of numbers, by the columns of texts.

    Rows that are numbered by an image are averaged over all images.
    """
    whole = tuple(rows)
    texts = [key for key in whole[0] if any(isinstance(row[key], str) for row in whole)]
    numbers = [
        key
        for key in whole[0]
        if key not in (*texts, "image", "key", "round") and any(_number(row[key]) for row in whole)
    ]
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in whole:
        groups.setdefault(tuple(str(row[key]) for key in texts), []).append(row)
    lines: list[tuple[Cell, ...]] = []
    for group, some in groups.items():
        values = [[float(row[key]) for row in some if _number(row[key])] for key in numbers]
        lines.append(
            (*group, len(some), *(mean(found) if len(found) > 1 else next(iter(found), None) for found in values))
        )
    table = Table(
        "Measured until the interruption", (*texts, "rows", *numbers), tuple(lines), "Mean and 95 % interval."
    )
    return Findings(name, question, whole, (table,))


def _number(value: object) -> bool:
    return isinstance(value, int | float)
