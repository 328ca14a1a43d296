"""Progress on stderr, and the printing of verdicts."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

import click

from treering_verify.cli.command import FOUND, UNJUDGED

if TYPE_CHECKING:
    from treering_verify.results import Verdict

_PATIENCE = 3.0  # seconds before progress is shown: what is done by then needs none


class Counter:
    """Counts what is done, and shows it on stderr from the third second on, where that is a terminal."""

    def __init__(self, description: str, total: int) -> None:
        from rich.console import Console
        from rich.progress import Progress

        self._lock = threading.Lock()
        self._bar = Progress(console=Console(stderr=True), transient=True, redirect_stdout=False)
        self._task = self._bar.add_task(description, total=total)
        self._timer = threading.Timer(_PATIENCE, self._start)
        self._timer.daemon = True
        self._timer.start()

    def __call__(self) -> None:
        """Count one."""
        self._bar.advance(self._task)

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """Take the bar away while something is printed on the same terminal."""
        with self._lock:
            started = self._bar.live.is_started
            if started:
                self._bar.stop()
            try:
                yield
            finally:
                if started:
                    self._bar.start()

    def _start(self) -> None:
        with self._lock:
            self._bar.start()

    def close(self) -> None:
        """End the bar, if it was shown."""
        self._timer.cancel()
        self._timer.join()
        if self._bar.live.is_started:
            self._bar.stop()


@contextmanager
def progress(description: str, total: int) -> Iterator[Callable[[], None]]:
    """Show a progress bar on stderr from the third second on; none without a terminal. Yields what counts one."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    counter = Counter(description, total)
    try:
        yield counter
    finally:
        counter.close()


def echo(line: str, counter: Callable[[], None]) -> None:
    """Print a line of data; where stdout is the terminal of a progress bar, above it."""
    with counter.hidden() if isinstance(counter, Counter) and sys.stdout.isatty() else nullcontext():
        click.echo(line)


def print_verdicts(
    verdicts: Callable[[], Iterable[Verdict]],
    total: int,
    description: str,
    style: str,
    fail_on: tuple[str, ...],
    matches: bool = False,
) -> None:
    """Print verdicts as they come in, with a progress bar, and exit with 1 or 3 where their answers ask for it.

    `verdicts` is called once progress can be shown: it loads the model.
    """
    from treering_verify.report import format_verdicts

    seen: set[str] = set()
    with progress(description, total) as advance:

        def watched() -> Iterator[Verdict]:
            for verdict in verdicts():
                seen.update((verdict.status, (verdict.verdict or "").replace(" ", "-")))
                advance()
                yield verdict

        for line in format_verdicts(watched(), style, matches):
            echo(line, advance)
    if seen.intersection(fail_on):
        sys.exit(FOUND)
    if "error" in seen:
        sys.exit(UNJUDGED)
