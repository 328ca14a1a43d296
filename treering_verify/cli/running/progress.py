"""Progress of an audit on stderr: a bar on a terminal, elsewhere a line now and then."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.console import Console

    from treering_verify.audit.output.open_shards import Tally

_FIRST_LINE, _LINES = 10.0, 60.0  # seconds until the first line, and between two of them later
_WINDOW = 60.0  # seconds over which the rate is taken


class Pace:
    """The rate of an audit over the last minute, and the time that is left.

    Parameters
    ----------
    clock : callable, optional
        Returns seconds; `time.monotonic` when left out.
    """

    def __init__(self, clock: Callable[[], float] | None = None) -> None:
        self._clock = clock or time.monotonic
        self._seen: deque[tuple[float, int]] = deque()

    def add(self, done: int) -> None:
        """Note how many files are done now, those of earlier runs apart."""
        now = self._clock()
        if not self._seen or now - self._seen[-1][0] >= 0.5:
            self._seen.append((now, done))
        while len(self._seen) > 2 and now - self._seen[1][0] > _WINDOW:
            self._seen.popleft()

    @property
    def rate(self) -> float:
        """Files a second; 0 until it is known."""
        if len(self._seen) < 2:
            return 0.0
        (start, before), (end, after) = self._seen[0], self._seen[-1]
        return (after - before) / (end - start)

    def words(self, left: int | None) -> str:
        """Say the rate, and how long so many files take; None: nobody knows yet how many there are."""
        if not self.rate:
            return ""
        pace = f"{self.rate:.1f} files/s" if self.rate >= 1 else f"{1 / self.rate:.1f} s a file"
        return pace if left is None else f"{pace}, {duration(left / self.rate)} left"


def duration(seconds: float) -> str:
    """Return a time in words, such as 40 s, 12 min or 3 h 20 min."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def progress_words(tally: Tally, pace: Pace) -> str:
    """Return the line of progress: how many of how many, rate, time left, and counts by verdict."""
    counts = [
        f"{n} {label.split(':')[1]}"
        for label, n in sorted(tally.counts.items())
        if label in ("status:error", "status:skipped") or label.startswith("verdict:")
    ]
    if not (tally.total or tally.walked):
        return "the files are being listed"
    of = f"of {tally.total} files" if tally.walked else f"of {tally.total} files or more"
    how = pace.words(tally.total - tally.done if tally.walked else None)
    return "; ".join(filter(None, (f"{tally.done} {of}", how, ", ".join(counts))))


@contextmanager
def audit_progress(quiet: bool) -> Iterator[Callable[[Tally], None]]:
    """Show the progress that the yielded function is told: a bar on a terminal, else a line every minute."""
    from rich.console import Console

    pace, console = Pace(), Console(stderr=True)
    if quiet:
        yield lambda tally: None
    elif console.is_terminal:
        with _bar(console, pace) as watch:
            yield watch
    else:
        yield _Lines(pace)


class _Lines:
    """Writes a line of progress now and then; what is done by the first needs none."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._next = time.monotonic() + _FIRST_LINE

    def __call__(self, tally: Tally) -> None:
        self._pace.add(tally.done - tally.resumed)
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _LINES
            with suppress(OSError):  # nobody reads it any more, which is no reason to stop
                click.echo(f"Auditing: {progress_words(tally, self._pace)}", err=True)


@contextmanager
def _bar(console: Console, pace: Pace) -> Iterator[Callable[[Tally], None]]:
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (TextColumn("Auditing"), BarColumn(), TextColumn("{task.fields[words]}"))
    with Progress(*columns, console=console, transient=True, redirect_stdout=False) as bar:
        task = bar.add_task("", total=None, words="")

        def watch(tally: Tally) -> None:
            pace.add(tally.done - tally.resumed)
            total = tally.total if tally.walked else None
            bar.update(task, completed=tally.done, total=total, words=progress_words(tally, pace))

        yield watch
